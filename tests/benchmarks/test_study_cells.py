"""Cells of the studies: options, processes, what they take over from other runs, and resuming."""

import json
from dataclasses import asdict, replace

import pytest
import tyro
from rich.console import Console

from agents.run_folder import RunFolder, RunFolderError, open_run
from agents.stages import Stage
from benchmarks import ablation, reward_schemes, sensitivity
from benchmarks.study import cells as study
from benchmarks.study.base import MADE_BY, ContinuingOptions, finished_links, start_of
from benchmarks.study.cells import link_whole, open_cell, run_cells, run_missing, run_process, train_start
from codegym import UnknownNameError
from codegym.storage import append_rows, read_rows

CONFIG = ablation.cell_config("smoke", "sparse", 0)
QUIET = Console(quiet=True)
MODULES = (ablation, reward_schemes, sensitivity)


def make_base(out, stages=tuple(MADE_BY), config=CONFIG):
    """An ablation's cell with some finished stages, and the policy that it started from."""
    start = out / "start/sft"
    start.mkdir(parents=True)
    run = open_run(out / "sparse/0", asdict(config))
    link_whole(run.path, {"sft": start})
    for stage in stages:
        place = run.path / MADE_BY[stage]
        if place.suffix:
            append_rows(place, [{"of": "base"}])
        else:
            place.mkdir()
        run.finish(stage, seconds=1.0, metrics={})
    return run.path


def groups(base, last="prm"):
    return [{"sft": base / "sft"}, *finished_links(base, CONFIG, last)]


# --- options ---


@pytest.mark.parametrize("module", MODULES)
def test_the_command_line_of_a_cell_says_what_its_study_was_told(module, tmp_path):
    (tmp_path / "a policy").mkdir()
    options = module.Options(scale="smoke", jobs=3, start=tmp_path / "a policy", out=tmp_path / "o")
    if isinstance(options, ContinuingOptions):
        options = replace(options, base=tmp_path / "base")
    read = tyro.cli(module.Options, args=[*options.arguments(), "--cell", "sparse/0"])
    assert read == replace(options, cell="sparse/0", jobs=module.Options().jobs)
    assert "--start" not in module.Options(out=tmp_path).arguments()


@pytest.mark.parametrize("module", MODULES)
def test_a_study_explains_itself(module, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["x", "--help"])
    with pytest.raises(SystemExit) as end:
        module.main()
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert f"python -m benchmarks.{module.__name__.split('.')[1]}" in told
    assert "--scale {smoke,small,full}" in told


@pytest.mark.parametrize("module", MODULES)
def test_a_cell_that_there_is_not_is_refused_before_any_work(module, tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["x", "--scale", "smoke", "--out", str(tmp_path / "o"), "--cell", "9/9"])
    with pytest.raises(UnknownNameError, match="unknown cell '9/9'"):
        module.main()
    assert not (tmp_path / "o").exists()


def test_bad_options_are_named(tmp_path):
    with pytest.raises(ValueError, match="jobs must be at least 1, got 0"):
        ablation.Options(jobs=0)
    with pytest.raises(FileNotFoundError, match="no policy at"):
        ablation.Options(start=tmp_path / "absent")


def test_cells_start_from_the_ablations_policy_if_there_is_one(tmp_path):
    options = ContinuingOptions(out=tmp_path / "o", base=tmp_path / "base")
    assert options.start_folder == tmp_path / "o/start/sft"
    base = make_base(tmp_path / "base")
    assert options.start_folder == start_of(tmp_path / "base") == tmp_path / "base/start/sft"
    assert start_of(tmp_path / "absent") is None
    # an ablation that was given its policy has no start of its own, but its cells link to it
    (tmp_path / "given").mkdir()
    (base / "sft").unlink()
    link_whole(base, {"sft": tmp_path / "given"})
    (tmp_path / "base/start/sft").rmdir()
    assert options.start_folder == tmp_path / "given"


