import io
import logging

import pytest
from rich.console import Console

from agents import progress as module
from agents.progress import progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_log_gets_a_line_now_and_then_and_one_at_the_end(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress("sft", Console(file=io.StringIO())) as report:
        for step in range(1, 11):
            clock[0] += 4.0
            report(step, 10, {"loss": 1.0 / step})
    lines = [record.message for record in caplog.records]
    assert [line.split(",")[0] for line in lines] == ["sft: 4/10", "sft: 8/10", "sft: 10/10"]
    assert "loss 0.25" in lines[0]


def test_the_eta_counts_only_what_this_process_did(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress("rl", Console(file=io.StringIO())) as report:
        report(50, 100)  # resumed at 50
        clock[0] += 20.0
        report(60, 100)
    # 10 units in 20 s: the other 40 take 80 s
    assert "eta 80 s" in caplog.records[-1].message


def test_a_terminal_gets_a_bar_with_its_note():
    output = io.StringIO()
    console = Console(file=output, force_terminal=True, width=120)
    with progress("label", console) as report:
        report(3, 6, {"passes": 2})
    assert "label" in output.getvalue()
    assert "3/6" in output.getvalue()
    assert "passes 2" in output.getvalue()
