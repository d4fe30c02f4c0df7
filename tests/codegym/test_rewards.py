"""Reward schemes and the wrapper: hand-computed numbers, and invariants for any program and any scorer."""

import sys
import types
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import (
    END_OF_PROGRAM,
    CodeGenEnv,
    Episode,
    RewardWrapper,
    Task,
    TaskError,
    UnknownNameError,
    make_scheme,
)
from codegym.rewards.outcome import PassFail, outcome
from codegym.rewards.process import ProcessReward
from codegym.task import CallTest
from codegym.testing import DOUBLE, ScriptedJudge, ScriptedScorer, judgement

# Four lines of reference, two of them blank or comment: T0 = 2.
TASK = Task(
    task_id="two",
    prompt="def f(x):\n",
    entry_point="f",
    tests=(CallTest(args=(1,), expected=2),),
    reference="    # add\n    y = x + 1\n\n    return y\n",
)
LINES = ("    # plan", "    a = 1", "    b = 2", "", "    return b")
SCORES = [0.9, 1.0, 0.5, -0.7, -3.0]


def episode(lines=LINES, *, passed, terminated=True, task=TASK):
    return Episode(
        task=task,
        lines=tuple(lines),
        terminated=terminated,
        truncated=not terminated,
        judgement=judgement(task, len(task.tests) if passed else 0),
    )


def scheme(scores=SCORES, **options):
    return ProcessReward.from_scorer(ScriptedScorer(lambda e: scores[: len(e.lines)]), **options)


# ---------------------------------------------------------------- outcome


def test_pass_fail_pays_on_the_last_action_only():
    passed, failed, cut = PassFail().credit(
        [episode(passed=True), episode(passed=False), episode(("x",), passed=True, terminated=False)]
    )
    assert passed.tolist() == [0, 0, 0, 0, 0, 1]
    assert failed.tolist() == [0] * 6
    assert cut.tolist() == [1]
    assert PassFail().step([Episode(task=TASK, lines=("x",))] * 3).tolist() == [0, 0, 0]


def test_an_empty_cut_program_has_no_action_to_pay():
    assert PassFail().credit([episode((), passed=False, terminated=False)])[0].shape == (0,)


@pytest.mark.parametrize("unfinished", [Episode(task=TASK), Episode(task=TASK, terminated=True)])
def test_an_episode_without_a_judgement_has_no_outcome(unfinished):
    with pytest.raises(ValueError, match="'two' has not ended with a judgement"):
        outcome(unfinished)
    with pytest.raises(ValueError, match="'two'"):
        scheme().credit([unfinished])


# ---------------------------------------------------------------- process: the numbers by hand


def test_mean_form_is_the_papers_equation():
    # T = 5; clipped scores 0, 1, .5, 0, -1 (comment and blank are 0); sum .5
    failed, passed = scheme(form="mean").credit([episode(passed=False), episode(passed=True)])
    assert failed == pytest.approx([0, 0.25 / 5, 0.125 / 5, 0, -0.25 / 5, 0])
    assert failed.sum() == pytest.approx(0.25 / 5 * 0.5)
    assert passed == pytest.approx([0, 0.025 / 5, 0.0125 / 5, 0, -0.025 / 5, 1])


def test_progress_form_pays_shares_of_the_reference_up_to_the_cap():
    # T0 = 2; (s + 1) / 2 / T0: 0, .5, .375, 0, 0 -> P = 0, .5, .875, .875, .875
    failed, passed = scheme().credit([episode(passed=False), episode(passed=True)])
    assert failed == pytest.approx([0, 0.5, 0.375, 0, 0, 0])
    assert passed == pytest.approx([0, 0.05, 0.0375, 0, 0, 1])


def test_progress_form_stops_paying_at_the_cap():
    lines = ["    a = 1"] * 4
    failed, passed = scheme([1.0] * 4).credit([episode(lines, passed=False), episode(lines, passed=True)])
    assert failed == pytest.approx([0.5, 0.45, 0, 0, 0])
    assert passed == pytest.approx([0.05, 0.045, 0, 0, 1])
    assert scheme([1.0] * 4, cap=0.25).credit([episode(lines, passed=False)])[0].sum() == pytest.approx(0.25)


def test_options_replace_the_defaults():
    options = {"lambda_fail": 0.5, "lambda_pass": 0.0, "n_lines": 10}
    failed, passed = scheme(**options).credit([episode(passed=False), episode(passed=True)])
    assert failed == pytest.approx([0, 0.05, 0.0375, 0, 0, 0])
    assert passed == pytest.approx([0, 0, 0, 0, 0, 1])
    mean = scheme(form="mean", lambda_fail=0.1).credit([episode(passed=False)])[0]
    assert mean == pytest.approx([0, 0.02, 0.01, 0, -0.02, 0])


