"""Sampling and judging in one batch each."""

from dataclasses import replace

from codegym import Verdict
from codegym.testing import DOUBLE, ScriptedJudge, judgement
from prm.collect import collect
from prm.completion import Completion

OTHER = replace(DOUBLE, task_id="check/other", prompt="Double x.\n", prompt_is_code=False)


class Letters:
    """One token per character."""

    def encode(self, text):
        return [ord(letter) for letter in text]


class Echo:
    """Writes the sample's number and the seed; every second program is cut."""

    identity = "echo"

    def __init__(self):
        self.calls = []

    def sample(self, prompts, *, n=1, max_new_tokens, temperature=1.0, seed=0):
        self.calls.append((len(prompts), n, max_new_tokens, temperature, seed))
        return [
            [self.write(f"    return {number}{seed}\n", number % 2 == 0) for number in range(n)]
            for _ in prompts
        ]

    def write(self, text, finished):
        tokens = (*map(ord, text), *([0] if finished else []))
        return Completion(token_ids=tokens, logprobs=(0.0,) * len(tokens), text=text, finished=finished)


def decide(task, source):
    return judgement(task, 3 if source.endswith("return 17\n") else 1)


def test_programs_keep_exact_tokens_and_verdicts():
    completer, judge = Echo(), ScriptedJudge(decide)
    programs = collect(
        completer,
        [DOUBLE, OTHER],
        judge,
        Letters(),
        policy="sft",
        n=2,
        max_new_tokens=9,
        temperature=0.7,
        seed=7,
    )
    assert completer.calls == [(2, 2, 9, 0.7, 7)]
    assert [len(batch) for batch in judge.batches] == [4]
    assert [program.program_id for program in programs] == [
        "sft/check/double/0",
        "sft/check/double/1",
        "sft/check/other/0",
        "sft/check/other/1",
    ]
    first, second, *_ = programs
    assert (first.verdict, first.results, first.finished) == (
        Verdict.WRONG_ANSWER,
        (True, False, False),
        True,
    )
    assert (second.passed, second.finished) == (True, False)
    assert first.prompt_ids == tuple(map(ord, DOUBLE.prompt))
    assert first.token_ids == (*map(ord, "    return 07\n"), 0)
    assert (first.policy, first.task_id, first.lines) == ("sft", "check/double", ["    return 07"])


def test_prompts_that_are_no_code_are_not_judged():
    judge = ScriptedJudge(decide)
    collect(Echo(), [DOUBLE, OTHER], judge, Letters(), policy="p", n=1, max_new_tokens=9)
    (((_, code), (_, prose)),) = judge.batches
    assert code == "def double(x):\n    return 00\n"
    assert prose == "    return 00\n"


def test_no_tasks_are_no_programs():
    assert collect(Echo(), [], ScriptedJudge(decide), Letters(), policy="p", n=3, max_new_tokens=9) == []
