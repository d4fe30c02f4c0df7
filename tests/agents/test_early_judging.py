"""Judging beside sampling: the same judgements as afterwards, in order, once each; failures are raised."""

import threading
from dataclasses import replace

import gymnasium as gym
import pytest

from agents.early_judging import EarlyJudging
from agents.monitor import PhaseTimer
from agents.psgpo import PSGPO, PSGPOConfig
from codegym.errors import SandboxError
from codegym.task import CallTest, Task
from codegym.testing import ScriptedJudge, judgement
from prm.completion import Completion

TEST = CallTest(args=(), expected=0)
TASKS = [Task(task_id=str(i), prompt="", entry_point="f", tests=(TEST,)) for i in range(6)]
PATIENCE = 30.0  # seconds that a test waits for what must happen before it fails


def written(text):
    return Completion(token_ids=(1,), logprobs=(0.0,), text=text, finished=True)


def right_if_long(task, source):
    return judgement(task, int(len(source.strip()) > 2))


class Gate:
    """A judge that takes until it is let go, and says when it has begun."""

    def __init__(self):
        self.begun, self.go = threading.Event(), threading.Event()
        self.judge = ScriptedJudge(self.decide)

    def decide(self, task, source):
        self.begun.set()
        assert self.go.wait(PATIENCE)
        return right_if_long(task, source)


def sources(judge):
    return [[source.strip() for _, source in batch] for batch in judge.batches]


TEXTS = ["a", "bbb", "c", "dddd", "e", "fff"]
COMPLETIONS = [written(text) for text in TEXTS]


def test_without_being_told_it_judges_all_in_one_batch():
    judge = ScriptedJudge(right_if_long)
    with EarlyJudging(judge, TASKS) as early:
        judged = early.judgements(COMPLETIONS)
    assert judged == [right_if_long(task, c.text) for task, c in zip(TASKS, COMPLETIONS, strict=True)]
    assert sources(judge) == [TEXTS]
    assert early.seconds > 0


@pytest.mark.parametrize("order", [[5, 0, 3], [0, 1, 2, 3, 4, 5], [2]])
def test_what_was_told_and_the_rest_come_back_in_order(order):
    judge = ScriptedJudge(right_if_long)
    with EarlyJudging(judge, TASKS) as early:
        for place in order:
            early.tell([(place, COMPLETIONS[place])])
        judged = early.judgements(COMPLETIONS)
    assert [one.passed for one in judged] == [False, True, False, True, False, True]
    assert sorted(source for batch in sources(judge) for source in batch) == TEXTS


def test_it_judges_while_others_are_written():
    gate = Gate()
    with EarlyJudging(gate.judge, TASKS) as early:
        early.tell([(0, COMPLETIONS[0])])
        assert gate.begun.wait(PATIENCE)  # the sampler has not returned, and the judge is at work
        for place in (1, 2, 3):  # and goes on telling while the judge has not answered
            early.tell([(place, COMPLETIONS[place])])
        gate.go.set()
        early.judgements(COMPLETIONS)
    assert sources(gate.judge) == [["a"], ["bbb", "c", "dddd"], ["e", "fff"]]


def test_no_program_is_judged_twice():
    gate = Gate()
    same = [written("aaa")] * 6
    with EarlyJudging(gate.judge, [TASKS[0]] * 5 + [TASKS[1]]) as early:
        early.tell([(0, same[0])])
        assert gate.begun.wait(PATIENCE)
        early.tell([(1, same[1])])
        gate.go.set()
        judged = early.judgements(same)
    jobs = [(task.task_id, source.strip()) for batch in gate.judge.batches for task, source in batch]
    assert jobs == [("0", "aaa"), ("1", "aaa")]
    assert all(one.passed for one in judged)


def test_a_sandbox_that_fails_is_raised_and_nothing_more_is_judged():
    calls = []

    def fail(task, source):
        calls.append(source.strip())
        raise SandboxError("the sandbox is gone")

    with EarlyJudging(ScriptedJudge(fail), TASKS) as early:
        early.tell([(0, COMPLETIONS[0])])
        early._runs[0].exception(PATIENCE)
        early.tell([(1, COMPLETIONS[1])])  # the sampler does not hear of it
        with pytest.raises(SandboxError, match="the sandbox is gone"):
            early.judgements(COMPLETIONS)
    assert calls == ["a"]