def test_a_cut_programs_last_line_earns_its_share_and_the_outcome():
    cut = scheme().credit([episode(LINES[:2], passed=True, terminated=False)])[0]
    assert cut == pytest.approx([0, 1.05])


def test_streaming_pays_each_line_as_if_the_program_fails():
    prefixes = [Episode(task=TASK, lines=LINES[:n]) for n in range(6)]
    assert scheme().step(prefixes) == pytest.approx([0, 0, 0.5, 0.375, 0, 0])
    # mean form: the reference's T0 = 2 stands in for the unknown T
    assert scheme(form="mean").step(prefixes) == pytest.approx([0, 0, 0.125, 0.0625, 0, -0.125])


def test_ending_early_pays_in_the_mean_form_but_not_in_progress():
    scores = [1.0, 1.0, -1.0, -1.0, -1.0, -1.0]
    lines = [f"    v{i} = {i}" for i in range(6)]
    early, late = episode(lines[:2], passed=False), episode(lines, passed=False)
    mean = [credit.sum() for credit in scheme(scores, form="mean").credit([early, late])]
    progress = [credit.sum() for credit in scheme(scores, n_lines=6).credit([early, late])]
    assert mean == pytest.approx([0.25, -0.25 / 3])
    assert progress == pytest.approx([1 / 3, 1 / 3])


@pytest.mark.parametrize("form", ["progress", "mean"])
def test_comment_and_blank_lines_add_nothing_in_either_form(form):
    plain, padded = LINES[1:3], ("# a", LINES[1], "", "  # b", LINES[2], "   ")
    spam = ProcessReward.from_scorer(ScriptedScorer(lambda e: [1.0] * len(e.lines)), form=form, n_lines=4)
    first, second = spam.credit([episode(plain, passed=False), episode(padded, passed=False)])
    assert second.sum() <= first.sum() + 1e-12
    assert [second[i] for i in (0, 2, 3, 5)] == [0, 0, 0, 0]


# ---------------------------------------------------------------- process: construction and contracts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "median"}, "unknown form of process reward 'median'.*choose from clip, delta, mean"),
        ({"cap": 0.0}, "cap must be in"),
        ({"cap": 1.5}, "cap must be in"),
        ({"n_lines": 0}, "n_lines must be at least 1, got 0"),
        ({"lambda_fail": -0.1}, "lambda_fail must be finite and >= 0, got -0.1"),
        ({"lambda_pass": float("nan")}, "lambda_pass must be finite and >= 0, got nan"),
        ({"lambda_pass": float("inf")}, "lambda_pass must be finite"),
        ({"lambda_fail": 1.0, "cap": 1.0}, "failing program could earn 1 and a passing one only 1"),
        ({"form": "mean", "lambda_fail": 0.8, "lambda_pass": 0.2}, "failing program could earn 0.8"),
        ({"prm": "runs/prm"}, "exactly one of prm= "),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        scheme(**options)


def test_a_scorer_or_a_path_is_needed():
    with pytest.raises(ValueError, match=r"exactly one of prm= .* and scorer="):
        make_scheme("process")
    with pytest.raises(TypeError, match="lambda_fial"):
        make_scheme("process", prm="x", lambda_fial=1)


def test_t0_needs_a_reference_or_a_number():
    bare = Task(task_id="bare", prompt="", entry_point="f", tests=TASK.tests, reference="\n# nothing\n")
    with pytest.raises(TaskError, match="'bare' has no reference to count lines of; give n_lines="):
        scheme().credit([episode(passed=False, task=bare)])
    assert scheme(n_lines=5).credit([episode(passed=False, task=bare)])[0].sum() == pytest.approx(0.35)
    assert scheme(form="mean").credit([episode(passed=False, task=bare)])[0].sum() == pytest.approx(0.025)


@pytest.mark.parametrize(
    "scores", [[1.0], [[1.0]] * 5, [0, 0, float("nan"), 0, 0], [0, 0, 0, 0, float("inf")]]
)
def test_a_scorer_that_breaks_its_contract_is_named(scores):
    with pytest.raises(ValueError, match="must return 5 finite scores for the program of task 'two'"):
        ProcessReward.from_scorer(ScriptedScorer(lambda e: scores)).credit([episode(passed=False)])


def test_a_scorer_that_loses_an_episode_is_named():
    class Short:
        def score(self, episodes):
            return [np.zeros(5)] * (len(episodes) - 1)

    with pytest.raises(ValueError, match="1 results for 2 episodes"):
        ProcessReward.from_scorer(Short()).credit([episode(passed=False)] * 2)


def test_one_batch_of_programs_is_one_call_of_the_scorer():
    calls = []

    class Counting:
        def score(self, episodes):
            calls.append(len(episodes))
            return [np.zeros(len(e.lines)) for e in episodes]

    counted = ProcessReward.from_scorer(Counting())
    counted.credit([episode(passed=False)] * 7)
    counted.step([Episode(task=TASK, lines=LINES[:2])] * 3)
    assert counted.credit([]) == []
    assert calls == [7, 3]


