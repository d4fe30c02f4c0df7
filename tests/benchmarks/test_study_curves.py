"""Learning curves, tasks solved, seconds, figures and pages, on rows written by hand."""

import pytest

from agents.run_folder import RunFolder
from benchmarks.study.curves import (
    COLORS,
    color_of,
    error_bars,
    learning_curves,
    pass_figure,
    read_curves,
    seconds_of,
    solved_share,
)
from benchmarks.study.page import write_study
from codegym.storage import append_rows, read_rows
from prm.report.page import Picture, Table

NAN = float("nan")


def test_every_arm_has_looks_of_its_own():
    arms = [f"arm{n}" for n in range(3 * len(COLORS))]
    looks = color_of(arms)
    assert len({tuple(look.values()) for look in looks.values()}) == len(arms)
    assert looks["arm0"] == {"color": COLORS[0], "ls": "-"}
    assert looks[f"arm{len(COLORS)}"] == {"color": COLORS[0], "ls": "--"}


def test_a_task_solved_twice_counts_once(tmp_path):
    append_rows(tmp_path / "both/curve.jsonl", ({"solved": ids} for ids in (["a"], ["a", "b"], [])))
    assert solved_share(tmp_path, "both", 8) == 0.25
    assert solved_share(tmp_path, "absent", 8) is None
    append_rows(tmp_path / "old/curve.jsonl", [{"iteration": 1}])  # written before there was a list
    assert solved_share(tmp_path, "old", 8) is None


def test_the_ledger_is_the_mean_over_seeds_in_the_order_of_stages(tmp_path):
    for seed, seconds in enumerate((10.0, 20.0)):
        run = RunFolder(tmp_path / str(seed))
        run.finish("sft", seconds=1.0, metrics={})
        run.finish("baseline", seconds=seconds, metrics={})
        run.record_spent("prm", 99.0)
    assert list(seconds_of([tmp_path / "0", tmp_path / "1"]).items()) == [("sft", 1.0), ("baseline", 15.0)]
    assert seconds_of([tmp_path / "absent"]) == {}


def test_curves_of_unequal_seeds_and_missing_arms_are_drawn(tmp_path, cells):
    columns = {"success_rate": lambda i: 0.1 * i, "seconds": lambda i: 2.0}
    cells.write_curve(tmp_path / "0/both", columns, n=5)
    cells.write_curve(tmp_path / "1/both", columns, n=3)
    folders = [tmp_path / "0", tmp_path / "1"]
    assert [len(curve) for curve in read_curves(folders, "both")] == [5, 3]
    looks = color_of(["both", "absent"])
    drawn = learning_curves(folders, looks, 32, over="programs")
    assert "training programs" in drawn
    assert drawn == learning_curves(folders, looks, 32, over="programs")
    assert "seconds of training" in learning_curves(folders, looks, 32, over="seconds")
    assert "<svg" in learning_curves(folders, color_of(["absent"]), 32, over="programs")


def test_an_arm_keeps_its_colour_whichever_others_are_drawn(tmp_path, cells):
    cells.write_curve(tmp_path / "0/both", {"success_rate": lambda i: 0.1, "seconds": lambda i: 1.0}, n=3)
    looks = color_of(["sft", "baseline", "both"])
    drawn = learning_curves([tmp_path / "0"], looks, 32, over="programs")
    assert looks["both"]["color"] in drawn
    assert looks["both"]["color"] in pass_figure([rates("both", 0.5, 0.2, 0.6)], looks, "sampled")
    assert looks["baseline"]["color"] not in drawn


def rates(arm, value, low, high, decoding="sampled"):
    return {
        "measure": "pass", "arm": arm, "decoding": decoding, "horizons": "1-2",
        "value": value, "low": low, "high": high,
    }  # fmt: skip


def test_error_bars_are_distances():
    bars = error_bars([rates("a", 0.5, 0.2, 0.6), rates("b", 0.5, 0.5, 0.5)])
    assert bars.tolist() == [pytest.approx([0.3, 0.0]), pytest.approx([0.1, 0.0])]


def test_bars_of_missing_arms_and_undefined_intervals_are_left_out():
    rows = [rates("a", 0.5, 0.2, 0.6), rates("b", NAN, NAN, NAN)]
    figure = pass_figure(rows, color_of(["a", "b", "absent"]), "sampled")
    assert "<svg" in figure
    assert figure != pass_figure(rows, color_of(["a", "b"]), "sampled")


HOSTILE = '<script>alert("x")</script>|\x1b[31m'


def test_a_page_shows_hostile_text_as_text(tmp_path):
    text = write_study(
        tmp_path,
        title=HOSTILE,
        summary=[HOSTILE],
        pictures=[Picture(title=HOSTILE, name="one", svg="<svg/>")],
        tables=[
            Table(title="full", head=["arm", HOSTILE], rows=[["a", HOSTILE]], note=HOSTILE),
            Table(title="nothing in it", head=["arm"], rows=[]),
        ],
        rows=[{"arm": HOSTILE, "value": 0.5}],
        command="python -m benchmarks.ablation",
        settings={"tasks": HOSTILE},
    )
    page, markdown = ((tmp_path / name).read_text() for name in ("report.html", "report.md"))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") >= 6
    assert "\x1b" not in text
    assert "<script" not in markdown
    assert "\x1b" not in markdown
    assert "\\|" in markdown
    for shown in (page, markdown, text):
        assert "nothing in it" not in shown
    assert 'name="viewport"' in page
    assert page.count('<div class="scroll"><table>') == page.count("<table>") == 1  # wide tables scroll
    assert list(read_rows(tmp_path / "rows.jsonl")) == [{"arm": HOSTILE, "value": 0.5}]
    assert (tmp_path / "plots/one.svg").read_text() == "<svg/>"


def test_the_rows_of_the_last_report_are_replaced(tmp_path):
    page = {"title": "t", "summary": [], "pictures": [], "tables": [], "command": "c", "settings": {}}
    write_study(tmp_path, rows=[{"value": 1}, {"value": 2}], **page)
    write_study(tmp_path, rows=[{"value": 3}], **page)
    assert list(read_rows(tmp_path / "rows.jsonl")) == [{"value": 3}]
