import re
from dataclasses import asdict
from html.parser import HTMLParser

import pytest
from scipy.stats import norm

from agents.evaluation import EvaluationRow
from agents.report import write_report
from agents.report.page import build_tables
from agents.report.results import Bucket, Rate, read_results
from codegym.storage import append_rows, write_json

STAGES = ("sft", "baseline", "label", "prm", "psgpo", "evaluate")
HOSTILE = "</pre><script>alert('x')</script><img src=x onerror=alert(1)>"


def row(arm: str, index: int, horizon: int, passed: bool, decoding: str = "sampled") -> EvaluationRow:
    return EvaluationRow(
        arm=arm,
        decoding=decoding,
        task_id=f"t/{index}",
        horizon=horizon,
        completion=HOSTILE,
        finished=True,
        verdict="passed" if passed else "wrong_answer",
        tests_passed=int(passed),
        tests_total=1,
        lines=4,
        tokens=20,
    )


@pytest.fixture
def folder(tmp_path):
    write_json(
        tmp_path / "config.json",
        {
            "format": 1,
            "config": {"tasks": HOSTILE, "scale": "smoke", "seed": 0, "eval_horizons": [[2, 4], [9, 12]]},
        },
    )
    metrics = {
        "sft": {"tokens_per_s": 20000.0},
        "baseline": {"sampling_tokens_per_s": 9000.0, "verdicts_per_s": 210.0},
        "label": {
            "statistics": {"reference": {"programs": 10, "share_right": 0.25}},
            "agreement": {"line_agreement": 0.9, "programs": 4},
        },
        "prm": {
            "history": [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.5, "local_auc": 0.8, "auc": 0.9}],
            "validation": {
                "all": {"programs": 12, "local_auc": 0.91, "auc": 0.95, "first_error_accuracy": 0.6}
            },
        },
        "evaluate": {"versions": {"torch": "2.13.0"}},
    }
    for name, values in metrics.items():
        write_json(tmp_path / "stages" / f"{name}.json", {"stage": name, "seconds": 12.0, "metrics": values})
    rows = [row("sft", i, 2 + i % 3, i < 2) for i in range(8)] + [
        row("sft", 100 + i, 10, False) for i in range(4)
    ]
    rows += [row("psgpo", i, 2 + i % 3, True) for i in range(8)] + [
        row("psgpo", 100 + i, 10, i < 1) for i in range(4)
    ]
    append_rows(tmp_path / "rows.jsonl", map(asdict, rows))
    append_rows(
        tmp_path / "baseline" / "curve.jsonl",
        ({"iteration": i, "success_rate": i / 10, "reward": 0.1, "lines": 5, "kl": 0.2} for i in range(6)),
    )
    line = {"text": HOSTILE, "score": -0.5, "label": -1.0}
    write_json(
        tmp_path / "samples.json",
        [
            {
                "title": HOSTILE,
                "task_id": "t/0",
                "verdict": "wrong_answer",
                "prompt": [HOSTILE],
                "lines": [line],
            }
        ],
    )
    return tmp_path


def test_wilson_interval_by_hand():
    # centre (p + z²/2n) / (1 + z²/n), half-width z sqrt(p(1-p)/n + z²/4n²) / (1 + z²/n), at 3 of 10
    z, n, p = norm.ppf(0.975), 10, 0.3
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5 / (1 + z**2 / n)
    assert Rate(passed=3, total=10).interval == pytest.approx((centre - half, centre + half))
    assert str(Rate(passed=3, total=10)) == "0.300 [0.108, 0.603]"


def test_nothing_counted_says_nothing():
    assert Rate(passed=0, total=0).value == 0.0
    assert Rate(passed=0, total=0).interval == (0.0, 1.0)


