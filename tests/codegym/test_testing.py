"""The conformance checks must let the right through and catch the wrong."""

import time
from dataclasses import replace

import numpy as np
import pytest

from codegym import (
    AssertionTest,
    Episode,
    Judge,
    Judgement,
    LineScorer,
    RewardScheme,
    SandboxError,
    TaskError,
    Verdict,
    make_judge,
)
from codegym.rewards.outcome import PassFail
from codegym.testing import DOUBLE, ScriptedJudge, ScriptedScorer, check_judge, check_reward_scheme, judgement


@pytest.fixture(scope="module")
def truth():
    """The judgements of a real judge on every program of `check_judge`, looked up."""
    known = {}
    with make_judge("local", time_limit_s=0.3) as real:

        def record(task, source):
            (known[task.tests, source],) = real.judge([(task, source)])
            return known[task.tests, source]

        check_judge(ScriptedJudge(record))
    return lambda task, source: known[task.tests, source]


def is_right(task, source):
    n_passed = len(task.tests) if "x + x\n" in source else 0
    return judgement(task, n_passed, None if n_passed else Verdict.RUNTIME_ERROR)


def test_fakes_satisfy_the_protocols():
    assert isinstance(ScriptedJudge(is_right), Judge)
    assert isinstance(ScriptedScorer(lambda e: []), LineScorer)
    assert isinstance(PassFail(), RewardScheme)


def test_a_scripted_judge_records_its_batches_and_its_end():
    with ScriptedJudge(is_right) as judge:
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


def test_check_judge_accepts_a_right_judge(truth):
    judge = ScriptedJudge(truth)
    check_judge(judge)
    assert not judge.closed
    check_judge(judge, close=True)
    assert judge.closed


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_the_local_judge_conforms_at_every_tier(tier):
    with make_judge("local", time_limit_s=0.3, max_tier=tier) as judge:
        check_judge(judge, close=True)
        assert judge.tier <= tier
        assert judge.statistics.restarts == 0


class Faulty(ScriptedJudge):
    """A right judge but for one fault."""

    def __init__(self, truth, fault):
        super().__init__(truth)
        self.fault = fault
        self.shared = []

    def judge(self, jobs):
        if self.fault == "judges without tests" and not all(task.tests for task, _ in jobs):
            return [judgement(task, 0) for task, _ in jobs]
        if self.fault == "judges when closed" and self.closed:
            return [judgement(task, len(task.tests)) for task, _ in jobs]
        if self.fault == "shares its batch":
            self.shared = jobs
            time.sleep(0.05)
            jobs = self.shared
        found = super().judge(jobs)
        faults = {
            "reversed": lambda: found[::-1],
            "one is lost": lambda: found[:-1],
            "long batches mixed": lambda: found[1::2] + found[::2] if len(found) > 30 else found,
            "equal ones once": lambda: list(
                {
                    (task.tests, source): result for (task, source), result in zip(jobs, found, strict=True)
                }.values()
            ),
            "an empty batch is None": lambda: found or None,
        }
        return faults.get(self.fault, lambda: found)()

    def close(self):
        if self.fault == "closes once" and self.closed:
            raise OSError("closed already")
        super().close()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("reversed", "the wrong program must be wrong_answer .* got runtime_error"),
        ("one is lost", "22 jobs gave 21 judgements"),
        (
            "long batches mixed",
            r"the 0-th program must be wrong_answer \(False, False, False\) in a batch of 40",
        ),
        ("equal ones once", "5 jobs gave 2 judgements"),
        ("an empty batch is None", "an empty batch must give an empty list"),
        ("shares its batch", "beside another thread"),
        ("judges without tests", "a task without tests must raise TaskError"),
        ("judges when closed", "a judge that is closed must raise SandboxError"),
    ],
)
def test_check_judge_catches_a_judge_that_breaks_the_protocol(truth, fault, message):
    with pytest.raises(AssertionError, match=message):
        check_judge(Faulty(truth, fault), close=True)


def test_check_judge_catches_a_judge_that_cannot_be_closed_twice(truth):
    with pytest.raises(OSError, match="closed already"):
        check_judge(Faulty(truth, "closes once"), close=True)


PASS = Verdict.PASSED


@pytest.mark.parametrize(
    ("mark", "verdict", "message"),
    [
        ("", PASS, "the wrong program must be wrong_answer"),
        ("", Verdict.WRONG_ANSWER, "the right program must be passed"),
        ("x * x", Verdict.RUNTIME_ERROR, "the wrong program must be wrong_answer"),
        ("while True:\n        pass", Verdict.RUNTIME_ERROR, "the endless program must be time_limit"),
        ("(x +", Verdict.RUNTIME_ERROR, "the unparsable program must be syntax_error"),
        ("SystemExit", PASS, "the exiting program must be runtime_error"),
        ("class Liar(int)", PASS, "the lying program must be wrong_answer"),
        ("class Liar:", PASS, "the strange program must be wrong_answer"),
        ("    print(2 * x)", PASS, "the printing program must be wrong_answer"),
        ("10**13", PASS, "the hoarding program must be memory_limit or runtime_error"),
        ("print(x + 3)", PASS, "the half right echo program must be wrong_answer"),
        ("print(input())", PASS, "the short echo program must be wrong_answer"),
        ("2 * x, 0", PASS, "the long echo program must be wrong_answer"),
        ("x[0]", PASS, "the raising echo program must be runtime_error"),
        ("10**6", PASS, "the flooding echo program must be output_limit or time_limit"),
        ("KeyError", PASS, "the raising asserted program must be runtime_error"),
    ],
)
def test_check_judge_catches_a_wrong_verdict(truth, mark, verdict, message):
    def wrong_about(task, source):
        wrong = judgement(task, len(task.tests) if verdict is PASS else 0, verdict)
        return wrong if mark in source else truth(task, source)

    with pytest.raises(AssertionError, match=message):
        check_judge(ScriptedJudge(wrong_about))


def test_check_judge_catches_a_judge_that_trusts_assertions_on_liars(truth):
    def trusting(task, source):
        asserted = isinstance(task.tests[0], AssertionTest)
        return judgement(task, 2) if asserted and "Liar" in source else truth(task, source)

    with pytest.raises(AssertionError, match="the lying asserted program must be wrong_answer"):
        check_judge(ScriptedJudge(trusting))


def test_check_judge_catches_results_that_do_not_fit_the_verdict(truth):
    with pytest.raises(
        AssertionError, match=r"the wrong program must be wrong_answer \(True, False, False\)"
    ):
        check_judge(ScriptedJudge(lambda task, source: replace(truth(task, source), results=(True,) * 3)))


def test_the_scripted_judge_refuses_a_task_without_tests():
    with pytest.raises(TaskError, match="no tests"):
        ScriptedJudge(is_right).judge([(replace(DOUBLE, tests=()), "")])


def test_the_scripted_judge_does_not_judge_when_closed():
    judge = ScriptedJudge(is_right)
    judge.close()
    with pytest.raises(SandboxError, match="closed"):
        judge.judge([(DOUBLE, "")])


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
