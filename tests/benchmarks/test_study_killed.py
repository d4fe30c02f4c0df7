"""A study as a user runs it: killed with -9 in the middle of its cells and started again."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from codegym.storage import read_rows

STUDY = '''
import time
from dataclasses import dataclass
from pathlib import Path
import tyro
from rich.console import Console
from agents.stages import Stage
from benchmarks.ablation import cell_config
from benchmarks.study.cells import StudyOptions, open_cell, run_cells, run_missing, train_start
from benchmarks.study.page import write_study
from codegym.storage import append_rows, read_rows

@dataclass(frozen=True, kw_only=True)
class Options(StudyOptions):
    out: Path = Path("out")

def work(context, report):
    """A number a moment; those that are there already are not written again."""
    path = context.path / "numbers.jsonl"
    for number in range(len(list(read_rows(path))), 20):
        append_rows(path, [{"value": number * (1 + context.config.seed)}])
        report(number + 1, 20)
        time.sleep(0.05)
    return {}

def total(context, report):
    append_rows(context.path / "total.jsonl", [{"cell": context.path.name,
        "value": sum(row["value"] for row in read_rows(context.path / "numbers.jsonl"))}])
    report(1, 1)
    return {}

options, cells = tyro.cli(Options), ["0", "1"]
train_start(options, Console(stderr=True))
if options.cell is not None:
    config = cell_config("smoke", "mixed", int(options.cell))
    with open_cell(options.out / options.cell, config, [{"sft": options.start_folder}]) as context:
        run_missing(context, {"numbers": Stage(work=work), "total": Stage(work=total)})
else:
    run_cells("scripted_study", options, cells, Console(stderr=True))
    rows = [row for cell in cells for row in read_rows(options.out / cell / "total.jsonl")]
    print(write_study(options.out, title="Scripted", summary=["Sums."], pictures=[], tables=[], rows=rows,
                      command="none", settings={}))
'''


@pytest.fixture
def begin(tmp_path):
    (tmp_path / "scripted_study.py").write_text(STUDY)
    (tmp_path / "policy").mkdir()
    paths = [str(tmp_path), str(Path(__file__).parents[2])]

    def start(out):
        return subprocess.Popen(
            [sys.executable, "-m", "scripted_study", "--out", str(out), "--start", str(tmp_path / "policy")],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    return start


def numbers(out):
    return [list(read_rows(out / cell / "numbers.jsonl")) for cell in "01"]


def finish(process):
    output, _ = process.communicate(timeout=250)
    assert process.returncode == 0, output
    return output


@pytest.mark.slow
@pytest.mark.timeout(600)  # six processes that import torch
def test_killed_in_its_cells_a_study_ends_like_one_that_was_not(begin, tmp_path):
    out = tmp_path / "out"
    process, deadline = begin(out), time.monotonic() + 200
    try:
        while not any(len(rows) >= 3 for rows in numbers(out)):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline, "no cell got there"
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    assert any(len(rows) < 20 for rows in numbers(out))
    assert not (out / "rows.jsonl").exists()
    assert "report:" in finish(begin(out))
    assert [[row["value"] for row in rows] for rows in numbers(out)] == [
        list(range(20)), list(range(0, 40, 2))
    ]  # fmt: skip
    assert [row["value"] for row in read_rows(out / "rows.jsonl")] == [190, 380]
