"""Stepwise programs as text: numbered steps in natural language, and code with one variable per step."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any, NamedTuple

from codegym.tasks.operations import OPERATIONS, Operation, render

ENTRY_POINT = "solve"
"""Name of the function that every stepwise program defines."""

SPLITS = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Share of all step sequences that each split owns."""


class Step(NamedTuple):
    """One operation with its parameter."""

    operation: Operation
    k: int | None


@dataclass(frozen=True, kw_only=True)
class Ending:
    """What a program returns, as a phrase of the prompt and an expression over the last list `{a}`."""

    phrase: str
    code: str


ENDINGS = (
    Ending(phrase="return the list", code="{a}"),
    Ending(phrase="return the sum", code="sum({a})"),
    Ending(phrase="return the largest number, or 0", code="max({a}, default=0)"),
    Ending(phrase="return the sum and the length as a list", code="[sum({a}), len({a})]"),
    Ending(phrase="return the numbers as text, separated by spaces", code='" ".join(map(str, {a}))'),
)
"""The ways to end a program."""

_STEPS = tuple(OPERATIONS.values())


def draw_step(rng: Random) -> Step:
    """A random operation with a random parameter."""
    operation = rng.choice(_STEPS)
    return Step(operation, rng.choice(operation.parameters))


def split_of(steps: Sequence[Step]) -> str:
    """The split that owns a sequence of steps; the same steps never occur in two splits.

    The phrasings, the ending and the inputs do not count: two tasks of different splits differ in what they
    ask to be computed.
    """
    signature = " ".join(f"{step.operation.name}:{step.k}" for step in steps)
    position = int.from_bytes(blake2b(signature.encode(), digest_size=4).digest()) / 2**32
    for split, share in SPLITS.items():
        if position < share:
            return split
        position -= share
    return split


def write_prompt(rng: Random, steps: Sequence[Step], ending: Ending) -> str:
    """The head of the function: its signature and a docstring that asks for the steps, randomly phrased.

    Step number k is labelled with the variable that it computes, so that code and request share a name.
    """
    asked = "".join(
        f"    v{number}: {rng.choice(step.operation.phrases).format(k=step.k)}\n"
        for number, step in enumerate(steps, start=1)
    )
    return (
        f'def {ENTRY_POINT}(v0):\n    """Transform the list v0 step by step.\n'
        f'{asked}    {ending.phrase}\n    """\n'
    )


def write_program(templates: Sequence[str], steps: Sequence[Step], ending: Ending) -> str:
    """The body of the function: step number k computes `v<k>` by its template, then comes the return."""
    body = "".join(
        render(template, a=f"v{number - 1}", b=f"v{number}", k=step.k)
        for number, (template, step) in enumerate(zip(templates, steps, strict=True), start=1)
    )
    return f"{body}    return {ending.code.format(a=f'v{len(steps)}')}\n"


def check_horizons(horizons: Any) -> tuple[int, int]:
    """Return `horizons` as (shortest, longest).

    Raises:
        ValueError: If it is not two integers with 1 <= shortest <= longest.
    """
    try:
        low, high = horizons
    except (TypeError, ValueError):
        low = high = None
    if not (type(low) is int and type(high) is int and 1 <= low <= high):
        raise ValueError(f"horizons must be two integers, 1 <= shortest <= longest, got {horizons!r}")
    return low, high
