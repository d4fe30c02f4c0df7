"""TRL against PSGPO: clock, rows and tables by hand; arms that train, TRL's where it is installed."""

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.run_folder import RunFolderError, open_run
from benchmarks.peer import clock as clock_module
from benchmarks.peer.arm import ARMS, ASSIGNMENT, PEERS, RESULT, Assignment, versions
from benchmarks.peer.clock import CHECKPOINTS, CURVE, MARK, Clock, Recorder
from benchmarks.peer.report import (
    difference_table,
    effort_table,
    held_out_table,
    passes,
    preparation,
    report,
    sweep_table,
    write_figures,
)
from benchmarks.trl_peer import (
    CHECKOUT,
    SCALES,
    Options,
    best_rate,
    check_inputs,
    interpreter,
    tasks_of,
    train,
)
from codegym import UnknownNameError
from codegym.errors import MissingExtraError
from codegym.storage import read_rows, write_json
from codegym.table import resolve
from codegym.tasks.stepwise_corpus import corpus
from codegym.testing import DOUBLE, ScriptedJudge, judgement
from prm.model import ProcessRewardModel


def assignment(**changes):
    given = {
        "arm": "ppo",
        "run": "run",
        "horizons": (1, 2),
        "n_tasks": 8,
        "seconds": 12.0,
        "n_checkpoints": 2,
        "rollouts": 16,
        "threads": 1,
    }
    return Assignment(**{**given, **changes})


# ---------------------------------------------------------------- the clock


class Times:
    """Wall and CPU seconds that a test moves on by hand; CPU runs at half the speed."""

    def __init__(self):
        self.wall = 100.0

    def perf_counter(self):
        return self.wall

    def tree_cpu_s(self):
        return self.wall / 2


@pytest.fixture
def times(monkeypatch):
    moved = Times()
    monkeypatch.setattr(clock_module.time, "perf_counter", moved.perf_counter)
    monkeypatch.setattr(clock_module, "tree_cpu_s", moved.tree_cpu_s)
    return moved


def test_the_clock_counts_nothing_before_it_is_started(times):
    clock = Clock(10)
    times.wall += 5
    assert (clock.wall, clock.cpu, clock.progress, clock.over) == (0, 0, 0, False)


def test_the_clock_stands_still_while_paused(times):
    clock = Clock(10)
    clock.start()
    times.wall += 4
    with clock.paused():
        times.wall += 100
        assert (clock.wall, clock.cpu) == (4, 2)
    times.wall += 2
    assert (clock.wall, clock.cpu, clock.progress) == (6, 3, 0.6)
    assert not clock.over


def test_the_budget_is_over_when_it_is_used_up_and_progress_ends_at_one(times):
    clock = Clock(10)
    clock.start()
    times.wall += 10
    assert clock.over
    times.wall += 10
    assert clock.progress == 1


@pytest.mark.parametrize("budget", [0, -1, float("nan")])
def test_a_budget_is_positive(budget):
    with pytest.raises(ValueError, match=f"positive, got {budget}"):
        Clock(budget)


def test_the_real_clock_moves():
    clock = Clock(60)
    clock.start()
    sum(i * i for i in range(200_000))
    assert 0 < clock.wall < 60
    assert clock.cpu >= 0


# ---------------------------------------------------------------- what an arm writes down


@pytest.fixture
def recorder(times, tmp_path):
    def save(place):
        place.mkdir(parents=True)
        (place / "policy").write_text("weights")
        times.wall += 50  # a slow disk

    clock = Clock(12)
    made = Recorder(tmp_path, clock, n_checkpoints=3, save=save)
    clock.start()
    return made


def iteration(recorder, times, seconds, **counts):
    times.wall += seconds
    defaults = {"programs": 8, "tokens": 80, "passed": 2, "sampling_s": 1.0, "judging_s": 0.5}
    recorder.add(**{**defaults, **counts})