def test_a_path_is_loaded_once_and_only_when_needed(monkeypatch):
    loaded = []

    class Model:
        @classmethod
        def from_pretrained(cls, path):
            loaded.append(path)
            return ScriptedScorer(lambda e: SCORES[: len(e.lines)])

    monkeypatch.setitem(sys.modules, "prm.model", types.SimpleNamespace(ProcessRewardModel=Model))
    process = make_scheme("process", prm="runs/prm")
    assert loaded == []
    for _ in range(2):
        assert process.credit([episode(passed=False)])[0] == pytest.approx([0, 0.5, 0.375, 0, 0, 0])
    assert loaded == ["runs/prm"]


# ---------------------------------------------------------------- invariants

LINE = st.sampled_from(["    a = 1", "    return a", "# c", "", "   # d", "b = '''", "\ud800"])
SCORE = st.floats(-100, 100)
PROGRAM = st.lists(st.tuples(LINE, SCORE), max_size=12)


def schemes(scores):
    scorer = ScriptedScorer(lambda e: scores[: len(e.lines)])
    return [
        PassFail(),
        ProcessReward.from_scorer(scorer),
        ProcessReward.from_scorer(scorer, n_lines=3, cap=0.5, lambda_fail=1.9, lambda_pass=3.0),
        ProcessReward.from_scorer(scorer, form="mean"),
        ProcessReward.from_scorer(scorer, form="mean", lambda_fail=0.6, lambda_pass=0.39),
    ]


@settings(max_examples=150)
@given(PROGRAM, PROGRAM)
def test_no_failing_program_outscores_a_passing_one(failing, passing):
    for index in range(len(schemes([]))):
        best, worst = (
            schemes([score for _, score in program])[index]
            .credit([episode([line for line, _ in program], passed=passed)])[0]
            .sum()
            for program, passed in ((failing, False), (passing, True))
        )
        assert best < worst


@settings(max_examples=100)
@given(PROGRAM.filter(bool), st.booleans(), st.booleans())
def test_streaming_and_hindsight_agree_on_the_return(program, passed, terminated):
    lines, scores = [line for line, _ in program], [score for _, score in program]
    judge = ScriptedJudge(lambda task, source: judgement(task, int(passed)))
    for candidate in schemes(scores):
        env = RewardWrapper(CodeGenEnv([TASK], judge, max_lines=len(lines) + int(terminated)), candidate)
        env.reset()
        results = [env.step(line) for line in lines]
        if terminated:
            results.append(env.step(END_OF_PROGRAM))
        *_, last = results
        credit = last[4]["action_rewards"]
        rewards = [reward for _, reward, *_ in results]
        assert len(rewards) == len(credit)
        assert sum(rewards) == pytest.approx(sum(credit), abs=1e-9)
        direct = candidate.credit([episode(lines, passed=passed, terminated=terminated)])[0]
        assert credit == tuple(direct.tolist())
        parts = last[4]["reward_parts"]
        assert parts["outcome"] == float(passed)
        assert sum(parts.values()) == pytest.approx(sum(credit), abs=1e-9)


@settings(max_examples=50)
@given(PROGRAM, st.booleans())
def test_credit_is_pure_and_independent_of_the_batch(program, passed):
    one = episode([line for line, _ in program], passed=passed)
    other = episode(LINES, passed=True)
    for candidate in schemes([score for _, score in program] + [0.0] * 20):
        batch = candidate.credit([other, one, other])
        assert batch[1].tolist() == candidate.credit([one])[0].tolist()


# ---------------------------------------------------------------- the wrapper


def make(judge=None, **options):
    judge = judge or ScriptedJudge(lambda task, source: judgement(task, int("return a" in source)))
    return gym.make("CodeGen-v0", tasks=[TASK], judge=judge, **options)


def test_lines_are_paid_as_they_are_written_and_the_last_action_settles():
    env = RewardWrapper(make(), scheme())
    env.reset()
    streamed = [env.step(line)[1] for line in LINES]
    assert streamed == pytest.approx([0, 0.5, 0.375, 0, 0])
    _, reward, _, _, info = env.step(END_OF_PROGRAM)
    assert reward == pytest.approx(0)
    assert info["action_rewards"] == pytest.approx((0, 0.5, 0.375, 0, 0, 0))
    assert info["reward_parts"] == pytest.approx({"outcome": 0.0, "process": 0.875})
    assert info["verdict"] == "wrong_answer"


