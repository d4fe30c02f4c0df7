"""How arms are paid: schemes by name, the run's settings of the process reward, temperatures of labels."""

from dataclasses import replace

import gymnasium as gym
import pytest

from agents.config import SCALES, DenseConfig, LabelConfig
from agents.monitor import LastScores
from agents.psgpo import PSGPO, PSGPOConfig
from agents.run_folder import open_run
from agents.stages import Context
from agents.stages.labels import by_completion
from agents.stages.rl import Arm, _scheme
from agents.training import LAST, train_to_folder
from codegym.episode import Episode
from codegym.rewards.graded import RLTF
from codegym.rewards.process import ProcessReward
from codegym.storage import append_rows, read_rows
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement

SCORER = ScriptedScorer(lambda episode: [1.0] * len(episode.lines))


@pytest.fixture
def context(tmp_path):
    context = Context(open_run(tmp_path / "run", {}), SCALES["smoke"])
    context._judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    return context


# --- schemes ---


def test_an_arm_that_nobody_scores_earns_the_verdict_or_what_its_scheme_says(context):
    assert _scheme(context, Arm(name="a"), None) is None
    scheme = _scheme(context, Arm(name="a", scheme="rltf"), None)
    assert type(scheme) is RLTF


def test_a_process_scheme_takes_its_options_from_the_arm_and_not_from_the_run(context):
    context.config = replace(context.config, dense=DenseConfig(form="mean", unit="statement"))
    arm = Arm(name="a", pays="prm", scheme="process", scheme_options={"form": "min"})
    scheme = _scheme(context, arm, SCORER)
    assert (scheme.form, scheme.unit) == ("min", "line")
    assert isinstance(scheme.scorer, LastScores)
    assert scheme.scorer.scorer is SCORER


def test_an_arm_without_a_scheme_is_paid_by_the_run_s_settings(context):
    dense = DenseConfig(form="mean", unit="statement", lambda_fail=0.5, lambda_pass=0.125)
    context.config = replace(context.config, dense=dense)
    for arm in (Arm(name="a", pays="prm"), Arm(name="a", pays="oracle")):
        scheme = _scheme(context, arm, SCORER)
        assert isinstance(scheme, ProcessReward)
        assert {name: getattr(scheme, name) for name in dense.reward_options} == {
            "form": "mean", "unit": "statement", "lambda_fail": 0.5, "lambda_pass": 0.125
        }  # fmt: skip
    assert dense.reward_options == {
        "form": "mean", "unit": "statement", "lambda_fail": 0.5, "lambda_pass": 0.125
    }  # fmt: skip


@pytest.mark.parametrize(("unit", "shares"), [("line", [0.125, 0.125]), ("statement", [0.0, 0.25])])
def test_the_unit_reaches_what_a_program_earns(context, toy, unit, shares):
    """A failing program of one statement on two lines, both scored 1, with the paper's form and weights."""
    context.config = replace(context.config, dense=DenseConfig(form="mean", unit=unit))
    scheme = _scheme(context, Arm(name="a", pays="prm"), SCORER)
    task = toy.tasks()[0]
    episode = Episode(
        task=replace(task, prompt="", prompt_is_code=False),
        lines=("x = (1,", "     2)"),
        terminated=True,
        judgement=judgement(task, 0),
    )
    (credit,) = scheme.credit([episode])
    assert credit[:2].tolist() == pytest.approx(shares)


def test_a_bad_unit_is_refused_with_the_settings():
    with pytest.raises(ValueError, match="paragraph"):
        DenseConfig(unit="paragraph")


# --- labels ---


class Completer:
    """Remembers at which temperatures it was asked."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer
        self.identity = "remembers"


@pytest.mark.parametrize("source", ["binary_search", "full_scan"])
def test_completions_have_the_temperature_of_the_settings(context, toy, source):
    context.config = replace(context.config, label=LabelConfig(k=2, temperature=0.5))
    labeler = by_completion(context, source, Completer(toy.tokenizer()))
    assert labeler.prober.temperature == 0.5
    assert by_completion_default(context, toy, source).prober.temperature == 1.0


def by_completion_default(context, toy, source):
    context.config = replace(context.config, label=LabelConfig())
    return by_completion(context, source, Completer(toy.tokenizer()))


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("inf"), float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match="temperature must be positive and finite"):
        LabelConfig(temperature=temperature)


# --- curves ---

CONFIG = PSGPOConfig(
    n_iterations=3, rollouts_per_iteration=8, max_new_tokens=4, warmup_iterations=1, critic_only_iterations=1
)


def train(folder, agent):
    train_to_folder(agent, folder, lambda *_: None)
    return list(read_rows(folder / "curve.jsonl"))


class KilledError(Exception):
    pass


def test_a_curve_lists_what_each_iteration_solved_and_a_resumed_one_lists_the_same(
    toy, tmp_path, monkeypatch
):
    """Every odd task of the toy language passes whatever is written, so that something is solved."""
    lucky = set(toy.letters[::2])
    judge = ScriptedJudge(lambda task, source: judgement(task, int(task.task_id in lucky)))

    def env():
        return gym.make("CodeGen-v0", tasks=toy.tasks(), judge=judge)

    rows = train(tmp_path / "straight", _agent(toy, env()))
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    for row in rows:
        assert row["solved"] == sorted(set(row["solved"]))
        assert set(row["solved"]) <= lucky
        assert row["seconds"] > 0
    assert any(row["solved"] for row in rows)

    agent = _agent(toy, env())
    monkeypatch.setattr(agent, "save", _save_twice(agent.save))
    with pytest.raises(KilledError):
        train_to_folder(agent, tmp_path / "killed", lambda *_: None)
    # killed between the row of the third iteration and its checkpoint: a row too many, and a torn one
    assert len(list(read_rows(tmp_path / "killed/curve.jsonl"))) == 3
    append_rows(tmp_path / "killed/curve.jsonl", [{"iteration": 9, "solved": ["never"]}])
    resumed = train(tmp_path / "killed", PSGPO.load(tmp_path / "killed" / LAST, env(), device="cpu"))
    kept = [(row["iteration"], row["solved"], row["success_rate"]) for row in resumed]
    assert kept == [(row["iteration"], row["solved"], row["success_rate"]) for row in rows]


def _agent(toy, env):
    return PSGPO(toy.model(), env, CONFIG, tokenizer=toy.tokenizer(), device="cpu")


def _save_twice(save):
    saved = []

    def wrapped(folder):
        if len(saved) == 2:
            raise KilledError
        saved.append(folder)
        save(folder)

    return wrapped