def test_rows_add_up_and_what_is_left_of_the_time_was_learning(recorder, times, tmp_path):
    iteration(recorder, times, 3)
    iteration(recorder, times, 2, passed=8, tokens=20)
    first, second = read_rows(tmp_path / CURVE)
    assert first == {
        "iteration": 1,
        "programs": 8,
        "tokens": 80,
        "seconds": 3,
        "cpu_seconds": 1.5,
        "success_rate": 0.25,
        "sampling_s": 1.0,
        "judging_s": 0.5,
        "learning_s": 1.5,
    }
    assert (second["iteration"], second["programs"], second["tokens"]) == (2, 16, 100)
    assert (second["seconds"], second["cpu_seconds"], second["learning_s"]) == (5, 2.5, 0.5)
    assert second["success_rate"] == 1


def test_a_policy_is_kept_per_share_of_the_budget_and_saving_costs_no_budget(recorder, times, tmp_path):
    for _ in range(6):
        iteration(recorder, times, 2)
    assert recorder.clock.over
    kept = {
        place.name: json.loads((place / MARK).read_text()) for place in (tmp_path / CHECKPOINTS).iterdir()
    }
    assert {name: mark["seconds"] for name, mark in kept.items()} == {"1": 4, "2": 8, "3": 12}
    assert {name: mark["programs"] for name, mark in kept.items()} == {"1": 16, "2": 32, "3": 48}
    assert all((tmp_path / CHECKPOINTS / name / "policy").exists() for name in kept)


def test_an_iteration_that_outlasts_two_shares_leaves_one_policy(recorder, times, tmp_path):
    iteration(recorder, times, 9)
    assert [place.name for place in (tmp_path / CHECKPOINTS).iterdir()] == ["2"]
    iteration(recorder, times, 90)
    assert sorted(place.name for place in (tmp_path / CHECKPOINTS).iterdir()) == ["2", "3"]


def test_an_arm_ends_when_nobody_waits_for_it(recorder, times, tmp_path, monkeypatch):
    monkeypatch.setattr(clock_module.os, "getppid", lambda: 1)
    with pytest.raises(SystemExit, match="has ended"):
        iteration(recorder, times, 9)
    assert not (tmp_path / CURVE).exists()


# ---------------------------------------------------------------- what an arm is given


def test_an_assignment_survives_its_file(tmp_path):
    given = assignment(arm="trl_rloo", learning_rate=1e-4, seed=3)
    write_json(tmp_path / ASSIGNMENT, asdict(given))
    assert Assignment.read(tmp_path) == given


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arm": "trl_gpro"}, "did you mean 'trl_grpo'"),
        ({"reward": "verdict"}, "unknown reward 'verdict'"),
        ({"n_tasks": 0}, "n_tasks must be at least 1, got 0"),
        ({"n_checkpoints": 0}, "n_checkpoints must be at least 1, got 0"),
        ({"rollouts": -8}, "rollouts must be at least 1, got -8"),
        ({"threads": 0}, "threads must be at least 1, got 0"),
        ({"seconds": 0.0}, "seconds must be positive, got 0.0"),
        ({"learning_rate": -1e-3}, "learning_rate must be positive, got -0.001"),
    ],
)
def test_an_assignment_that_cannot_be_trained_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        assignment(**changes)


def test_training_tasks_have_the_asked_steps_and_are_not_held_out():
    tasks = assignment(horizons=(2, 3)).tasks
    assert [task.metadata["horizon"] for task in tasks] == [2, 3] * 4
    assert {task.split for task in tasks} == {"train"}
    options = Options(scale="smoke", horizons=(2, 3))
    for split in ("test", "validation"):
        held_out = tasks_of(options, split)
        assert len(held_out) == SCALES["smoke"].held_out
        assert {task.split for task in held_out} == {split}
        assert {task.metadata["horizon"] for task in held_out} == {2, 3}


@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_is_there_or_says_which_package_it_needs(arm):
    if arm in PEERS and find_spec("trl") is None:
        with pytest.raises(MissingExtraError, match=r"arm 'trl_.*' needs the package '(datasets|trl)'"):
            resolve(ARMS, arm, "arm")
    else:
        assert callable(resolve(ARMS, arm, "arm"))