def test_another_start_than_the_ablations_is_refused(tmp_path):
    make_base(tmp_path / "base")
    (tmp_path / "mine").mkdir()
    told = {"out": tmp_path / "o", "base": tmp_path / "base"}
    with pytest.raises(ValueError, match=r"starts from .*base/start/sft, not from .*mine"):
        ContinuingOptions(start=tmp_path / "mine", **told)
    assert ContinuingOptions(start=tmp_path / "base/start/sft", **told).start is not None


def test_the_starting_policy_is_made_once(tmp_path, monkeypatch):
    made = []

    def make(config, out, *, stage, console):
        made.append((config.scale, out, stage))
        (out / "sft").mkdir(parents=True)

    monkeypatch.setattr(study, "run_pipeline", make)
    options = ablation.Options(scale="smoke", out=tmp_path)
    train_start(options, QUIET)
    train_start(options, QUIET)
    assert made == [("smoke", tmp_path / "start", "sft")]


# --- processes ---


def test_a_cell_that_fails_is_named_with_the_end_of_its_log(tmp_path, monkeypatch):
    done = []

    def run(module, options, cell):
        done.append(cell)
        return "it broke" if cell == "sparse/1" else ""

    monkeypatch.setattr(study, "run_process", run)
    options = ablation.Options(scale="smoke", out=tmp_path)
    with pytest.raises(RuntimeError, match=r"cells failed: sparse/1;.*\nit broke"):
        run_cells("benchmarks.ablation", options, ["sparse/1", "sparse/0"], QUIET)
    assert sorted(done) == ["sparse/0", "sparse/1"]


