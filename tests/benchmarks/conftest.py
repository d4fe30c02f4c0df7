"""Evaluation rows, curves and markers as the studies' cells leave them, without training anything."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest

from agents.evaluation import EvaluationRow
from codegym.storage import append_rows

DECODINGS = ("sampled", "greedy")


def row(arm, task, horizon, passed, decoding="sampled", **changes):
    return EvaluationRow(
        **{
            "arm": arm, "decoding": decoding, "task_id": task, "horizon": horizon, "completion": "a\n# b\n",
            "finished": True, "verdict": "passed" if passed else "wrong_answer", "tests_passed": 0,
            "tests_total": 1, "lines": 2, "tokens": 5, **changes,
        }
    )  # fmt: skip


def write(path, rows):
    append_rows(path, (asdict(row) for row in rows))


def write_flags(path, flags, horizons, decodings=DECODINGS):
    """`flags`: by arm, whether each task t0, t1, ... was solved."""
    write(
        path,
        [
            row(arm, f"t{place}", horizons[place], flag, decoding)
            for arm, solved in flags.items()
            for place, flag in enumerate(solved)
            for decoding in decodings
        ],
    )


def write_curve(folder, columns, n=8):
    """`columns`: by name, a function of the iteration."""
    append_rows(
        folder / "curve.jsonl",
        ({"iteration": i, **{name: make(i) for name, make in columns.items()}} for i in range(1, n + 1)),
    )


@pytest.fixture
def cells():
    """What tests of the reports build on: functions that write what cells hold."""
    return SimpleNamespace(row=row, write=write, write_flags=write_flags, write_curve=write_curve)