def test_versions_of_packages_that_are_there():
    found = versions()
    assert found["torch"] == torch.__version__
    assert ("trl" in found) == (find_spec("trl") is not None)


# ---------------------------------------------------------------- options


def test_every_arm_gets_the_same_but_for_its_name_seed_and_learning_rate(tmp_path):
    options = Options(scale="smoke", run=tmp_path, seconds=7.5)
    given = [asdict(options.assignment(arm, seed=1, learning_rate=None)) for arm in ARMS]
    assert {row.pop("arm") for row in given} == set(ARMS)
    assert all(row == given[0] for row in given)
    assert (given[0]["seconds"], given[0]["n_checkpoints"]) == (7.5, SCALES["smoke"].checkpoints)
    assert options.assignment("ppo", seed=0, learning_rate=0.5).learning_rate == 0.5
    with pytest.raises(ValueError, match="seconds must be positive, got 0"):
        replace(options, seconds=0).assignment("ppo", seed=0, learning_rate=None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ("ppo", "grpo_trl")}, "unknown arm 'grpo_trl'"),
        ({"tuned": ("sgd",)}, "unknown arm 'sgd'"),
        ({"arms": ()}, "arms must not be empty"),
        ({"seeds": ()}, "seeds must not be empty"),
        ({"learning_rates": ()}, "learning_rates must not be empty"),
    ],
)
def test_options_that_name_nothing_are_refused(changes, message):
    with pytest.raises((ValueError, UnknownNameError), match=message):
        Options(**changes)


def test_arms_and_seeds_may_join_a_folder_and_nothing_else_may_change(tmp_path):
    first = Options(scale="smoke", arms=("ppo",), run=tmp_path)
    folder = tmp_path / "out"
    open_run(folder, first.settings())
    (folder / "start.jsonl").write_text("")
    later = replace(first, arms=("ppo", "trl_grpo"), seeds=(0, 1), trl_python=Path("elsewhere"))
    assert open_run(folder, later.settings()).path == folder
    for change in ({"horizons": (9, 12)}, {"seconds": 5.0}, {"tuned": ()}, {"reward": "pass_rate"}):
        with pytest.raises(RunFolderError, match=next(iter(change))):
            open_run(folder, replace(first, **change).settings())


def test_the_interpreter_is_not_what_it_links_to(tmp_path):
    link = tmp_path / "python"
    link.symlink_to(sys.executable)
    assert interpreter(Options(trl_python=link)) == str(link)


def test_of_the_best_learning_rates_the_smallest_wins():
    swept = [
        {"learning_rate": 3e-3, "passes": [1, 1, 0]},
        {"learning_rate": 1e-3, "passes": [1, 0, 1]},
        {"learning_rate": 1e-4, "passes": [1, 0, 0]},
    ]
    assert best_rate(swept) == 1e-3


def script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_a_run_folder_without_a_policy_or_a_reward_model_is_said_at_once(tmp_path):
    with pytest.raises(SystemExit, match="no folder sft"):
        check_inputs(Options(run=tmp_path, arms=("ppo",)))
    (tmp_path / "sft").mkdir()
    check_inputs(Options(run=tmp_path, arms=("ppo",)))
    with pytest.raises(SystemExit, match="no folder prm"):
        check_inputs(Options(run=tmp_path, arms=("ppo", "psgpo")))


def test_an_interpreter_without_trl_is_said_at_once_with_the_way_to_get_one(tmp_path):
    (tmp_path / "sft").mkdir()
    python = script(tmp_path / "python", "echo \"No module named 'trl'\" >&2; exit 1")
    options = Options(run=tmp_path, arms=("ppo", "trl_grpo"), trl_python=python)
    with pytest.raises(SystemExit) as caught:
        check_inputs(options)
    message = str(caught.value)
    assert message.startswith(f"{python} cannot run TRL's arms")
    for part in ("No module named 'trl'", "-m venv", "pip install", "trl==", "--trl-python", "--arms"):
        assert part in message
    check_inputs(replace(options, arms=("ppo",)))  # nobody needs it