def test_rates_per_bucket_are_counted_from_the_rows(folder):
    results = read_results(folder, STAGES)
    short, long = results.buckets
    assert results.arms == ["sft", "psgpo"]
    assert results.rate("sft", short, "sampled") == Rate(passed=2, total=8)
    assert results.rate("sft", long, "sampled") == Rate(passed=0, total=4)
    assert results.rate("psgpo", long, "sampled") == Rate(passed=1, total=4)
    assert results.rate("psgpo", long, "greedy") == Rate(passed=0, total=0)


def test_alarms_are_shown_per_policy_and_only_if_there_are_any(folder):
    def alarm_tables():
        tables = build_tables(read_results(folder, STAGES))
        return [table for table in tables if table.title.startswith("Alarms") and table.rows]

    assert alarm_tables() == []
    seen = {3: "early", 5: "later", 6: "last"}
    rows = [
        {"iteration": i, **({"alarms": {"length_drift": seen[i]}} if i in seen else {})} for i in range(9)
    ]
    append_rows(folder / "psgpo" / "curve.jsonl", rows)
    (table,) = alarm_tables()
    assert table.rows == [["PSGPO", "length_drift", "3-6", "3", "last"]]
    write_report(folder, STAGES)
    assert "length_drift" in (folder / "report.html").read_text()


def test_tasks_without_horizons_fall_in_one_bucket(folder):
    (folder / "rows.jsonl").unlink()
    append_rows(folder / "rows.jsonl", [asdict(row("sft", 0, None, True))])
    assert read_results(folder, STAGES).buckets == [Bucket(low=None, high=None)]


def test_every_measured_thing_has_its_table(folder):
    tables = {table.title: table for table in build_tables(read_results(folder, STAGES))}
    sampled = tables["pass@1 by horizon, sampled"]
    assert sampled.head == ["policy", "horizon 2-4", "horizon 9-12"]
    assert sampled.rows[0] == ["SFT", "0.250 [0.071, 0.591]", "0.000 [0.000, 0.490]"]
    assert tables["Process reward model on held-out tasks"].rows == [
        ["all", "12", "0.910", "0.950", "-", "0.600", "-", "-"]
    ]
    assert ["total", "60"] in tables["Wall seconds per stage"].rows
    assert ["baseline", "verdicts per second", "210"] in tables["Throughput and memory"].rows
    assert ["line agreement", "0.900"] in tables[
        "Binary search against exact labels, same failing programs"
    ].rows


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict]] = []

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))


def test_the_page_is_self_contained_and_hostile_text_stays_text(folder):
    page = write_report(folder, STAGES)
    tags = Tags()
    tags.feed(page.read_text())
    assert not [tag for tag, _ in tags.seen if tag in {"script", "link", "iframe", "object"}]
    sources = [attrs["src"] for tag, attrs in tags.seen if tag == "img"]
    assert sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert not [attrs for _, attrs in tags.seen if any(name.startswith("on") for name in attrs)]
    assert "&lt;script&gt;" in page.read_text()


def test_markdown_and_plots_are_written(folder):
    write_report(folder, STAGES)
    text = (folder / "report.md").read_text()
    plots = re.findall(r"\((plots/\w+\.svg)\)", text)
    assert len(plots) == 4
    assert all((folder / plot).read_text().lstrip().startswith("<?xml") for plot in plots)
    assert "| SFT | 0.250 [0.071, 0.591] | 0.000 [0.000, 0.490] |" in text
    assert "Not finished yet: psgpo." in text


def test_the_same_results_give_the_same_bytes(folder):
    first = write_report(folder, STAGES).read_bytes()
    assert write_report(folder, STAGES).read_bytes() == first


def test_a_run_that_has_just_begun_has_a_report(tmp_path):
    config = {"tasks": "stepwise", "scale": "smoke", "seed": 0, "eval_horizons": [[2, 4]]}
    write_json(tmp_path / "config.json", {"format": 1, "config": config})
    page = write_report(tmp_path, STAGES).read_text()
    assert "Not finished yet: sft, baseline, label, prm, psgpo, evaluate." in page
