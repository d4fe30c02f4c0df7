"""Grows stepwise programs whose hidden tests tell every single-step bug from right code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from codegym.tasks.operations import function
from codegym.tasks.stepwise_programs import ENDINGS, Ending, Step, draw_step, split_of

INPUT_LENGTHS = (10, 16)
INPUT_NUMBERS = range(-9, 16)
LARGEST_NUMBER = 9999
"""Programs whose right values leave [-LARGEST_NUMBER, LARGEST_NUMBER] are not used."""
LONGEST_LIST = 40
SHORTEST_LIST = 3
"""A step is not used if it leaves a list shorter than this on more than a quarter of the inputs."""

_TRIES_PER_STEP = 40

Mutant: TypeAlias = Mapping[int, list[int]]
"""A program with one wrong step: its value for each input on which it is not (yet) equal to the right one."""


@dataclass(frozen=True, kw_only=True)
class StepwiseProgram:
    """A program by its meaning: what it asks for and what every step computes.

    Attributes:
        steps: The operations in order.
        ending: What is returned.
        inputs: One list per hidden test.
        values: After each step, the right list per input. [steps][inputs]
        outputs: The right return value per input.
    """

    steps: tuple[Step, ...]
    ending: Ending
    inputs: tuple[list[int], ...]
    values: tuple[list[list[int]], ...]
    outputs: tuple[Any, ...]


@dataclass(frozen=True, kw_only=True)
class _Draft:
    """A program being grown, with every single-step mutant of it that its inputs still tell apart."""

    inputs: tuple[list[int], ...]
    steps: tuple[Step, ...] = ()
    values: tuple[list[list[int]], ...] = ()
    mutants: tuple[Mutant, ...] = ()

    @property
    def lists(self) -> Sequence[list[int]]:
        return self.values[-1] if self.values else self.inputs

    def extended(self, step: Step) -> "_Draft | None":
        """The draft with one more step, or None if a list degenerates or a mutant becomes right."""
        right = function(step.operation.right[0], step.k)
        lists = [right(list(numbers)) for numbers in self.lists]
        if not _usable(lists):
            return None
        new = (_mutant(template, step.k, self.lists) for template in step.operation.wrong)
        grown = ({index: right(list(value)) for index, value in mutant.items()} for mutant in self.mutants)
        mutants: list[Mutant] = []
        for mutant in (*(mutant for mutant in new if mutant is not None), *grown):
            mutants.append(_different(mutant, lists))
            if not mutants[-1]:
                return None
        return _Draft(
            inputs=self.inputs,
            steps=(*self.steps, step),
            values=(*self.values, lists),
            mutants=tuple(mutants),
        )

    def ended(self, ending: Ending) -> StepwiseProgram | None:
        """The finished program, or None if the ending hides a mutant or the outputs are too much alike."""
        finish = function(ending.code, None)
        outputs = tuple(finish(numbers) for numbers in self.lists)
        if len(set(map(repr, outputs))) < 0.75 * len(outputs):
            return None
        for mutant in self.mutants:
            if all(finish(value) == outputs[index] for index, value in mutant.items()):
                return None
        return StepwiseProgram(
            steps=self.steps, ending=ending, inputs=self.inputs, values=self.values, outputs=outputs
        )


def grow(rng: Random, *, horizon: int, split: str, n_tests: int) -> StepwiseProgram:
    """A random program of `horizon` steps that belongs to `split`.

    Grown step by step: a step that would hide a bug of an earlier one (sorting after a wrong reversal) is
    not taken. So each wrong template of each step, put in place of the right one, fails a test.
    """
    while True:
        draft = _draft(rng, horizon=horizon, split=split, n_tests=n_tests)
        if draft is None:
            continue
        for ending in rng.sample(ENDINGS, k=len(ENDINGS)):
            if program := draft.ended(ending):
                return program


def _draft(rng: Random, *, horizon: int, split: str, n_tests: int) -> _Draft | None:
    lengths = [rng.randint(*INPUT_LENGTHS) for _ in range(n_tests)]
    draft: _Draft | None = _Draft(inputs=tuple(rng.choices(INPUT_NUMBERS, k=n) for n in lengths))
    for number in range(1, horizon + 1):
        if draft:
            # the last step decides which split the program belongs to
            draft = _next(rng, draft, split=split if number == horizon else None)
    return draft


def _next(rng: Random, draft: _Draft, *, split: str | None) -> _Draft | None:
    for _ in range(_TRIES_PER_STEP):
        step = draw_step(rng)
        while split is not None and split_of((*draft.steps, step)) != split:
            step = draw_step(rng)
        if extended := draft.extended(step):
            return extended
    return None


def _usable(lists: Sequence[list[int]]) -> bool:
    short = sum(len(numbers) < SHORTEST_LIST for numbers in lists)
    return short <= len(lists) / 4 and all(
        len(numbers) <= LONGEST_LIST and all(-LARGEST_NUMBER <= n <= LARGEST_NUMBER for n in numbers)
        for numbers in lists
    )


def _mutant(template: str, k: int | None, lists: Sequence[list[int]]) -> Mutant | None:
    """Values of a wrong step, or None for one that yields no list, on which every way to go on fails."""
    wrong = function(template, k)
    values = {}
    for index, numbers in enumerate(lists):
        value = wrong(list(numbers))
        if not isinstance(value, list):
            return None
        values[index] = value
    return values


def _different(mutant: Mutant, lists: Sequence[list[int]]) -> Mutant:
    """The inputs on which a mutant is not right; where it once is right, it stays right."""
    return {index: value for index, value in mutant.items() if value != lists[index]}