def test_an_arm_that_fails_is_quoted_and_not_marked_as_finished(tmp_path):
    python = script(tmp_path / "python", "echo 'the disk is full'; exit 3")
    options = Options(scale="smoke", run=tmp_path, out=tmp_path / "out", trl_python=python)
    run = open_run(options.out, options.settings())
    with pytest.raises(SystemExit, match=r"ppo-seed-0 ended with status 3.*\n.*disk is full"):
        train(assignment(), "ppo-seed-0", options, run)
    assert run.finished("ppo-seed-0") is None


def test_a_finished_arm_is_not_trained_again_and_an_interrupted_one_starts_afresh(tmp_path):
    python = script(tmp_path / "python", 'echo trained >> "$3/curve.jsonl"')
    options = Options(scale="smoke", run=tmp_path, out=tmp_path / "out", trl_python=python)
    run = open_run(options.out, options.settings())
    left = options.out / "arms" / "ppo-seed-0"
    left.mkdir(parents=True)
    (left / CURVE).write_text("half\n")
    for _ in range(2):
        folder = train(assignment(), "ppo-seed-0", options, run)
        assert (folder / CURVE).read_text() == "trained\n"
    assert Assignment.read(folder) == assignment()
    assert run.finished("ppo-seed-0") is not None


# ---------------------------------------------------------------- tables and figures


def held_out(arm, seed, checkpoint, passed):
    return {
        "what": "held_out", "arm": arm, "seed": seed, "checkpoint": checkpoint, "passes": passed,
        "seconds": 6.0 * checkpoint, "cpu_seconds": 9.0 * checkpoint, "programs": 8 * checkpoint,
    }  # fmt: skip


def training(arm, seed, number, rate):
    return {
        "what": "training", "arm": arm, "seed": seed, "iteration": number, "programs": 8 * number,
        "tokens": 80 * number, "seconds": 3.0 * number, "cpu_seconds": 4.0 * number, "success_rate": rate,
        "sampling_s": 0.5, "judging_s": 0.25, "learning_s": 2.25,
    }  # fmt: skip


def arm_row(arm, seed):
    return {
        "what": "arm",
        "arm": arm,
        "seed": seed,
        "settings": {"learning_rate": 0.001},
        "versions": {"torch": "2"},
    }


ROWS = [
    row
    for arm, gain in (("ppo", 1), ("psgpo", 2), ("trl_grpo", 0))
    for seed in (1, 0)
    for row in (
        *(training(arm, seed, number, 0.25 * gain) for number in range(1, 5)),
        arm_row(arm, seed),
        held_out(arm, seed, 0, [1, 0, 0, 0]),
        *([held_out(arm, seed, 1, [1, 1, 0, 0])] if arm == "ppo" else []),
        held_out(arm, seed, 2, [1] * (1 + gain) + [0] * (3 - gain)),
    )
] + [
    {
        "what": "sweep", "arm": "trl_grpo", "learning_rate": 3e-4, "seconds": 30.4, "programs": 1280,
        "passes": [1, 0, 1, 0],
    }
]  # fmt: skip


def test_passes_are_paired_by_seed_and_task():
    rows = [held_out("ppo", 1, 2, [0, 1]), held_out("ppo", 0, 2, [1, 1]), held_out("ppo", 0, 1, [0, 0])]
    assert passes(rows, "ppo", 2).tolist() == [[1, 1], [0, 1]]
    assert passes(rows, "psgpo", 2).size == 0


def test_held_out_rates_by_hand():
    lines = held_out_table(ROWS, assignment()).splitlines()
    assert lines[0] == "| arm | 0 s | 6 s | 12 s |"
    assert lines[2].startswith("| ppo | 0.250 | 0.500 | 0.500 [")
    assert lines[3].startswith("| psgpo | 0.250 | - | 0.750 [")
    assert lines[4].startswith("| trl_grpo | 0.250 | - | 0.250 [")


def test_differences_are_of_our_arms_to_trl_s():
    lines = difference_table(ROWS, 2).splitlines()
    assert lines[0] == "| arm | minus trl_grpo |"
    assert lines[2].startswith("| ppo | 0.250 [")
    assert lines[3].startswith("| psgpo | 0.500 [")
    assert len(lines) == 4


