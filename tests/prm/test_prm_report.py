import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from prm.bootstrap import Estimate
from prm.evaluation import PRMMetrics, evaluate_prm
from prm.groupings import by_policy, by_position
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram
from prm.report import Evaluation, choose_samples, write_evaluation
from prm.report.evaluation import evaluation_tables
from prm.report.page import Table, as_text, heat_map, markdown_cell, number, score_color
from prm.reranking import Reranking

MakeModel = Callable[..., ProcessRewardModel]
Digits = Callable[[range], list[LabeledProgram]]

HOSTILE = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>|$\\frac{x\u202e"


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def metrics(**changes: object) -> PRMMetrics:
    values = {name: Estimate(value=0.5, low=0.25, high=0.75) for name in ESTIMATES}
    return PRMMetrics(
        **{
            "n_programs": 12,
            "n_lines": 1345,
            "right_lines": 0.25,
            "calibration": ((0.1, 0.0, 3.0), (0.9, 1.0, 1.0)),
            **values,
            **changes,
        }
    )


ESTIMATES = (
    *("local_auc", "auc", "line_accuracy", "first_error_accuracy", "all_right_accuracy"),
    *("brier", "ece", "gap"),
)


def reranking() -> Reranking:
    curve = {1: Estimate(value=0.2), 4: Estimate(value=0.4, low=0.3, high=0.5)}
    ways = ("random", "majority", "prm min", "oracle")
    closed = {1: Estimate(value=None), 4: Estimate(value=0.7, low=0.6, high=0.8)}
    return Reranking(
        n_tasks=10,
        n_programs=40,
        n_left_out=3,
        solved=dict.fromkeys(ways, curve),
        gap_closed=dict.fromkeys(ways[1:3], closed),
    )


def hostile_evaluation() -> Evaluation:
    groups = {
        HOSTILE: {HOSTILE: metrics(local_auc=Estimate(value=None)), "b": metrics(auc=Estimate(value=0.1))}
    }
    sample = {
        "title": HOSTILE,
        "task_id": HOSTILE,
        "verdict": "wrong_answer",
        "prompt": [HOSTILE],
        "lines": heat_map([HOSTILE, "b", "c"], [-0.5, 0.25, 0.0], [-1.0, 1.0, None]),
    }
    return Evaluation(
        model=HOSTILE,
        metrics=metrics(groups=groups),
        reranking=reranking(),
        hacks={HOSTILE: {"dilution": Estimate(value=0.125)}},
        samples=[sample],
        about={"labels": [HOSTILE]},
    )


def test_the_page_is_self_contained_and_hostile_text_stays_text(tmp_path) -> None:
    page = write_evaluation(tmp_path, hostile_evaluation())
    text = page.read_text()
    tags = Tags()
    tags.feed(text)
    assert not [tag for tag, _ in tags.seen if tag in {"script", "link", "iframe", "object"}]
    assert not [attrs for _, attrs in tags.seen if any(name.startswith("on") for name in attrs)]
    sources = [attrs["src"] or "" for tag, attrs in tags.seen if tag == "img"]
    assert len(sources) == 3
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert "&lt;script&gt;" in text
    # what could turn the text of a program around is spelled out
    assert "\u202e" not in text[text.index("-0.50 ✗") : text.index("+0.25 ✓")]


def test_wide_things_scroll_in_boxes_of_their_own(tmp_path) -> None:
    text = write_evaluation(tmp_path, hostile_evaluation()).read_text()
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in text
    assert text.count('<div class="scroll"><table>') == text.count("<table>") > 4
    assert ".scroll { overflow-x: auto; }" in text
    assert "overflow-wrap: anywhere" in text


def test_lines_are_coloured_by_their_scores_with_labels_beside_them(tmp_path) -> None:
    text = write_evaluation(tmp_path, hostile_evaluation()).read_text()
    assert f'<div style="background: {score_color(-0.5)}"><span class="score">-0.50 ✗</span>' in text
    assert f'<div style="background: {score_color(0.25)}"><span class="score">+0.25 ✓</span>b</div>' in text
    assert '<span class="score">+0.00 </span>c</div>' in text


def test_markdown_keeps_hostile_cells_in_their_cells(tmp_path) -> None:
    write_evaluation(tmp_path, hostile_evaluation())
    text = (tmp_path / "report.md").read_text()
    rows = [line for line in text.split("\n") if line.startswith("|") and "&lt;/pre" in line]
    assert rows
    for row in rows:
        assert "<" not in row
        assert "\u202e" not in row
    group = next(row for row in rows if "1,345" in row)
    head = next(line for line in text.split("\n") if line.startswith("|") and "| programs | lines |" in line)
    assert len(re.findall(r"(?<!\\)\|", group)) == len(re.findall(r"(?<!\\)\|", head))
    plots = re.findall(r"\((plots/\w+\.svg)\)", text)
    assert len(plots) == 3
    assert all((tmp_path / plot).read_text().lstrip().startswith("<?xml") for plot in plots)


def test_the_numbers_are_json(tmp_path) -> None:
    write_evaluation(tmp_path, hostile_evaluation())
    row = json.loads((tmp_path / "evaluation.json").read_text())
    assert row["metrics"]["auc"] == {"value": 0.5, "low": 0.25, "high": 0.75}
    assert row["reranking"]["solved"]["oracle"]["4"]["value"] == 0.4
    assert row["hacks"][HOSTILE]["dilution"]["value"] == 0.125
    assert row["metrics"]["groups"][HOSTILE]["b"]["auc"]["value"] == 0.1
    assert "samples" not in row


def test_every_measured_thing_has_its_table() -> None:
    tables = {table.title: table for table in evaluation_tables(hostile_evaluation())}
    assert ["local AUC", "0.500 [0.250, 0.750]"] in tables["Quality"].rows
    assert ["lines", "1,345"] in tables["Quality"].rows
    first, second = tables[f"By {HOSTILE}"].rows
    assert first[:4] == [HOSTILE, "12", "1,345", "-"]
    assert second[4] == "0.100"
    solved = tables["Best of n: share of tasks solved"]
    assert solved.head == ["choice", "of 1", "of 4"]
    assert solved.rows[0] == ["random", "0.200", "0.400 [0.300, 0.500]"]
    assert "10 tasks with 40 programs; 3 with fewer are left out." in solved.note
    closed = tables["Best of n: share of the gap between random choice and oracle that is closed"]
    assert closed.rows == [[way, "-", "0.700 [0.600, 0.800]"] for way in ("majority", "prm min")]
    assert tables["Hack probes: what they add to failing programs"].rows == [["dilution", "0.125"]]
    assert tables["Calibration"].rows == [["0.100", "0.000", "3"], ["0.900", "1.000", "1"]]


def test_what_was_not_measured_has_no_table(tmp_path) -> None:
    evaluation = Evaluation(model="m", metrics=metrics(calibration=()))
    assert [table.title for table in evaluation_tables(evaluation)] == ["Quality", "Calibration"]
    assert "Best of n" not in write_evaluation(tmp_path, evaluation).read_text()


def test_the_same_numbers_give_the_same_bytes(random_model: MakeModel, digits: Digits, tmp_path) -> None:
    def write(name: str) -> list[bytes]:
        model, labeled = random_model(), digits(range(20))
        groupings = {"policy": by_policy, "position": by_position}
        evaluation = Evaluation(
            model=model.identity,
            metrics=evaluate_prm(model, labeled, groupings=groupings, n_bootstrap=5),
            samples=choose_samples(model, labeled),
        )
        write_evaluation(tmp_path / name, evaluation)
        return [file.read_bytes() for file in sorted((tmp_path / name).rglob("*")) if file.is_file()]

    assert write("a") == write("b")


# --- samples ------------------------------------------------------------------------------------------------


class Scripted:
    """Scores of programs by id."""

    def __init__(self, model: ProcessRewardModel, scores: dict[str, list[float]]) -> None:
        self.tokenizer, self.scores = model.tokenizer, scores

    def score_programs(self, programs: list) -> list[np.ndarray]:
        return [np.array(self.scores[program.program_id]) for program in programs]


def test_samples_show_what_is_found_and_where_the_model_is_most_wrong(
    random_model: MakeModel, digits: Digits
) -> None:
    source = digits(range(1))[0]
    labels = {
        "right": (1.0, 1.0, 1.0),
        "doubted": (1.0, 1.0, 1.0),
        "found": (1.0, -1.0, -1.0),
        "fooled": (1.0, -1.0, -1.0),
        "dull": (1.0, -1.0, -1.0),
    }
    scores = {
        "right": [0.9, 0.8, 0.7],
        "doubted": [0.9, -0.9, -0.95],
        "found": [0.5, -0.5, -0.9],
        "fooled": [0.9, 0.9, 0.9],
        "dull": [-0.2, -0.2, -0.2],
    }
    labeled = [
        replace(source, program=replace(source.program, program_id=name), labels=marks)
        for name, marks in labels.items()
    ]
    samples = choose_samples(Scripted(random_model(), scores), labeled)
    shown = {sample["title"]: [line["score"] for line in sample["lines"]] for sample in samples}
    assert shown == {
        "No wrong line": scores["right"],
        "First wrong line found": scores["found"],
        "Highest score on a wrong line": scores["fooled"],
        "Lowest score on a right line": scores["doubted"],
    }
    assert samples[1]["prompt"] == random_model().tokenizer.decode(source.program.prompt_ids).split("\n")[:-1]
    assert [line["label"] for line in samples[1]["lines"]] == [1.0, -1.0, -1.0]


def test_a_program_is_shown_once_and_few_programs_are_enough(random_model: MakeModel, digits: Digits) -> None:
    (only,) = digits(range(1))
    assert len(choose_samples(random_model(), [only])) == 1
    assert choose_samples(random_model(), []) == []
    assert len(choose_samples(random_model(), digits(range(30)))) >= 3


# --- parts of pages -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "color"), [(1.0, "rgba(34, 160, 80, 0.50)"), (-1.0, "rgba(215, 60, 45, 0.50)")]
)
def test_colors_run_from_red_to_green(score: float, color: str) -> None:
    assert score_color(score) == color
    assert score_color(score / 2) != color


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "-"), (1234, "1,234"), (0.12345, "0.123"), ("0.5 [0, 1]", "0.5 [0, 1]"), (True, "True")],
)
def test_numbers_for_cells(value: object, text: str) -> None:
    assert number(value) == text


def test_markdown_cells_are_one_line_of_text() -> None:
    assert markdown_cell("a|b\n<i>\x1b[31m") == "a\\|b\\n&lt;i&gt;\\x1b[31m"


def test_tables_for_a_terminal_are_aligned_and_obeyed_by_nobody() -> None:
    table = Table(title="T", head=["name", "n"], rows=[["a\x1b[31m", "1"], ["b", "22"]])
    assert as_text(table) == "T\n  name       n\n  a\\x1b[31m  1\n  b          22\n"
