import json
from dataclasses import asdict

import numpy as np
import pytest

from agents.evaluation import EvaluationRow
from agents.run_folder import RunFolder
from benchmarks import ablation
from benchmarks.ablation_report import (
    GREEDY,
    SAMPLED,
    choose_arm,
    measure,
    read_rates,
    seconds_of,
    write_report,
)
from codegym.storage import append_rows, read_rows, write_json

ARMS = ("sft", "baseline", "both", "oracle", "baseline_long")
BUCKETS = ((1, 2), (3, 4))


def row(arm, task, horizon, passed, decoding=SAMPLED):
    verdict = "passed" if passed else "wrong_answer"
    return asdict(
        EvaluationRow(
            arm=arm, decoding=decoding, task_id=task, horizon=horizon, completion="", finished=True,
            verdict=verdict, tests_passed=0, tests_total=1, lines=1, tokens=1,
        )
    )  # fmt: skip


def write_cell(out, regime, seed, passes, split="test", arms=ARMS):
    """`passes`: by arm, one flag per task; the first half of the tasks have horizon 2, the others 4."""
    rows = []
    for arm in arms:
        flags = passes.get(arm, [0, 0, 0, 0])
        for place, flag in enumerate(flags):
            for decoding in (SAMPLED, GREEDY):
                rows.append(row(arm, f"t{place}", 2 if place < len(flags) // 2 else 4, flag, decoding))
    append_rows(out / regime / str(seed) / f"{split}.jsonl", rows)


def find(rows, **wanted):
    (hit,) = [row for row in rows if wanted.items() <= row.items()]
    return hit


def test_rates_pair_seeds_and_tasks_in_any_order(tmp_path):
    append_rows(tmp_path / "sparse/0/test.jsonl", [row("sft", "a", 1, 1), row("sft", "b", 3, 0)])
    append_rows(tmp_path / "sparse/1/test.jsonl", [row("sft", "b", 3, 1), row("sft", "a", 1, 0)])
    rates, horizons = read_rates(tmp_path, "sparse", "test")
    assert rates["sft", SAMPLED].tolist() == [[1, 0], [0, 1]]
    assert horizons == [1, 3]


def test_a_seed_that_lacks_tasks_is_an_error(tmp_path):
    append_rows(tmp_path / "sparse/0/test.jsonl", [row("sft", "a", 1, 1), row("sft", "b", 3, 0)])
    append_rows(tmp_path / "sparse/1/test.jsonl", [row("sft", "a", 1, 1)])
    with pytest.raises(ValueError, match="sft was evaluated on 1 of 2 tasks"):
        read_rates(tmp_path, "sparse", "test")


def test_rates_differences_and_shares_by_hand():
    ones = np.ones((2, 4))
    rates = {
        (arm, decoding): ones * level
        for decoding in (SAMPLED, GREEDY)
        for arm, level in {
            "sft": 0.0,
            "baseline": 0.1,
            "both": 0.4,
            "oracle": 0.5,
            "baseline_long": 0.2,
        }.items()
    }
    rows = measure(rates, [1, 2, 3, 4], ARMS, "both", BUCKETS)
    long = {"decoding": SAMPLED, "horizons": "3-4"}
    assert find(rows, **long, measure="pass", arm="both")["seeds"] == pytest.approx([0.4, 0.4])
    gain = find(rows, **long, measure="difference", arm="both", other="baseline")
    assert (gain["value"], gain["low"], gain["high"]) == pytest.approx((0.3, 0.3, 0.3))
    assert find(rows, **long, measure="difference", other="baseline_long")["value"] == pytest.approx(0.2)
    assert find(rows, **long, measure="share of oracle's gain", arm="both")["value"] == pytest.approx(0.75)


def test_the_arm_is_chosen_once_and_on_validation_tasks(tmp_path):
    arms = ("dense", "value", "both")
    write_cell(tmp_path, "sparse", 0, {"dense": [1, 1, 0, 0], "both": [1, 0, 0, 0]}, "validation", arms)
    write_cell(tmp_path, "sparse", 0, {"value": [1, 1, 1, 1]}, "test", arms)
    assert choose_arm(tmp_path, arms) == "dense"
    assert json.loads((tmp_path / "choice.json").read_text())["validation"] == {
        "dense": 0.5, "value": 0.0, "both": 0.25
    }  # fmt: skip
    write_cell(tmp_path, "sparse", 1, {"both": [1, 1, 1, 1]}, "validation", arms)
    assert choose_arm(tmp_path, arms) == "dense"


def test_the_ledger_is_the_mean_over_seeds(tmp_path):
    for seed, seconds in enumerate((10.0, 20.0)):
        RunFolder(tmp_path / str(seed)).finish("baseline", seconds=seconds, metrics={})
    assert seconds_of([tmp_path / "0", tmp_path / "1"]) == {"baseline": 15.0}


def test_the_report_holds_every_arm_of_every_regime(tmp_path):
    cells = []
    for regime in ("sparse", "mixed"):
        for seed in (0, 1):
            write_cell(tmp_path, regime, seed, {"both": [1, 1, 1, 0], "oracle": [1, 1, 1, 1]})
            cell = tmp_path / regime / str(seed)
            RunFolder(cell).finish("baseline", seconds=3.0, metrics={})
            for arm in ("baseline", "both"):
                append_rows(cell / arm / "curve.jsonl", ({"success_rate": 0.1 * n} for n in range(5)))
            cells.append((regime, str(seed)))
    text = write_report(tmp_path, cells, {"sparse": ARMS, "mixed": ARMS}, "both", BUCKETS)
    assert "## sparse" in text
    assert "## mixed" in text
    assert "| both - baseline_long | 1.000 [1.000, 1.000] | 0.500" in text
    assert "| both | 1.000 [1.000, 1.000] | 0.500" in text  # its share of the oracle's gain
    assert (tmp_path / "sparse.svg").read_text().lstrip().startswith("<")
    rows = list(read_rows(tmp_path / "rows.jsonl"))
    assert {row["regime"] for row in rows} == {"sparse", "mixed"}
    assert write_report(tmp_path, cells, {"sparse": ARMS, "mixed": ARMS}, "both", BUCKETS) == text


@pytest.mark.parametrize("regime", ["sparse", "mixed"])
def test_every_arm_is_trained_before_it_is_read_and_no_test_task_before_the_choice(regime):
    early, late = (list(ablation.stages(regime, chosen=chosen)) for chosen in (False, True))
    assert "test" not in early
    assert late == [*early, "test"]
    for arm in ablation.ARMS_OF[regime]:
        assert arm == "sft" or arm in early
    assert early.index("prm") < early.index("both") < early.index("baseline_long") < early.index("validation")


def test_every_arm_but_its_own_setting_is_the_same():
    sparse, mixed = (ablation.cell_config("small", regime, 3) for regime in ("sparse", "mixed"))
    assert (sparse.rl_horizons, mixed.rl_horizons) == ((9, 12), (2, 12))
    assert sparse.seed == mixed.seed == sparse.prm.seed == 3
    assert sparse.rl == mixed.rl


class Cell:
    def __init__(self, run, config):
        self.run, self.config = run, config


def test_the_long_baseline_gets_the_seconds_that_everything_else_took(tmp_path):
    """Baseline 100 s; labels and PRM 10 + 20 + 30 s; the arm 140 s: 300 s are three times the baseline."""
    run = RunFolder(tmp_path)
    for name, seconds in {"baseline": 100, "collect": 10, "label": 20, "prm": 30, "both": 140}.items():
        run.finish(name, seconds=seconds, metrics={})
    config = ablation.cell_config("small", "sparse", 0)
    assert ablation.equal_iterations(Cell(run, config)) == 3 * config.rl.n_iterations


def test_a_cell_that_fails_is_named_with_the_end_of_its_log(tmp_path, monkeypatch):
    monkeypatch.setattr(
        ablation, "_run_process", lambda options, cell: "it broke" if cell == "sparse/1" else ""
    )
    options = ablation.Options(scale="smoke", out=tmp_path)
    with pytest.raises(RuntimeError, match=r"sparse/1.*\n.*it broke"):
        ablation.run_cells(options, ["sparse/0", "sparse/1"], ablation.Console(quiet=True))


def test_a_choice_that_was_written_is_read_back(tmp_path):
    write_json(tmp_path / "choice.json", {"chosen": "value", "validation": {}})
    assert choose_arm(tmp_path, ("dense", "both")) == "value"
