"""The main job as a user runs it: in a process of its own that may be killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from agents.evaluation import read_evaluation
from agents.stages import STAGES
from codegym.storage import read_rows
from prm.labeling import read_labels

SETTINGS = [
    *("--scale", "smoke", "--seed", "3", "--threads", "1"),
    *("--sft-programs", "300", "--train-tasks", "24", "--eval-tasks", "8"),
    *("--rl.n-iterations", "4", "--rl.rollouts-per-iteration", "12", "--rl.max-new-tokens", "48"),
    *("--label.audited", "4", "--label.chunk", "4", "--label.k", "2"),
]


def start(out: Path, *more: str) -> subprocess.Popen:
    # a test run in the background ignores Ctrl-C, and its children would inherit that
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from agents.cli import entry; entry()"
    )
    command = [sys.executable, "-c", code, "psgpo", "--out", str(out)]
    return subprocess.Popen(
        [*command, *SETTINGS, *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(out: Path, *more: str) -> str:
    process = start(out, *more)
    output, _ = process.communicate(timeout=280)
    assert process.returncode == 0, output
    return output


def kill_when(process: subprocess.Popen, ready) -> None:
    """Kill -9 the whole session as soon as `ready()`."""
    deadline = time.monotonic() + 200
    while not ready():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline, "never got there"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(30)
    process.stdout.close()


def rows(path: Path) -> list[dict]:
    return list(read_rows(path))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    assert "report:" in finish(out)
    return out


@pytest.mark.slow
def test_the_main_job_runs_from_nothing_to_its_report(whole):
    assert {path.stem for path in (whole / "stages").iterdir()} == set(STAGES)
    evaluation = read_evaluation(whole / "rows.jsonl")
    counts = Counter((row.arm, row.decoding) for row in evaluation)
    assert counts == {
        (arm, decoding): 8
        for arm in ("sft", "baseline", "psgpo", "oracle")
        for decoding in ("sampled", "greedy")
    }
    assert len(rows(whole / "programs.jsonl")) == len(rows(whole / "labels.jsonl")) == 2 * 24
    for arm in ("baseline", "psgpo", "oracle"):
        assert [row["iteration"] for row in rows(whole / arm / "curve.jsonl")] == [1, 2, 3, 4]
    page = (whole / "report.html").read_text()
    assert "Not finished" not in page
    assert all(title in page for title in ("SFT", "RL baseline", "PSGPO", "Oracle-dense", "local AUC"))


@pytest.mark.slow
def test_a_finished_run_is_not_run_again(whole):
    before = {
        path: path.stat().st_mtime_ns for path in (whole / "stages").iterdir() if "report" not in path.name
    }
    began = time.monotonic()
    finish(whole)
    assert time.monotonic() - began < 60
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.slow
def test_killed_in_every_kind_of_stage_it_ends_like_an_uninterrupted_run(whole, tmp_path):
    out = tmp_path / "run"
    stops = {
        "sft": lambda: (out / "stages").exists() or (out / "config.json").exists(),
        "baseline": lambda: len(rows(out / "baseline" / "curve.jsonl")) >= 2,
        "collect": lambda: (out / "programs.jsonl").exists(),
        "label": lambda: (out / "labels.jsonl").exists(),
        "audit": lambda: (out / "audit.jsonl").exists(),
        "psgpo": lambda: len(rows(out / "psgpo" / "curve.jsonl")) >= 3,
        "evaluate": lambda: (out / "rows.jsonl").exists(),
    }
    for ready in stops.values():
        kill_when(start(out), ready)
    finish(out)
    assert (out / "rows.jsonl").read_bytes() == (whole / "rows.jsonl").read_bytes()
    assert (out / "programs.jsonl").read_bytes() == (whole / "programs.jsonl").read_bytes()
    for name in ("labels.jsonl", "audit.jsonl"):
        assert read_labels(out / name) == read_labels(whole / name)
    for place in ("sft", "baseline/policy", "prm", "psgpo/policy", "psgpo/prm", "oracle/policy"):
        names = sorted(path.name for path in (whole / place).glob("*.safetensors"))
        assert names
        for name in names:
            assert (out / place / name).read_bytes() == (whole / place / name).read_bytes(), (place, name)
    for arm in ("baseline", "psgpo", "oracle"):
        assert [row["iteration"] for row in rows(out / arm / "curve.jsonl")] == [1, 2, 3, 4]


@pytest.mark.slow
def test_labels_of_the_start_do_without_a_baseline(tmp_path):
    out = tmp_path / "run"
    finish(out, "--no-baseline", "--no-oracle", "--label.policies", "start")
    assert {row.arm for row in read_evaluation(out / "rows.jsonl")} == {"sft", "psgpo"}
    assert {row["policy"] for row in rows(out / "programs.jsonl")} == {"sft"}
    assert {item.program.policy for item in read_labels(out / "labels.jsonl")} == {"sft"}
    assert not (out / "baseline").exists()
    page = (out / "report.html").read_text()
    assert "Not finished" not in page
    assert "RL baseline" not in page


@pytest.mark.slow
def test_ctrl_c_ends_it_with_a_word_and_without_leftovers(tmp_path):
    out = tmp_path / "run"
    process = start(out)
    deadline = time.monotonic() + 200
    while not (out / "baseline" / "curve.jsonl").exists():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "the same command goes on" in output
    assert "Traceback" not in output
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)
    assert json.loads((out / "stages" / "sft.json").read_text())["stage"] == "sft"
