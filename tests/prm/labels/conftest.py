"""Scripted parts of labelling: a tokenizer of characters, completers by a function, a judge of one word."""

import random
from types import SimpleNamespace

import pytest

from codegym import Task, Verdict
from codegym.task import CallTest
from codegym.testing import ScriptedJudge, judgement
from prm.completion import Completion
from prm.program import SampledProgram

TASK = Task(task_id="t", prompt="def f():\n", entry_point="f", tests=(CallTest(args=(), expected=1),))
SIX = ("    a = 1", "    b = 2", "    c = 3", "    d = 4", "    e = 5", "    return e")


class Merging:
    """A newline and the indentation after it are one token, other characters one each; 0 ends a text."""

    pieces = ("<|end|>", "\n    ", "\n", *(chr(code) for code in range(32, 127)), "é", "\r")
    eos_token_id = 0

    def __len__(self):
        return len(self.pieces)

    def encode(self, text, *, add_special_tokens=True):
        tokens = []
        while text:
            token = next(t for t, piece in enumerate(self.pieces) if text.startswith(piece))
            tokens.append(token)
            text = text[len(self.pieces[token]) :]
        return tokens

    def decode(self, token_ids, *, skip_special_tokens=False, clean_up_tokenization_spaces=True):
        return "".join(self.pieces[token] for token in token_ids if token or not skip_special_tokens)


TOKENIZER = Merging()


class Completer:
    """Completes by a function of the text so far and a generator seeded by the draw's place."""

    identity = "scripted-1"

    def __init__(self, write):
        self.write = write
        self.calls = []

    def sample(self, prompts, *, n=1, max_new_tokens, temperature=1.0, seed=0):
        texts = [TOKENIZER.decode(list(prompt), clean_up_tokenization_spaces=False) for prompt in prompts]
        self.calls.append({"texts": texts, "n": n, "max_new_tokens": max_new_tokens, "seed": seed})
        return [
            [self.completion(text, random.Random(f"{seed}/{place}/{draw}")) for draw in range(n)]
            for place, text in enumerate(texts)
        ]

    def completion(self, text, rng):
        written = self.write(text, rng)
        tokens = (*TOKENIZER.encode(written), 0)
        return Completion(token_ids=tokens, logprobs=(0.0,) * len(tokens), text=written, finished=True)

    @property
    def n_drawn(self):
        return sum(len(call["texts"]) * call["n"] for call in self.calls)


def program(lines=SIX, *, number=0, passed=False, finished=True, newline=True, task_id="t"):
    completion = "\n".join(lines) + "\n" * (newline and bool(lines))
    return SampledProgram(
        program_id=f"p/{task_id}/{number}",
        task_id=task_id,
        policy="p",
        prompt_ids=tuple(TOKENIZER.encode(TASK.prompt)),
        token_ids=(*TOKENIZER.encode(completion), *([0] if finished else [])),
        completion=completion,
        finished=finished,
        verdict=Verdict.PASSED if passed else Verdict.WRONG_ANSWER,
        results=(passed,),
    )


def judge():
    """Passes what holds the word WIN."""
    return ScriptedJudge(lambda task, source: judgement(task, int("WIN" in source)))


def n_lines(text):
    """Whole lines of a prefix; the prompt has one."""
    return text.count("\n") - 1


def recoverable_up_to(limit):
    """Wins from every prefix of at most `limit` lines, and never from a longer one."""
    return Completer(lambda text, rng: "WIN\n" if n_lines(text) <= limit else "lose\n")


@pytest.fixture(scope="session")
def scripted():
    return SimpleNamespace(
        task=TASK, tasks={"t": TASK}, six=SIX, tokenizer=TOKENIZER, completer=Completer, program=program,
        judge=judge, n_lines=n_lines, recoverable_up_to=recoverable_up_to,
    )  # fmt: skip