def test_a_program_that_changed_after_it_was_told_is_an_error():
    with EarlyJudging(ScriptedJudge(right_if_long), TASKS) as early:
        early.tell([(1, written("half"))])
        with pytest.raises(ValueError, match="told of program 1 before it was complete"):
            early.judgements(COMPLETIONS)


def test_a_sampler_that_fails_leaves_no_thread_behind():
    def fail(judging):
        judging.tell([(0, COMPLETIONS[0])])
        judging.tell([(1, COMPLETIONS[1])])
        raise KeyError

    judge = ScriptedJudge(right_if_long)
    with pytest.raises(KeyError), EarlyJudging(judge, TASKS) as early:
        fail(early)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("early-judging")]


# --- in the agent ---


CONFIG = PSGPOConfig(
    n_iterations=3,
    rollouts_per_iteration=16,
    max_new_tokens=6,
    critic_only_iterations=0,
    warmup_iterations=0,
    learning_rate=3e-3,
    micro_batch_tokens=64,
)


def make_agent(toy, config=CONFIG, judge=None):
    env = toy.env() if judge is None else gym.make("CodeGen-v0", tasks=toy.tasks(), judge=judge)
    return PSGPO(toy.model(), env, config, tokenizer=toy.tokenizer(), device="cpu")


@pytest.mark.parametrize("samples_per_task", [1, 4])
def test_it_makes_no_difference_to_the_training(toy, samples_per_task):
    config = replace(CONFIG, samples_per_task=samples_per_task)
    early, late = (make_agent(toy, replace(config, judge_early=when)) for when in (True, False))
    for index in range(3):
        ours, theirs = (agent.iterate(index / 3) for agent in (early, late))
        assert timeless(ours) == timeless(theirs)
    for mine, other in zip(early.policy.parameters(), late.policy.parameters(), strict=True):
        assert mine.equal(other)
    assert [len(batch) for batch in late.env.unwrapped.judge.batches] == [16] * 3
    assert sum(len(batch) for batch in early.env.unwrapped.judge.batches) <= 48


def timeless(metrics):
    return {key: value for key, value in metrics.items() if not key.startswith("time/")}


class Patient:
    """A sampler that returns only when the judge has judged what it told of: however slow, it is hidden."""

    def __init__(self, sampler, judge):
        self.sampler, self.judge, self.identity = sampler, judge, "patient"
        self.n_judged_before_the_end = 0

    def sample(self, prompts, *, on_finished=None, **options):
        groups = self.sampler.sample(prompts, **options)
        completions = [completion for group in groups for completion in group]
        on_finished(list(enumerate(completions))[:-1])
        assert self.judge.answered.wait(PATIENCE)
        self.n_judged_before_the_end = sum(len(batch) for batch in self.judge.batches)
        return groups


class SaysWhenDone(ScriptedJudge):
    def __init__(self, decide):
        super().__init__(decide)
        self.answered = threading.Event()

    def judge(self, jobs):
        judgements = super().judge(jobs)
        self.answered.set()
        return judgements


def test_a_judges_time_is_hidden_behind_the_sampler(toy):
    judge = SaysWhenDone(right_if_long)
    agent = make_agent(toy, judge=judge)
    agent.sampler = Patient(agent.sampler, judge)
    timer = PhaseTimer()
    rollout = agent.collect(timer)
    assert agent.sampler.n_judged_before_the_end == 15
    assert [len(batch) for batch in judge.batches] in ([15], [15, 1])  # the last may equal one before
    assert timer.hidden["judging"] >= 0
    assert [e.judgement for e in rollout.episodes] == [
        right_if_long(e.task, e.source) for e in rollout.episodes
    ]


def test_a_failing_sandbox_ends_the_iteration(toy):
    def fail(task, source):
        raise SandboxError("gone")

    with pytest.raises(SandboxError, match="gone"):
        make_agent(toy, judge=ScriptedJudge(fail)).iterate(0.0)


def test_the_log_says_how_much_of_the_judging_was_waited_for(toy):
    late = make_agent(toy, replace(CONFIG, judge_early=False)).iterate(0.0)
    assert late["time/judging_wait_share"] == pytest.approx(1, abs=0.01)
    early = make_agent(toy).iterate(0.0)
    assert 0 <= early["time/judging_wait_share"] <= 1
