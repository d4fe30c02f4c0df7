"""The ablation: arms, the choice, equal seconds, and the report's numbers by hand."""

import json
from dataclasses import replace

import numpy as np
import pytest

from agents.run_folder import RunFolder
from benchmarks import ablation
from benchmarks.ablation_report import SHARE, choose_arm, measure, summarise, write_report
from codegym import UnknownNameError
from codegym.storage import read_rows, write_json

ARMS = ("sft", "baseline", "both", "oracle", "baseline_long")
BUCKETS = ((1, 2), (3, 4))
CELLS = ("sparse/0", "mixed/0", "sparse/1", "mixed/1")
HORIZONS = (2, 2, 4, 4)


def find(rows, **wanted):
    (hit,) = [row for row in rows if wanted.items() <= row.items()]
    return hit


def levels(**arms):
    return {
        (arm, decoding): np.full((2, 4), level)
        for decoding in ("sampled", "greedy")
        for arm, level in arms.items()
    }


def test_rates_differences_and_shares_by_hand():
    rates = levels(sft=0.0, baseline=0.1, both=0.4, oracle=0.5, baseline_long=0.2)
    horizons = {f"t{place}": place + 1 for place in range(4)}
    rows = measure(rates, horizons, ARMS, "both", BUCKETS)
    long = {"decoding": "sampled", "horizons": "3-4"}
    assert find(rows, **long, measure="pass", arm="both")["seeds"] == pytest.approx([0.4, 0.4])
    gain = find(rows, **long, measure="difference", arm="both", other="baseline")
    assert (gain["value"], gain["low"], gain["high"]) == pytest.approx((0.3, 0.3, 0.3))
    assert find(rows, **long, measure="difference", other="baseline_long")["value"] == pytest.approx(0.2)
    assert find(rows, **long, measure=SHARE, arm="both")["value"] == pytest.approx(0.75)
    assert find(rows, **long, measure=SHARE, arm="baseline_long")["value"] == pytest.approx(0.25)


def test_the_share_of_a_gain_that_there_is_not_is_undefined_and_without_an_oracle_there_is_none():
    horizons = {f"t{place}": 1 for place in range(4)}
    rows = measure(levels(baseline=0.5, both=0.6, oracle=0.5), horizons, ARMS, "both", [(1, 1)])
    assert np.isnan(find(rows, decoding="sampled", measure=SHARE)["value"])
    rows = measure(levels(baseline=0.5, both=0.6), horizons, ARMS, "both", [(1, 1)])
    assert {row["measure"] for row in rows} == {"pass", "difference"}


def validate(out, cell, cells, flags):
    cells.write_flags(out / cell / "validation.jsonl", flags, HORIZONS, ["sampled"])


def test_the_arm_is_chosen_once_and_on_validation_tasks(tmp_path, cells):
    arms, sparse = ("dense", "value", "both"), ["sparse/0"]
    validate(tmp_path, "sparse/0", cells, {"dense": [1, 1, 0, 0], "value": [0] * 4, "both": [1, 0, 0, 0]})
    cells.write_flags(tmp_path / "sparse/0/test.jsonl", {"value": [1] * 4}, HORIZONS)
    assert choose_arm(tmp_path, sparse, arms) == "dense"
    assert json.loads((tmp_path / "choice.json").read_text())["validation"] == {
        "dense": 0.5, "value": 0.0, "both": 0.25
    }  # fmt: skip
    validate(tmp_path, "sparse/1", cells, {arm: [arm == "both"] * 4 for arm in arms})
    assert choose_arm(tmp_path, [*sparse, "sparse/1"], arms) == "dense"
    (tmp_path / "choice.json").unlink()
    assert choose_arm(tmp_path, [*sparse, "sparse/1"], arms) == "both"  # 0.625 against 0.25


def test_nothing_is_chosen_before_every_cell_has_validated(tmp_path, cells):
    validate(tmp_path, "sparse/0", cells, {"dense": [1] * 4, "both": [0] * 4})
    with pytest.raises(ValueError, match=r"sparse/1/validation\.jsonl: dense .* on 0 of 4 tasks"):
        choose_arm(tmp_path, ["sparse/0", "sparse/1"], ("dense", "both"))
    validate(tmp_path, "sparse/1", cells, {"dense": [1] * 3, "both": [0] * 3})  # killed in the middle
    with pytest.raises(ValueError, match=r"dense .* on 3 of 4 tasks"):
        choose_arm(tmp_path, ["sparse/0", "sparse/1"], ("dense", "both"))
    assert not (tmp_path / "choice.json").exists()


def test_a_choice_that_was_written_is_read_back(tmp_path):
    write_json(tmp_path / "choice.json", {"chosen": "value", "validation": {}})
    assert choose_arm(tmp_path, ["sparse/0"], ("dense", "both")) == "value"


