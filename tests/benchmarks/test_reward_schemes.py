"""The comparison of reward schemes: an arm for every scheme and form, and the report's numbers by hand."""

import json

import numpy as np
import pytest

from agents.run_folder import open_run
from agents.stages import Context
from agents.stages.rl import _scheme
from benchmarks import reward_schemes
from benchmarks.ablation import cell_config
from benchmarks.reward_schemes import ARMS, SMOKE, arms_of, stages
from benchmarks.scheme_report import (
    by_rate,
    drift,
    line_figure,
    pass_table,
    rate_figure,
    shape,
    sign_table,
    write_report,
)
from codegym.episode import Episode
from codegym.rewards import REWARD_SCHEMES, is_ordered
from codegym.rewards.assignment import FORMS
from codegym.rewards.process import ProcessReward
from codegym.storage import read_rows
from codegym.table import resolve
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement
from prm.report.page import as_text

CONFIG = cell_config("smoke", "mixed", 0)


@pytest.fixture
def context(tmp_path):
    context = Context(open_run(tmp_path / "run", {}), CONFIG)
    context._judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    return context


# --- arms ---


def test_every_scheme_and_every_form_has_an_arm():
    schemes = {arm.scheme for arm in ARMS.values()}
    added = {part["name"] for arm in ARMS.values() for part in arm.scheme_options.get("schemes", ())}
    assert schemes | added == set(REWARD_SCHEMES)  # "pass_fail" is the baseline, and in every sum
    forms = {arm.scheme_options["form"] for arm in ARMS.values() if arm.scheme == "process"}
    assert forms == set(FORMS)
    units = {arm.scheme_options.get("unit", "line") for arm in ARMS.values() if arm.scheme == "process"}
    assert units == {"line", "statement"}


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_builds_its_scheme_from_json(name, context):
    arm = ARMS[name]
    assert arm.name == name
    assert json.loads(json.dumps(arm.scheme_options)) == arm.scheme_options
    scorer = ScriptedScorer(lambda episode: [1.0] * len(episode.lines))
    scheme = _scheme(context, arm, scorer)
    made = resolve(REWARD_SCHEMES, arm.scheme, "reward scheme")
    assert isinstance(scheme, made if isinstance(made, type) else ProcessReward)
    task = context.train_tasks[0]
    lines = tuple(task.reference.rstrip("\n").split("\n"))
    passing, failing = (
        Episode(task=task, lines=lines, terminated=True, judgement=judgement(task, n))
        for n in (len(task.tests), 0)
    )
    good, bad = (credit.sum() for credit in scheme.credit([passing, failing]))
    assert good > bad
    assert is_ordered(scheme), "a failing program may earn as much as a passing one: give the form a cap"


def test_only_forms_without_a_bound_get_one():
    for form, values in FORMS.items():
        low, high = values.total
        unbounded = values.cap is None and (np.isinf(low) or np.isinf(high))
        assert (form in reward_schemes.CAPPED) == unbounded, form


@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
def test_the_reward_model_is_there_before_an_arm_reads_it_and_the_test_comes_last(scale):
    names = list(stages(scale))
    assert names == ["baseline", "collect", "label", "prm", *arms_of(scale), "test"]
    assert set(SMOKE) <= set(ARMS)


# --- numbers ---


def test_what_programs_look_like_by_hand(cells):
    rows = [
        cells.row("a", "t0", 1, False, completion="x = 1\n# y\n\n", tokens=4, verdict="syntax_error"),
        cells.row("a", "t1", 1, True, completion="x = 1\n", tokens=6, finished=False),
    ]
    assert shape(rows) == {
        "lines": 2.0, "neutral": 1.0, "tokens": 5.0, "unfinished": 0.5, "syntax_errors": 0.5
    }  # fmt: skip
    assert shape([]) == {}


def test_halves_of_training_by_hand(tmp_path, cells):
    later = lambda i: float(i > 2)  # noqa: E731
    cells.write_curve(tmp_path / "0/a", {"success_rate": lambda i: 0.5, "score_on_failing": later}, n=4)
    cells.write_curve(tmp_path / "1/a", {"success_rate": later, "score_on_failing": later}, n=4)
    assert drift([tmp_path / "0", tmp_path / "1"], "a") == {
        "success_rate_rise": 0.5, "score_on_failing_rise": 1.0, "hacked": 1.0
    }  # fmt: skip


def test_a_seed_without_scores_does_not_shift_the_others(tmp_path, cells):
    later = lambda i: float(i > 2)  # noqa: E731
    cells.write_curve(tmp_path / "0/a", {"success_rate": lambda i: 0.0}, n=4)
    cells.write_curve(tmp_path / "1/a", {"success_rate": later, "score_on_failing": later}, n=4)
    found = drift([tmp_path / "0", tmp_path / "1"], "a")
    assert (found["success_rate_rise"], found["hacked"]) == (0.5, 0.0)


def test_one_iteration_has_no_halves(tmp_path, cells):
    cells.write_curve(tmp_path / "0/a", {"success_rate": lambda i: 0.5}, n=1)
    assert drift([tmp_path / "0", tmp_path / "absent"], "a") == {}


def passes(**values):
    return [
        {
            "measure": "pass", "arm": arm, "decoding": decoding, "horizons": horizons,
            "value": value, "low": value - 0.1, "high": value + 0.1,
        }
        for decoding in ("sampled", "greedy")
        for horizons in ("1-2", "1-4")
        for arm, value in values.items()
    ]  # fmt: skip


def test_the_best_arm_comes_first_and_missing_ones_are_left_out():
    rows = passes(low=0.2, high=0.6)
    arms = ["low", "high", "absent"]
    assert [row["arm"] for row in by_rate(rows, arms)] == ["high", "low"]
    table = pass_table(rows, arms)
    assert table.head == ["scheme", "sampled 1-2", "sampled 1-4", "greedy 1-2", "greedy 1-4",
                          "sampled gain over baseline"]  # fmt: skip
    assert table.rows[0] == ["high", *["0.600 [0.500, 0.700]"] * 4, "-"]
    signs = [{"arm": "low", "lines": 2.0}, {"arm": "high"}]
    assert "<svg" in rate_figure(rows, arms)
    assert "<svg" in line_figure(rows, signs, arms)
    assert sign_table(signs).rows[1] == ["high", *["-"] * 10]
    as_text(sign_table(signs))


def test_the_report(tmp_path, cells):
    arms = ["sft", "baseline", "process_mean"]
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        flags = {"sft": [0, 0], "baseline": [1, 0], "process_mean": [1, 1]}
        cells.write_flags(folder / "test.jsonl", flags, (1, 2))
        for arm in arms[1:]:
            columns = {"success_rate": lambda i: 0.1 * i, "reward": lambda i: 1.0, "seconds": lambda i: 2.0}
            cells.write_curve(folder / arm, columns)
    text = write_report(tmp_path, [tmp_path / "0", tmp_path / "1"], arms, CONFIG)
    assert "2 ways to pay the same agent, 2 seeds" in text
    rows = list(read_rows(tmp_path / "rows.jsonl"))
    (gain,) = [r for r in rows if r["measure"] == "difference" and r["decoding"] == "sampled"]
    assert (gain["arm"], gain["other"], gain["value"]) == ("process_mean", "baseline", 0.5)
    (sign,) = [r for r in rows if r["measure"] == "signs" and r["arm"] == "process_mean"]
    assert (sign["lines"], sign["neutral"]) == (2.0, 1.0)
    assert sign["success_rate_rise"] == pytest.approx(0.4)
    assert (tmp_path / "report.html").read_text().count("<img") == 4
