"""The conformance checks must let the right through and catch the wrong."""

from dataclasses import replace

import numpy as np
import pytest

from codegym import (
    JUDGES,
    Episode,
    Judge,
    Judgement,
    LineScorer,
    RewardScheme,
    TaskError,
    Verdict,
    make_judge,
)
from codegym.rewards.outcome import PassFail
from codegym.testing import DOUBLE, ScriptedJudge, ScriptedScorer, check_judge, check_reward_scheme, judgement

TRUTH = {
    "    return x + x\n": ("passed", 3),
    "    return 2 * x\n": ("passed", 3),
    "    return x * x\n": ("wrong_answer", 1),
    "    while True:\n        pass\n": ("time_limit", 0),
    "    return (x +\n": ("syntax_error", 0),
    "": ("syntax_error", 0),
}


def truth(task, source):
    verdict, n_passed = TRUTH.get(source.removeprefix(task.prompt), ("runtime_error", 0))
    return judgement(task, n_passed, Verdict(verdict))


def test_fakes_satisfy_the_protocols():
    assert isinstance(ScriptedJudge(truth), Judge)
    assert isinstance(ScriptedScorer(lambda e: []), LineScorer)
    assert isinstance(PassFail(), RewardScheme)


def test_a_scripted_judge_records_its_batches_and_its_end():
    with ScriptedJudge(truth) as judge:
        jobs = [(DOUBLE, DOUBLE.assemble("    return x + x\n")), (DOUBLE, "nonsense")]
        assert [result.verdict for result in judge.judge(jobs)] == ["passed", "runtime_error"]
        assert judge.batches == [jobs]
        assert not judge.closed
    assert judge.closed


def test_a_scripted_scorer_returns_arrays():
    (scores,) = ScriptedScorer(lambda e: [1] * len(e.lines)).score([Episode(task=DOUBLE, lines=("a", "b"))])
    assert scores.dtype == np.float64
    assert scores.tolist() == [1, 1]


def test_judgement_builds_consistent_records():
    assert judgement(DOUBLE, 3) == Judgement(verdict=Verdict.PASSED, results=(True, True, True))
    assert judgement(DOUBLE, 1) == Judgement(verdict=Verdict.WRONG_ANSWER, results=(True, False, False))


def test_check_judge_accepts_a_right_judge():
    check_judge(ScriptedJudge(truth))


@pytest.mark.parametrize("name", JUDGES)
def test_every_judge_in_the_table_conforms(name):
    with make_judge(name) as judge:
        check_judge(judge)


class Reversing(ScriptedJudge):
    def judge(self, jobs):
        return super().judge(jobs)[::-1]


class Lenient(ScriptedJudge):
    def judge(self, jobs):
        return [self._decide(task, source) for task, source in jobs]


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (ScriptedJudge(lambda task, source: judgement(task, 3)), "the wrong program must be wrong_answer"),
        (ScriptedJudge(lambda task, source: judgement(task, 0)), "the right program must be passed"),
        (Reversing(truth), "program must be"),
        (Lenient(truth), "a task without tests must raise TaskError"),
        (
            ScriptedJudge(lambda task, source: replace(truth(task, source), results=(True, True, True))),
            "the wrong program must be wrong_answer",
        ),
    ],
)
def test_check_judge_catches_a_wrong_judge(judge, message):
    with pytest.raises(AssertionError, match=message):
        check_judge(judge)


def test_the_scripted_judge_refuses_a_task_without_tests():
    with pytest.raises(TaskError, match="no tests"):
        ScriptedJudge(truth).judge([(replace(DOUBLE, tests=()), "")])


class Broken(PassFail):
    """A scheme with one fault."""

    def __init__(self, fault):
        self.fault = fault
        self.calls = 0

    def credit(self, episodes):
        self.calls += 1
        credit = super().credit(episodes)
        faults = {
            "length": lambda c: c[1:],
            "list": lambda c: c.tolist(),
            "float32": lambda c: c.astype(np.float32),
            "nan": lambda c: c * np.nan,
            "inverted": lambda c: -c,
            "flat": lambda c: c * 0,
            "drift": lambda c: c + self.calls,
            "batch": lambda c: c * (1 + len(episodes)),
        }
        credit = [faults.get(self.fault, lambda c: c)(c) for c in credit]
        return credit[1:] if self.fault == "lost" else credit

    def step(self, episodes):
        if self.fault == "step shape":
            return np.zeros((len(episodes), 1))
        if self.fault == "step nan":
            return np.full(len(episodes), np.nan)
        return super().step(episodes)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("length", "one reward for each of 1 actions"),
        ("list", "float64 array"),
        ("float32", "float64 array"),
        ("nan", "must be finite"),
        ("inverted", "a failing program earns 0, a passing one only -1"),
        ("flat", "a failing program earns 0, a passing one only 0"),
        ("drift", "in a batch"),
        ("batch", "in a batch"),
        ("lost", "episodes gave"),
        ("step shape", "streaming needs 0 finite rewards"),
        ("step nan", "streaming needs 1 finite rewards"),
    ],
)
def test_check_reward_scheme_catches_a_broken_scheme(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_reward_scheme(Broken(fault))


def test_check_reward_scheme_accepts_a_sound_one():
    check_reward_scheme(Broken(None))