def test_effort_by_hand():
    """Per seed: 4 iterations, 32 programs, 320 tokens, 2 s of sampling, 1 s of judging, 9 s of learning."""
    (line,) = [line for line in effort_table(ROWS).splitlines() if line.startswith("| ppo")]
    assert line == "| ppo | 4 | 32 | 10.0 | 0.250 | 16 | 160 | 32 | 36 | 0.17, 0.08, 0.75 |"


def test_the_sweep_has_a_line_per_learning_rate():
    (line,) = sweep_table(ROWS).splitlines()[2:]
    assert line.startswith("| trl_grpo | 0.0003 | 30 | 1,280 | 0.500 [")


def test_the_report_says_what_was_compared_and_what_the_reward_model_cost():
    text = report(ROWS, assignment(), {"label": 59.4, "prm": 60.2})
    for part in (
        "12 s of training each",
        "1 to 2 steps",
        "pass_fail",
        "minus trl_grpo",
        "Learning rates",
        "made in 120 s: label 59 s, prm 60 s",
        'ppo: {"learning_rate": 0.001}',
        '{"torch": "2"}',
    ):
        assert part in text


def test_what_was_not_measured_is_not_in_the_report():
    alone = [row for row in ROWS if row["arm"] == "ppo"]
    text = report(alone, assignment(), {"prm": 60.0})
    for part in ("minus", "Learning rates", "was made in", "trl_grpo |"):
        assert part not in text


