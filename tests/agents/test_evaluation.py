import hashlib
from collections.abc import Sequence

import pytest

from agents.evaluation import evaluate_to_file, read_evaluation
from codegym import CallTest, Judgement, Task, Verdict
from prm.completion import Completion


class EchoCompleter:
    """Writes a program that depends on the prompt and on the seed alone."""

    identity = "echo"

    def __init__(self) -> None:
        self.calls: list[tuple[int, float, int]] = []

    def sample(self, prompts, *, n=1, max_new_tokens, temperature=1.0, seed=0):
        self.calls.append((len(prompts), temperature, seed))
        return [[self._one(prompt, temperature, seed)] * n for prompt in prompts]

    def _one(self, prompt: Sequence[int], temperature: float, seed: int) -> Completion:
        digest = hashlib.sha256(repr((prompt, seed if temperature else 0)).encode()).hexdigest()
        text = f"    return '{digest[:6]}'\n"
        return Completion(token_ids=(1, 2, 0), logprobs=(0.0, 0.0, 0.0), text=text, finished=True)


class EvenJudge:
    """Passes programs of even-numbered tasks."""

    def judge(self, jobs):
        judgements = []
        for task, source in jobs:
            assert source.startswith(task.prompt)
            passed = int(task.task_id.split("/")[1]) % 2 == 0
            verdict = Verdict.PASSED if passed else Verdict.WRONG_ANSWER
            judgements.append(Judgement(verdict=verdict, results=(passed, True)))
        return judgements


def tasks(count: int) -> list[Task]:
    return [
        Task(
            task_id=f"t/{index}",
            prompt=f"def f{index}():\n",
            entry_point=f"f{index}",
            tests=(CallTest(args=(), expected=1),),
            metadata={"horizon": index + 2},
        )
        for index in range(count)
    ]


def run(path, count=5, chunk=2, arm="sft", decoding="sampled"):
    steps = evaluate_to_file(
        EchoCompleter(), tasks(count), EvenJudge(), list, path, arm=arm, decoding=decoding,
        max_new_tokens=8, seed=3, chunk=chunk,
    )  # fmt: skip
    return list(steps)


def test_one_row_per_task_with_its_verdict(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert run(path) == [2, 4, 5]
    rows = read_evaluation(path)
    assert [row.task_id for row in rows] == [f"t/{index}" for index in range(5)]
    assert [row.passed for row in rows] == [True, False, True, False, True]
    assert [row.horizon for row in rows] == [2, 3, 4, 5, 6]
    assert {(row.tests_passed, row.tests_total) for row in rows} == {(2, 2), (1, 2)}
    assert {(row.lines, row.tokens, row.finished) for row in rows} == {(1, 3, True)}


@pytest.mark.parametrize("kept_bytes", [0, 1, 150, 400, 700, 10_000])
def test_an_interrupted_evaluation_resumes_to_the_same_rows(tmp_path, kept_bytes):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    run(whole)
    cut.write_bytes(whole.read_bytes()[:kept_bytes])
    run(cut)
    by_key = sorted(read_evaluation(cut), key=lambda row: row.key)
    assert by_key == sorted(read_evaluation(whole), key=lambda row: row.key)
    assert len({row.key for row in by_key}) == len(by_key)


def test_arms_and_decodings_share_a_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    for arm in ("sft", "psgpo"):
        for decoding in ("sampled", "greedy"):
            run(path, arm=arm, decoding=decoding)
    assert len(read_evaluation(path)) == 20


def test_greedy_asks_for_temperature_zero(tmp_path):
    completer = EchoCompleter()
    list(
        evaluate_to_file(
            completer, tasks(3), EvenJudge(), list, tmp_path / "r.jsonl", arm="a", decoding="greedy",
            max_new_tokens=8, seed=0,
        )
    )  # fmt: skip
    assert completer.calls == [(3, 0.0, 0)]
