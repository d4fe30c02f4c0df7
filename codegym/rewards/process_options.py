"""The options of a process reward: what they must satisfy, and what a program can earn under them."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from codegym.rewards import LineScorer
from codegym.rewards.assignment import FORMS, UNBOUNDED
from codegym.table import check_name, check_object

GATES = ("psgpo", "pass_only", "both", "schedule")
UNITS = ("line", "statement")
POTENTIAL_LAMBDAS = (1.0, 1.0)


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Fields of `ProcessReward`, which documents what they mean together."""

    prm: str | None = None  # folder of a saved process reward model, loaded when first needed
    scorer: LineScorer | None = field(default=None, repr=False)  # an object in the place of `prm`
    form: Literal[
        "progress", "mean", "scored_mean", "sum", "min", "softmin", "delta", "clip", "potential"
    ] = "progress"  # how scores become shares
    gate: Literal["psgpo", "pass_only", "both", "schedule"] = "psgpo"  # how λ depends on the verdict
    lambda_fail: float | None = None  # weight of the shares of a failing program; None: the form's default
    lambda_pass: float | None = None  # weight of the shares of a passing program; None: the form's default
    cap: float | None = None  # bound on the running total of shares; None: 0.95 for "progress", else none
    n_lines: int | None = None  # T0; None: the scored lines or statements of the task's reference
    unit: Literal["line", "statement"] = "line"  # what is scored
    temperature: float = 0.1  # of "softmin"
    eta: float = 0.0  # threshold of "clip"
    gamma: float = 1.0  # of "potential": the learner's discount
    schedule: tuple[float, float, int] | None = None  # first and last factor on λ, programs in between
    n_programs: int = 0  # programs paid so far, for the schedule

    def __post_init__(self) -> None:
        if self.schedule is not None:  # JSON turns tuples into lists
            object.__setattr__(self, "schedule", tuple(self.schedule))
        self._check_names()
        self._check_numbers()
        self._check_order()

    def bounds(self, *, passed: bool) -> tuple[float, float]:
        """The least and the most that any passing, or any failing, program can earn."""
        low, high = self._total
        weights = [self._lambda(passed=passed, factor=factor) for factor in self._factors]
        earned = [_times(weight, total) for weight in weights for total in (low, high)]
        return float(passed) + min(earned), float(passed) + max(earned)

    def _lambda(self, *, passed: bool, factor: float | None = None) -> float:
        """The weight of the shares, at a factor of the schedule or at today's."""
        given = self.lambda_pass if passed else self.lambda_fail
        defaults = POTENTIAL_LAMBDAS if self.form == "potential" else FORMS[self.form].lambdas
        if self.gate == "pass_only":
            given = (defaults[0] if given is None else given) if passed else 0.0
        elif self.gate == "both":
            given = defaults[0] if self.lambda_fail is None else self.lambda_fail
        weight = defaults[passed] if given is None else given
        return weight * (self._factor if factor is None else factor)

    @property
    def _factor(self) -> float:
        if self.gate != "schedule" or self.schedule is None:
            return 1.0
        first, last, n_programs = self.schedule
        return first + (last - first) * min(self.n_programs / n_programs, 1.0)

    @property
    def _factors(self) -> tuple[float, ...]:
        """The largest and the smallest factor there will ever be."""
        return (1.0,) if self.gate != "schedule" or self.schedule is None else self.schedule[:2]

    @property
    def _cap(self) -> float | None:
        default = None if self.form == "potential" else FORMS[self.form].cap
        return default if self.cap is None else self.cap

    @property
    def _total(self) -> tuple[float, float]:
        """The least and the most that the shares of a program add up to."""
        if self.form == "potential":
            return (0.0, 0.0) if self.gamma == 1 else (-UNBOUNDED, 0.0)
        cap = UNBOUNDED if self._cap is None else self._cap
        low, high = FORMS[self.form].total
        return max(low, -cap), min(high, cap)

    def _check_names(self) -> None:
        check_name(self.form, (*FORMS, "potential"), "form of process reward")
        check_name(self.gate, GATES, "gate")
        check_name(self.unit, UNITS, "unit")
        if (self.prm is None) == (self.scorer is None):
            raise ValueError(
                "ProcessReward needs exactly one of prm= (the folder of a saved model) and scorer="
            )
        if self.scorer is not None:
            check_object(self.scorer, LineScorer, "scorer")
        if (self.gate == "schedule") != (self.schedule is not None):
            raise ValueError(
                'gate="schedule" and schedule=(first, last, n_programs) go together, got '
                f"gate={self.gate!r} and schedule={self.schedule}"
            )
        for gate, name in (("both", "lambda_pass"), ("pass_only", "lambda_fail")):
            if self.gate == gate and getattr(self, name) is not None:
                raise ValueError(f"gate={gate!r} does not use {name}, got {getattr(self, name)}")
        if self.form == "potential" and (self.unit != "line" or self.cap is not None):
            raise ValueError(
                f'form="potential" pays every line in full, got unit={self.unit!r} and cap={self.cap}'
            )

    def _check_numbers(self) -> None:
        largest = 1.0 if self.form not in ("sum", "clip") else UNBOUNDED
        if self.cap is not None and not (0 < self.cap <= largest and self.cap < UNBOUNDED):
            raise ValueError(f"cap must be in (0, {largest:g}], got {self.cap}")
        if self.n_lines is not None and self.n_lines < 1:
            raise ValueError(f"n_lines must be at least 1, got {self.n_lines}")
        for name, value in (("fail", self.lambda_fail), ("pass", self.lambda_pass)):
            if value is not None and not 0 <= value < UNBOUNDED:
                raise ValueError(f"lambda_{name} must be finite and >= 0, got {value}")
        if not 0 < self.temperature < UNBOUNDED:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if not -1 <= self.eta <= 1:
            raise ValueError(f"eta must be in [-1, 1], got {self.eta}")
        if not 0 < self.gamma <= 1:
            raise ValueError(f"gamma must be in (0, 1], got {self.gamma}")
        if self.schedule is not None and not _is_schedule(self.schedule):
            raise ValueError(
                "schedule must be (first factor, last factor, number of programs), the factors finite and "
                f">= 0, the number positive, got {self.schedule}"
            )

    def _check_order(self) -> None:
        if UNBOUNDED in np.abs(self._total):
            return
        best_fail, worst_pass = self.bounds(passed=False)[1], self.bounds(passed=True)[0]
        if not best_fail < worst_pass:
            raise ValueError(
                f"a failing program could earn {best_fail:g} and a passing one only {worst_pass:g}: "
                f"lower lambda_fail={self.lambda_fail} or cap={self.cap}"
            )


def _is_schedule(schedule: tuple[float, ...]) -> bool:
    return len(schedule) == 3 and all(0 <= value < UNBOUNDED for value in schedule) and schedule[2] > 0


def _times(weight: float, total: float) -> float:
    """The product, where no weight on no bound is nothing."""
    return weight * total if weight else 0.0
