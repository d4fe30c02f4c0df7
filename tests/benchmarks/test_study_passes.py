"""Pass rates over seeds and tasks, by hand."""

import numpy as np
import pytest

from benchmarks.study.passes import about_intervals, as_cell, by_length, in_buckets, pass_rows, read_rates


def test_rates_pair_seeds_and_tasks_in_any_order(tmp_path, cells):
    first, second = tmp_path / "0.jsonl", tmp_path / "1.jsonl"
    cells.write(first, [cells.row("sft", "a", 1, True), cells.row("sft", "b", 3, False)])
    cells.write(second, [cells.row("sft", "b", 3, True), cells.row("sft", "a", 1, False)])
    rates, horizons = read_rates([first, second])
    assert rates["sft", "sampled"].tolist() == [[1, 0], [0, 1]]
    assert horizons == {"a": 1, "b": 3}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_seed_that_lacks_tasks_is_an_error_wherever_it_stands(tmp_path, cells, order):
    files = [tmp_path / "whole.jsonl", tmp_path / "part.jsonl"]
    cells.write(files[0], [cells.row("sft", "a", 1, True), cells.row("sft", "b", 3, False)])
    cells.write(files[1], [cells.row("sft", "a", 1, True)])
    with pytest.raises(ValueError, match=r"part\.jsonl: sft \(sampled\) was evaluated on 1 of 2 tasks"):
        read_rates([files[place] for place in order])


def test_a_seed_that_lacks_an_arm_or_its_file_is_an_error(tmp_path, cells):
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    cells.write(whole, [cells.row("sft", "a", 1, True), cells.row("both", "a", 1, False)])
    cells.write(part, [cells.row("sft", "a", 1, True)])
    with pytest.raises(ValueError, match=r"part\.jsonl: both \(sampled\) was evaluated on 0 of 1 tasks"):
        read_rates([whole, part])
    with pytest.raises(ValueError, match=r"absent\.jsonl: sft .* on 0 of 1 tasks"):
        read_rates([part, tmp_path / "absent.jsonl"])
    assert read_rates([]) == ({}, {})


RATES = {
    ("one", "sampled"): np.array([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]),
    ("two", "sampled"): np.array([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]]),
}
HORIZONS = {"a": 1, "b": 2, "c": 3}


def test_passes_and_differences_by_hand():
    rows = pass_rows(RATES, HORIZONS, ["one", "two"], [("one", "two")], [(1, 1), (2, 3), (4, 9)])
    assert [(r["horizons"], r["measure"], r["arm"]) for r in rows] == [
        (steps, *what)
        for steps in ("1-1", "2-3")  # no task has 4-9 steps
        for what in (("pass", "one"), ("pass", "two"), ("difference", "one"))
    ]
    assert [r["value"] for r in rows] == [1.0, 0.0, 1.0, 0.25, 0.25, 0.0]
    assert rows[3]["seeds"] == [0.5, 0.0]
    assert (rows[2]["low"], rows[2]["high"]) == (1.0, 1.0)
    assert (rows[5]["low"], rows[5]["high"]) == (0.0, 0.0)  # what both arms share cancels


def test_arms_that_were_not_evaluated_are_left_out():
    rows = pass_rows(RATES, HORIZONS, ["one", "three"], [("one", "three")], [(1, 3)])
    assert [(row["measure"], row["arm"]) for row in rows] == [("pass", "one")]


def test_a_bucket_that_is_asked_for_twice_is_reported_once():
    assert [about for about, _ in in_buckets(RATES, HORIZONS, ["one"], [(1, 3), (1, 3)])] == [
        {"decoding": "sampled", "horizons": "1-3"},
        {"decoding": "greedy", "horizons": "1-3"},
    ]


def test_lengths_on_an_edge_belong_to_the_range_that_ends_there(tmp_path, cells):
    lengths = {"a": 60, "b": 61, "c": 90, "d": 91, "e": 500}
    path = tmp_path / "rows.jsonl"
    cells.write(path, [cells.row("sft", task, 1, task in "bde") for task in lengths])
    cells.write(path, [cells.row("sft", task, 1, True, "greedy") for task in lengths])
    rows = by_length([path], ["sft", "absent"], lengths, (60, 90))
    assert [(row["tokens"], row["value"], row["programs"]) for row in rows] == [
        ("up to 60", 0.0, 1),
        ("61-90", 0.5, 2),
        ("above 90", 1.0, 2),
    ]


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"value": 0.5, "low": 0.25, "high": 0.75}, "0.500 [0.250, 0.750]"),
        ({"value": 0.5, "low": float("nan"), "high": float("nan")}, "0.500"),
        ({"value": 0.5}, "0.500"),
        ({"value": float("nan"), "low": 0.0, "high": 0.0}, "-"),
        ({}, "-"),
    ],
)
def test_a_number_in_a_table(row, text):
    assert as_cell(row) == text


def test_intervals_over_few_seeds_say_so():
    assert "with one seed" in about_intervals(1)
    assert "so few seeds" in about_intervals(2)
    assert about_intervals(5) == "95 % intervals over 5 seeds and the tasks (crossed bootstrap)."