def test_figures_are_functions_of_the_rows(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_figures(ROWS, tmp_path / name)
    svg = (tmp_path / "a" / "curves.svg").read_bytes()
    assert svg == (tmp_path / "b" / "curves.svg").read_bytes()
    assert svg.startswith(b"<?xml")
    assert (tmp_path / "a" / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_preparation_counts_finished_stages_alone(tmp_path):
    assert preparation(tmp_path) == {}
    write_json(tmp_path / "stages" / "label.json", {"stage": "label", "seconds": 12.5, "metrics": {}})
    write_json(tmp_path / "stages" / "sft.json", {"stage": "sft", "seconds": 300, "metrics": {}})
    assert preparation(tmp_path) == {"label": 12.5}


# ---------------------------------------------------------------- arms that train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A main job's run folder as far as arms read it: an untrained policy and an untrained reward model."""
    folder = tmp_path_factory.mktemp("run")
    tiny = TinyModelConfig(
        vocab_size=300, hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=16
    )
    tokenizer = train_tokenizer((a + b for a, b in corpus(100, seed=0)), tiny.vocab_size)
    model = make_tiny_model(tokenizer, tiny, seed=0)
    model.save_pretrained(folder / "sft")
    tokenizer.save_pretrained(folder / "sft")
    ProcessRewardModel.from_backbone(folder / "sft").save_pretrained(folder / "prm")
    return folder


def weights(folder):
    return (folder / "model.safetensors").read_bytes()


def check_arm(given, folder):
    """What every arm must leave behind; returns its settings."""
    settings = resolve(ARMS, given.arm, "arm")(given, folder)
    json.dumps(settings)
    rows = list(read_rows(folder / CURVE))
    assert [row["iteration"] for row in rows] == list(range(1, len(rows) + 1))
    assert rows[-1]["programs"] == given.rollouts * len(rows)
    assert rows[-1]["seconds"] >= given.seconds > (rows[-2]["seconds"] if len(rows) > 1 else 0)
    for row in rows:
        assert 0 < row["success_rate"] < 1
        assert min(row["sampling_s"], row["judging_s"], row["learning_s"]) > 0
    last = folder / CHECKPOINTS / str(given.n_checkpoints)
    assert json.loads((last / MARK).read_text()) == rows[-1]
    assert weights(last) != weights(Path(given.run) / "sft")
    return settings


@pytest.fixture
def lenient(monkeypatch):
    """A judge that passes sources of odd length: even an untrained policy's programs differ in their pay."""

    @contextmanager
    def make(name):
        yield ScriptedJudge(lambda task, source: judgement(task, len(task.tests) * (len(source) % 2)))

    def use(module):
        monkeypatch.setattr(f"{module}.make_judge", make)

    return use


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["ppo", "grpo", "rloo"])
def test_our_arms_train_for_their_seconds(arm, run, tmp_path, lenient):
    lenient("benchmarks.peer.ours")
    settings = check_arm(assignment(arm=arm, run=str(run), seconds=6.0, learning_rate=2e-3), tmp_path)
    assert settings["learning_rate"] == 2e-3
    assert settings["rollouts_per_iteration"] == 16
    assert settings["samples_per_task"] == (1 if arm == "ppo" else 8)


@pytest.mark.slow
def test_psgpo_trains_with_its_reward_model(run, tmp_path):
    given = assignment(arm="psgpo", run=str(run), seconds=6.0)
    settings = resolve(ARMS, "psgpo", "arm")(given, tmp_path)
    assert settings["critic_init"] == settings["dense"]["critic_init"] == "prm"
    last = tmp_path / CHECKPOINTS / "2"
    assert json.loads((last / MARK).read_text())["seconds"] >= 6
    assert weights(last) != weights(run / "sft")


@pytest.mark.trl
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("arm", PEERS)
def test_trl_s_arms_train_for_their_seconds(arm, run, tmp_path, lenient):
    lenient("benchmarks.peer.trl")
    settings = check_arm(assignment(arm=arm, run=str(run), seconds=6.0), tmp_path)
    assert (settings["generation_batch_size"], settings["num_generations"]) == (16, 8)
    assert settings["learning_rate"] == 7e-4


@pytest.mark.trl
def test_the_reward_function_judges_a_call_in_one_batch():
    from benchmarks.peer.trl import Verdicts

    texts = ["    return 2 * x\n", "    return x * x\n", "    return (\n"]
    asked = {
        "completions": texts,
        "completion_ids": [[1, 2], [3], [4, 5, 6]],
        "task_id": [DOUBLE.task_id] * 3,
    }
    total = len(DOUBLE.tests)
    judge = ScriptedJudge(lambda task, source: judgement(task, total if "2 * x" in source else total // 2))
    verdicts = Verdicts([DOUBLE], judge, "pass_fail")
    assert verdicts(**asked, prompts=[DOUBLE.prompt] * 3, trainer_state=None) == [1, 0, 0]
    assert judge.batches == [[(DOUBLE, DOUBLE.assemble(text)) for text in texts]]
    assert verdicts.last.pop("judging_s") > 0
    assert verdicts.last == {"programs": 3, "tokens": 6, "passed": 1}
    share = total // 2 / total
    assert Verdicts([DOUBLE], judge, "pass_rate")(**asked) == [1, share, share]


@pytest.mark.trl
@pytest.mark.timeout(900)  # seven processes, one after the other
def test_the_whole_comparison_runs_and_its_folder_is_done(run, tmp_path):
    out = tmp_path / "out"
    command = [
        sys.executable, "-m", "benchmarks.trl_peer", "--scale", "smoke", "--run", str(run), "--out", str(out),
        "--arms", "ppo", "trl_grpo", "--horizons", "1", "1", "--n-tasks", "32", "--seconds", "3",
        "--threads", "1",
    ]  # fmt: skip
    first = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    rows = (out / "rows.jsonl").read_bytes()
    assert {row["what"] for row in read_rows(out / "rows.jsonl")} == {"training", "arm", "held_out"}
    for arm in ("ppo", "trl_grpo"):
        assert (out / "arms" / f"{arm}-seed-0" / RESULT).exists()
        starts, *_ = [
            row for row in read_rows(out / "rows.jsonl") if row["what"] == "held_out" and row["arm"] == arm
        ]
        assert starts["checkpoint"] == 0
        assert len(starts["passes"]) == SCALES["smoke"].held_out
    assert (out / "report.md").read_text() in first
    again = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout
    assert "training for" in first
    assert "training for" not in again
    assert (out / "rows.jsonl").read_bytes() == rows
