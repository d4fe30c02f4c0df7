"""The audit: violations, agreement and chances of mislabelling, by hand and by simulation."""

import json
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prm.audit import Interval, audit, mislabel_probability, searched, wilson
from prm.full_scan import FullScanLabeler
from prm.labeling import BinarySearchLabeler
from prm.program import LabeledProgram


@pytest.fixture(scope="session")
def scanned(scripted):
    """A scan with so many passes of 4 per line, neutral lines marked None."""

    def make(*passes, number=0, task_id="t"):
        lines = ["    # c" if count is None else "    x = 1" for count in passes]
        return LabeledProgram(
            program=scripted.program(lines, number=number, task_id=task_id),
            labels=tuple(0.0 if c is None else 1.0 if c else -1.0 for c in passes),
            source="full_scan",
            probes={m: (count, 4) for m, count in enumerate(passes, start=1) if count is not None},
            cost={"completions": 4 * sum(count is not None for count in passes)},
        )

    return make


def guessed(scan, labels, completions):
    return replace(
        scan,
        labels=tuple(map(float, labels)),
        source="binary_search",
        probes={},
        cost={"completions": completions},
    )


def test_by_hand(scanned):
    scans = [scanned(4, 1, 0, 0, number=1), scanned(2, 0, 3, None, 0, number=2), scanned(0, 0, number=3)]
    guesses = [
        guessed(scans[0], (1, 1, -1, -1), 12),
        guessed(scans[1], (1, 1, 1, 0, -1), 8),
        guessed(scans[2], (1, -1), 4),
    ]
    found = audit(scans, guesses, k=4)
    assert (found["programs"], found["prefixes"]) == (3, 10)
    assert found["violations"].value == pytest.approx(1 / 3)  # program 2: lost after line 2, not after line 3
    assert found["violating_prefixes"].value == pytest.approx(1 / 10)
    assert found["line_agreement"].value == pytest.approx(8 / 10)
    # of program 2 a search probes 2 (lost), then 1: it never sees line 3
    assert found["line_agreement_same_draws"].value == pytest.approx(9 / 10)
    assert found["same_first_error"].value == pytest.approx(1 / 3)
    assert found["completions_vs_full_scan"] == pytest.approx(24 / 40)
    # first passes: of 4 passes at once, of 1 in 4 the second pair is needed half of the time, ...
    stopping = (2 + 3 + 4 + 4) + (2 + 2 * 1 / 6 + 4 + 2 + 4) + (4 + 4)
    assert found["completions_vs_early_stop"] == pytest.approx(24 / stopping)
    assert found["mislabel_probability"] == pytest.approx((0 + 0.75**4 + 0.5**4 + 0.25**4) / 4)
    json.dumps(found)


def test_only_failing_programs_of_both_count(scanned):
    scan = scanned(4, 0)
    passing = replace(scan, program=replace(scan.program, verdict="passed"))
    from codegym import Verdict

    passing = replace(passing, program=replace(passing.program, verdict=Verdict.PASSED, program_id="q"))
    unprobed = replace(scanned(4, number=5), probes={})
    lonely = scanned(0, number=9)
    guesses = [guessed(item, item.labels, 4) for item in (scan, passing, unprobed, scanned(1, number=7))]
    assert audit([scan, passing, unprobed, lonely], guesses, k=4)["programs"] == 1


def test_nothing_in_common_has_no_numbers(scanned):
    found = audit([scanned(1)], [], k=4)
    assert (found["programs"], found["prefixes"]) == (0, 0)
    assert found["line_agreement"] == found["violations"] == Interval(None)
    assert found["completions_vs_full_scan"] is found["mislabel_probability"] is None
    assert str(found["violations"]) == "-"


def test_labels_of_different_number_are_an_error(scanned):
    with pytest.raises(ValueError, match="'p/t/0' has 1 labels by scan but 2 others"):
        audit([scanned(1)], [guessed(scanned(1, 1), (1, 1), 4)], k=4)


def test_wilson_by_the_book():
    # Wilson's interval of 8 in 10 at 95 %, as printed in textbooks
    found = wilson(8, 10)
    assert found == (0.8, pytest.approx(0.4902, abs=1e-4), pytest.approx(0.9433, abs=1e-4))
    assert str(found) == "0.800 [0.490, 0.943]"
    assert wilson(0, 5).low == 0
    assert wilson(5, 5).high == 1
    assert wilson(0, 0) == Interval(None)


def test_mislabel_probability_by_hand():
    assert mislabel_probability([(1, 2), (2, 2), (0, 2)], 3) == pytest.approx((0.125 + 0) / 2)
    assert mislabel_probability([(1, 20)], 20) == pytest.approx(0.95**20)
    assert mislabel_probability([(0, 8)], 8) is None
    assert mislabel_probability([], 8) is None


def test_intervals_are_of_tasks_not_lines(scanned):
    """Ten programs of one task agree or disagree together: the interval must be wide, and repeat."""
    scans = [scanned(4, 4, number=n, task_id=f"t{n // 10}") for n in range(20)]
    guesses = [guessed(item, (1, 1) if n < 10 else (-1, -1), 4) for n, item in enumerate(scans)]
    found = audit(scans, guesses, k=4)
    assert found["line_agreement"] == Interval(0.5, 0.0, 1.0)
    assert audit(scans, guesses, k=4) == found
    alone = [replace(s, program=replace(s.program, task_id=str(n))) for n, s in enumerate(scans)]
    narrow = audit(alone, guesses, k=4)["line_agreement"]
    assert 0.2 < narrow.low < 0.5 < narrow.high < 0.8


@given(st.lists(st.booleans(), max_size=40))
def test_a_search_among_answers_ends_between_a_found_and_a_lost_prefix(answers):
    found = np.array(answers, dtype=bool)
    low = int(searched(found).sum())
    assert searched(found).tolist() == [True] * low + [False] * (len(answers) - low)
    assert low == 0 or found[low - 1]
    assert low == len(answers) or not found[low]


@given(st.integers(0, 12), st.integers(0, 12))
def test_a_search_among_monotone_answers_finds_them(n_found, n_lost):
    found = np.array([True] * n_found + [False] * n_lost, dtype=bool)
    assert searched(found).tolist() == found.tolist()


def test_the_audit_of_scripted_labelers_adds_up(scripted):
    """Success falls by half with every line: search and scan differ, by as much as their draws do."""
    programs = [scripted.program(number=n, task_id=f"t{n}") for n in range(60)]
    tasks = {f"t{n}": replace(scripted.task, task_id=f"t{n}") for n in range(60)}

    def completer(seed):
        rng = random.Random(seed)
        return scripted.completer(
            lambda text, _: "WIN\n" if rng.random() < 0.5 ** (scripted.n_lines(text) + 1) else "lose\n"
        )

    parts = scripted.judge(), scripted.tokenizer
    scan = FullScanLabeler(completer(0), *parts, k=8).label(programs, tasks)
    search = BinarySearchLabeler(completer(1), *parts, k=8, draws_at_once=4).label(programs, tasks)
    found = audit(scan, search, k=8)
    assert (found["programs"], found["prefixes"]) == (60, 360)
    assert 0.6 < found["line_agreement"].value < found["line_agreement_same_draws"].value < 1
    assert 0 < found["violations"].value < 1
    assert found["completions_vs_full_scan"] == pytest.approx(
        sum(row.cost["completions"] for row in search) / (8 * 360)
    )
    assert found["completions_vs_full_scan"] < found["completions_vs_early_stop"] < 0.6
    assert 0 < found["mislabel_probability"] < 0.5