def test_the_report_holds_every_arm_of_every_regime(tmp_path, cells):
    for cell in CELLS:
        flags = dict.fromkeys(ARMS, [0] * 4) | {"both": [1, 1, 1, 0], "oracle": [1] * 4}
        cells.write_flags(tmp_path / cell / "test.jsonl", flags, HORIZONS)
        RunFolder(tmp_path / cell).finish("baseline", seconds=3.0, metrics={})
        columns = {"success_rate": lambda i: 0.1 * i, "seconds": lambda i: 1.0, "solved": lambda i: ["t0"]}
        for arm in ("baseline", "both"):
            cells.write_curve(tmp_path / cell / arm, columns)
    config = replace(ablation.cell_config("smoke", "sparse", 0), eval_horizons=BUCKETS, train_tasks=4)
    lengths = {"t0": 50, "t1": 60, "t2": 61, "t3": 200}
    told = (tmp_path, CELLS, {"sparse": ARMS, "mixed": ARMS}, "both", config, lengths)
    text = write_report(*told)
    page = (tmp_path / "report.md").read_text()
    for regime in ("sparse", "mixed"):
        assert f"## {regime}: pass@1 on held-out tasks, 2 seeds" in page
    assert "| both - baseline_long | 1.000 [1.000, 1.000] | 0.500 [0.000, 1.000]" in page
    assert "| both | 1.000 [1.000, 1.000] | 0.500" in page  # its share of the oracle's gain
    assert "| both | 1.000 | 1.000 | 0.000 | 0.250 |" in page  # by tokens; one of four tasks was solved
    assert "minus that of a baseline that trained as many seconds as both took" in text
    assert "95 % intervals over 2 seeds and the tasks (crossed bootstrap); so few seeds" in text
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"{regime}-{name}.svg"
        for regime in ("sparse", "mixed")
        for name in ("sampled", "greedy", "programs", "seconds")
    }
    rows = list(read_rows(tmp_path / "rows.jsonl"))
    assert {row["regime"] for row in rows} == {"sparse", "mixed"}
    assert write_report(*told) == text
    assert list(read_rows(tmp_path / "rows.jsonl")) == rows
    command = "python -m benchmarks.ablation --scale smoke"
    assert f"{command}\n" in page
    write_report(tmp_path, ["sparse/0"], *told[2:])
    assert f"{command} --regimes sparse\n" in (tmp_path / "report.md").read_text()


def test_a_regime_without_a_long_baseline_has_no_sentence():
    assert len(summarise([{"regime": "sparse", "measure": "pass"}], "both")) == 1


@pytest.mark.parametrize("regime", ["sparse", "mixed"])
def test_every_arm_is_trained_before_it_is_read_and_no_test_task_before_the_choice(regime):
    early, late = (list(ablation.stages(regime, chosen=chosen)) for chosen in (False, True))
    assert "test" not in early
    assert late == [*early, "test"]
    for arm in ablation.ARMS_OF[regime]:
        assert arm == "sft" or arm in early
    assert early.index("prm") < early.index("both") < early.index("baseline_long")
    assert ("validation" in early) == (regime == "sparse")


@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
def test_cells_differ_in_tasks_labelled_policies_and_seed_alone(scale):
    sparse, mixed = (ablation.cell_config(scale, regime, 3) for regime in ("sparse", "mixed"))
    assert sparse.rl_horizons != mixed.rl_horizons
    assert sparse.seed == mixed.seed == sparse.prm.seed == 3
    assert replace(sparse, rl_horizons=mixed.rl_horizons, label=mixed.label) == mixed
    assert ablation.cell_names(scale)[:3] == ["sparse/0", "mixed/0", "sparse/1"]


def test_all_seeds_are_tested_on_the_same_tasks_that_none_has_trained_on():
    configs = [ablation.cell_config("smoke", "mixed", seed) for seed in (0, 1)]
    first, second = ([task.task_id for task in ablation.test_tasks(config)] for config in configs)
    assert first == second
    assert len(set(first)) == len(first)
    trained = configs[1].load(split="train", limit=64, horizons=configs[1].rl_horizons)
    assert not set(first) & {task.task_id for task in trained}


def test_the_candidates_differ_in_what_they_take_from_the_reward_model():
    dense, value, both = (ablation.ARMS[name] for name in ablation.CANDIDATES)
    assert replace(both, name="dense", critic_init=None) == dense
    assert replace(both, name="value", pays=None, refresh=False) == value


class Cell:
    def __init__(self, run, config):
        self.run, self.config = run, config


@pytest.mark.parametrize(("regime", "times"), [("mixed", 3), ("sparse", 2)])
def test_the_long_baseline_gets_the_seconds_that_everything_else_took(regime, times, tmp_path):
    """Labels and PRM 60 s, the arm 140 s: two baselines of 100 s; a third where it had to be run."""
    run = RunFolder(tmp_path)
    for name, seconds in {"baseline": 100, "collect": 10, "label": 20, "prm": 30, "both": 140}.items():
        run.finish(name, seconds=seconds, metrics={})
    config = ablation.cell_config("small", regime, 0)
    assert ablation.equal_iterations(Cell(run, config)) == times * config.rl.n_iterations


def test_the_start_writes_as_many_programs_as_the_checkpoints():
    sparse, mixed = (ablation.cell_config("small", regime, 0).label for regime in ("sparse", "mixed"))
    assert (sparse.policies, mixed.policies) == ("start", "checkpoints")
    assert sparse.programs_per_task == mixed.programs_per_task * mixed.checkpoints


def test_a_study_of_one_regime_has_its_cells_alone(tmp_path):
    assert ablation.cell_names("smoke", ("sparse",)) == ["sparse/0", "sparse/1"]
    assert ablation.Options(regimes=("mixed", "sparse")).arguments()[-3:] == ["--regimes", "mixed", "sparse"]
    with pytest.raises(UnknownNameError, match="unknown regime 'dense'"):
        ablation.Options(regimes=("dense",))
    with pytest.raises(ValueError, match=r"regimes must include 'sparse', got \('mixed',\)"):
        ablation.Options(regimes=("mixed",))
