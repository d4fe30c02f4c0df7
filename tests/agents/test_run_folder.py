import json
import multiprocessing
import time
from pathlib import Path

import pytest

from agents.run_folder import RunFolder, RunFolderError, open_run

CONFIG = {"seed": 0, "rl": {"kl_coef": 0.01, "horizons": (9, 12)}}


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_new_folder_gets_its_config(tmp_path):
    run = open_run(tmp_path / "runs" / "a", CONFIG)
    stored = json.loads((run.path / "config.json").read_text())
    assert stored == {"format": 1, "config": {"seed": 0, "rl": {"kl_coef": 0.01, "horizons": [9, 12]}}}


def test_the_same_config_opens_the_folder_again_and_changes_nothing(tmp_path):
    open_run(tmp_path, CONFIG).finish("sft", seconds=1.5, metrics={"loss": 0.25})
    before = snapshot(tmp_path)
    run = open_run(tmp_path, CONFIG)
    assert snapshot(tmp_path) == before
    marker = run.finished("sft")
    assert marker is not None
    assert marker["seconds"] == 1.5
    assert marker["metrics"] == {"loss": 0.25}
    assert run.finished("baseline") is None


def test_other_settings_are_refused_naming_each_difference(tmp_path):
    open_run(tmp_path, CONFIG).finish("sft", seconds=1, metrics={})
    before = snapshot(tmp_path)
    with pytest.raises(RunFolderError) as error:
        open_run(tmp_path, {"seed": 1, "rl": {"kl_coef": 0.02, "horizons": (9, 12)}, "extra": True})
    message = str(error.value)
    assert "seed: the folder has 0, asked for 1" in message
    assert "rl.kl_coef: the folder has 0.01, asked for 0.02" in message
    assert "extra: the folder has None, asked for True" in message
    assert "horizons" not in message
    assert snapshot(tmp_path) == before


OTHER = {"seed": 1}


def test_a_run_that_failed_before_it_wrote_anything_leaves_the_folder_to_other_settings(tmp_path):
    with open_run(tmp_path, CONFIG).locked():
        pass
    open_run(tmp_path, OTHER)
    assert json.loads((tmp_path / "config.json").read_text()) == {"format": 1, "config": OTHER}
    open_run(tmp_path, OTHER).record_spent("sft", 1.0)
    with pytest.raises(RunFolderError, match="other settings"):
        open_run(tmp_path, CONFIG)


@pytest.mark.parametrize("name", ["stages/sft.json", "stages/sft.attempt.json", "labels.jsonl", "sft/x"])
def test_whatever_a_run_wrote_keeps_its_settings(tmp_path, name):
    open_run(tmp_path, CONFIG)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("{}")
    with pytest.raises(RunFolderError, match="other settings"):
        open_run(tmp_path, OTHER)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == CONFIG["seed"]


def test_a_run_that_has_just_started_keeps_its_settings(tmp_path):
    with open_run(tmp_path, CONFIG).locked(), pytest.raises(RunFolderError, match="another process"):
        open_run(tmp_path, OTHER)
    assert json.loads((tmp_path / "config.json").read_text())["config"]["seed"] == CONFIG["seed"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{ not json", "is damaged"),
        ("[1, 2]", "expected a JSON object, got list"),
        ('{"format": 99, "config": {}}', "got format 99"),
        ('{"format": 1, "config": 3}', "expected a run of format 1"),
    ],
)
def test_a_damaged_config_is_refused_and_kept(tmp_path, content, reason):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunFolderError, match=reason):
        open_run(tmp_path, CONFIG)
    assert (tmp_path / "config.json").read_text() == content


def test_a_foreign_folder_is_refused_and_kept(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunFolderError, match=r"no config\.json: not a run folder"):
        open_run(tmp_path, CONFIG)
    assert snapshot(tmp_path) == {"thesis.tex": b"years of work"}


def test_a_file_is_not_a_folder(tmp_path):
    (tmp_path / "out").write_text("x")
    with pytest.raises(RunFolderError, match="is a file"):
        open_run(tmp_path / "out", CONFIG)


def test_a_damaged_marker_is_reported(tmp_path):
    run = open_run(tmp_path, CONFIG)
    run.finish("sft", seconds=1, metrics={})
    (tmp_path / "stages" / "sft.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"sft\.json is damaged"):
        run.finished("sft")


def hold(path: Path, ready) -> None:
    with RunFolder(path).locked():
        ready.set()
        time.sleep(60)


def test_two_processes_cannot_work_in_one_folder(tmp_path):
    run = open_run(tmp_path, CONFIG)
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    other = context.Process(target=hold, args=(tmp_path, ready))
    other.start()
    try:
        assert ready.wait(30)
        with pytest.raises(RunFolderError, match="another process"), run.locked():
            pass
        other.kill()
        other.join(30)
        with run.locked():  # the lock of a killed process is gone
            pass
    finally:
        other.kill()
        other.join(30)


def test_seconds_of_interrupted_attempts_are_kept_until_the_stage_finishes(tmp_path):
    run = open_run(tmp_path, CONFIG)
    assert run.spent("sft") == 0.0
    run.record_spent("sft", 12.25)
    assert open_run(tmp_path, CONFIG).spent("sft") == 12.25
    assert run.finished("sft") is None
    run.finish("sft", seconds=20, metrics={})
    assert run.spent("sft") == 0.0