def test_a_log_is_shown_as_text_whatever_it_holds(tmp_path, monkeypatch):
    package = tmp_path / "broken.py"
    package.write_text("import os, sys; os.write(2, b'\\xff\\x1b[31mred\\n'); sys.exit(3)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    options = ablation.Options(scale="smoke", out=tmp_path / "o")
    for _ in range(2):  # the second attempt is appended
        assert run_process("broken", options, "sparse/0").endswith("\\x1b[31mred")
    assert (tmp_path / "o/sparse-0.log").read_bytes().count(b"red") == 2
    package.write_text("import sys; assert sys.argv[-2:] == ['--cell', 'sparse/0']\n")
    assert run_process("broken", options, "sparse/0") == ""


# --- taking over ---


def test_finished_stages_are_taken_over_in_order(tmp_path):
    base = make_base(tmp_path / "base", stages=("baseline", "collect", "prm"))  # "label" is missing
    names = [set(links) for links in finished_links(base, CONFIG, "prm")]
    assert names == [{"baseline", "stages/baseline.json"}, {"programs.jsonl", "stages/collect.json"}]
    assert len(finished_links(base, CONFIG, "baseline")) == 1
    assert finished_links(tmp_path / "absent", CONFIG, "prm") == []


def test_a_run_with_other_settings_is_not_gone_on_from(tmp_path):
    base = make_base(tmp_path / "base")
    other = replace(CONFIG, seed=7, rl=replace(CONFIG.rl, n_iterations=9))
    with pytest.raises(RunFolderError, match=r"rl\.n_iterations 4 instead of 9, seed 0 instead of 7"):
        finished_links(base, other, "prm")
    # a run that is older than a setting is not asked for it
    stored = json.loads((base / "config.json").read_text())
    del stored["config"]["label"]["temperature"]
    (base / "config.json").write_text(json.dumps(stored))
    assert len(finished_links(base, CONFIG, "prm")) == len(MADE_BY)


def test_a_cell_reads_what_it_took_over_and_writes_beside_it(tmp_path):
    base = make_base(tmp_path / "base")
    for _ in range(2):  # a second run finds its links
        with open_cell(tmp_path / "cell", CONFIG, groups(base)) as context:
            assert all(context.run.finished(stage) is not None for stage in MADE_BY)
            context.run.finish("baseline", seconds=2.0, metrics={})
    assert RunFolder(base).finished("baseline")["seconds"] == 1.0
    assert RunFolder(tmp_path / "cell").finished("baseline")["seconds"] == 2.0
    assert [row["of"] for row in read_rows(tmp_path / "cell/programs.jsonl")] == ["base"]


def test_a_stage_that_the_cell_has_begun_is_its_own_and_so_are_those_after_it(tmp_path):
    base = make_base(tmp_path / "base", stages=("baseline",))
    with open_cell(tmp_path / "cell", CONFIG, groups(base)):
        append_rows(tmp_path / "cell/programs.jsonl", [{"of": "cell"}])  # killed in the middle of collect
    made = tuple(stage for stage in MADE_BY if stage != "baseline")
    base.joinpath("baseline").rmdir()
    (base / "stages/baseline.json").unlink()
    for path in (base / "sft", base.parent.parent / "start/sft"):
        path.unlink() if path.is_symlink() else path.rmdir()
    base = make_base(tmp_path / "base", stages=("baseline", *made))  # the ablation has gone on meanwhile
    with open_cell(tmp_path / "cell", CONFIG, groups(base)) as context:
        assert context.run.finished("baseline") is not None
        assert [context.run.finished(stage) for stage in made] == [None] * len(made)
    assert not (tmp_path / "cell/labels.jsonl").exists()


def test_a_cell_that_started_from_another_policy_takes_nothing_over(tmp_path):
    base = make_base(tmp_path / "base")
    (tmp_path / "other").mkdir()
    with open_cell(tmp_path / "cell", CONFIG, [{"sft": tmp_path / "other"}]):
        pass
    with open_cell(tmp_path / "cell", CONFIG, groups(base)) as context:
        assert context.run.finished("baseline") is None
    assert (tmp_path / "cell/sft").resolve() == tmp_path / "other"


def test_links_that_a_kill_left_half_made_are_completed(tmp_path):
    base = make_base(tmp_path / "base")
    with open_cell(tmp_path / "cell", CONFIG, [{"sft": base / "sft"}, {"baseline": base / "baseline"}]):
        pass
    with open_cell(tmp_path / "cell", CONFIG, groups(base)) as context:
        assert context.run.finished("prm") is not None


def test_a_link_whose_source_is_gone_is_named_and_nothing_is_written(tmp_path):
    base = make_base(tmp_path / "base")
    with open_cell(tmp_path / "cell", CONFIG, groups(base)):
        pass
    (base / "labels.jsonl").unlink()
    with (
        pytest.raises(RunFolderError, match=r"cell/labels\.jsonl is a link to .*base.*, which is gone"),
        open_cell(tmp_path / "cell", CONFIG, []),
    ):
        pass
    with pytest.raises(FileNotFoundError):
        link_whole(tmp_path / "new", {"sft": tmp_path / "absent"})


# --- resuming ---


def test_finished_stages_are_not_run_again_and_a_failed_one_is(tmp_path):
    ran = []

    def work(name, *, fails=False):
        def run(context, report):
            ran.append(name)
            if fails:
                raise RuntimeError("power cut")
            report(1, 1)
            return {}

        return Stage(work=run)

    def attempt(*, fails):
        with open_cell(tmp_path / "cell", CONFIG, []) as context:
            run_missing(
                context, {"one": work("one"), "two": work("two", fails=fails), "three": work("three")}
            )

    with pytest.raises(RuntimeError, match="power cut"):
        attempt(fails=True)
    attempt(fails=False)
    attempt(fails=False)
    assert ran == ["one", "two", "two", "three"]


def test_two_processes_do_not_work_on_one_cell(tmp_path):
    with (
        open_cell(tmp_path / "cell", CONFIG, []),
        pytest.raises(RunFolderError, match="another process"),
        open_cell(tmp_path / "cell", CONFIG, []),
    ):
        pass


def test_a_folder_of_other_settings_is_refused(tmp_path):
    with open_cell(tmp_path / "cell", CONFIG, []) as context:
        context.run.finish("one", seconds=1.0, metrics={})
    with (
        pytest.raises(RunFolderError, match=r"seed: the folder has 0, asked for 1"),
        open_cell(tmp_path / "cell", replace(CONFIG, seed=1), []),
    ):
        pass