def test_a_pass_takes_back_what_failure_would_have_paid():
    env = RewardWrapper(make(), scheme([1.0] * 2))
    env.reset()
    streamed = [env.step(line)[1] for line in ("    a = 2", "    return a")]
    _, reward, *_, info = env.step(END_OF_PROGRAM)
    assert streamed == pytest.approx([0.5, 0.45])
    assert reward == pytest.approx(1 + 0.095 - 0.95)
    assert info["reward_parts"] == pytest.approx({"outcome": 1.0, "process": 0.095})


def test_reset_forgets_what_was_paid():
    env = RewardWrapper(make(), scheme())
    env.reset()
    env.step(LINES[1])
    env.reset()
    assert env.step(END_OF_PROGRAM)[1] == 0


def test_a_bad_action_does_not_change_what_was_paid():
    env = RewardWrapper(make(), scheme([1.0] * 9))
    env.reset()
    paid = [env.step("    a = 1")[1]]
    with pytest.raises(ValueError, match="one line"):
        env.step("a\nb")
    paid += [env.step("    a = 2")[1], env.step(END_OF_PROGRAM)[1]]
    assert sum(paid) == pytest.approx(0.95)


def test_pass_fail_by_name_equals_the_base_reward():
    env = RewardWrapper(make(), "pass_fail")
    env.reset()
    assert env.step("    return a")[1] == 0
    _, reward, *_, info = env.step(END_OF_PROGRAM)
    assert reward == 1
    assert info["reward_parts"] == {"outcome": 1.0}


@pytest.mark.parametrize("between", [lambda env: env, gym.wrappers.RecordEpisodeStatistics])
def test_reward_wrappers_do_not_stack(between):
    with pytest.raises(TypeError, match="already has a reward wrapper"):
        RewardWrapper(between(RewardWrapper(make(), "pass_fail")), "pass_fail")


def test_only_codegen_can_be_wrapped():
    with pytest.raises(TypeError, match="needs CodeGen-v0"):
        RewardWrapper(gym.make("CartPole-v1"), "pass_fail")


def test_unknown_schemes_and_stray_options_are_refused():
    with pytest.raises(UnknownNameError, match="choose from coderl, compose, length, pass_fail"):
        RewardWrapper(make(), "pass_fall")
    with pytest.raises(TypeError, match=r"options \['cap'\] go with a scheme's name"):
        RewardWrapper(make(), scheme(), cap=0.5)


@pytest.mark.parametrize("wrong", [None, dict, PassFail, object()])
def test_what_is_no_scheme_or_scorer_is_refused(wrong):
    with pytest.raises(TypeError, match="scheme must be a RewardScheme, an object with credit and step, got"):
        RewardWrapper(make(), wrong)
    if wrong is not None:
        with pytest.raises(TypeError, match="scorer must be a LineScorer, an object with score, got"):
            ProcessReward(scorer=wrong)


def test_a_path_among_the_options_survives_json(monkeypatch):
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: [TASK])
    env = RewardWrapper(gym.make("CodeGen-v0"), "process", prm=Path("runs/prm"))
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert twin.scheme == env.scheme == ProcessReward(prm="runs/prm")


def test_spec_round_trip_keeps_names_and_options(monkeypatch):
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: [TASK, DOUBLE])
    options = {"prm": "runs/prm", "form": "mean", "lambda_fail": 0.2}
    env = RewardWrapper(gym.make("CodeGen-v0", max_lines=9), "process", **options)
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    twin = gym.make(spec)
    assert isinstance(twin, RewardWrapper)
    assert twin.scheme == env.scheme == ProcessReward(**options)
    assert twin.spec == env.spec
    assert twin.unwrapped.max_lines == 9


def test_a_spec_with_an_object_in_it_fails_loudly(monkeypatch):
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: [TASK])
    env = RewardWrapper(gym.make("CodeGen-v0"), PassFail())
    with pytest.raises(TypeError, match="not JSON serializable"):
        env.spec.to_json()


def test_recording_the_arguments_does_not_copy_the_model():
    class Weights:
        def __deepcopy__(self, memo):
            raise AssertionError("copied")

        def score(self, episodes):
            return [np.zeros(len(e.lines)) for e in episodes]

    RewardWrapper(make(), ProcessReward.from_scorer(Weights())).reset()


@pytest.mark.filterwarnings("ignore:.*is different from the unwrapped version")
def test_gymnasium_check_env_is_clean_with_the_wrapper():
    judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    constant = ProcessReward.from_scorer(ScriptedScorer(lambda e: [0.5] * len(e.lines)))
    check_env(RewardWrapper(make(judge), constant), skip_render_check=True)


def test_stock_wrappers_sit_on_top():
    env = gym.wrappers.RecordEpisodeStatistics(RewardWrapper(make(), scheme()))
    env.reset()
    for line in LINES:
        env.step(line)
    *_, info = env.step(END_OF_PROGRAM)
    assert info["episode"]["r"] == pytest.approx(0.875)
    assert info["episode"]["l"] == 6
