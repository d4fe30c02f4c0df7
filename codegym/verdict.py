"""What the judge says about a program."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """The category of a judgement; every one of them is the program's own doing."""

    PASSED = "passed"
    WRONG_ANSWER = "wrong_answer"
    RUNTIME_ERROR = "runtime_error"
    SYNTAX_ERROR = "syntax_error"
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    TAMPERED = "tampered"


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """The full record of judging one program.

    Attributes:
        verdict: The category; `passed` only if every test passed.
        results: One flag per test of the task, in order; tests never reached count as False.
        error_line: 1-based line of the judged module that raised or does not parse, where known.
        message: One line for people, cut to a bounded length; hostile text.
        cpu_s: CPU seconds the candidate used.
        wall_s: Wall seconds from handing the program over to its verdict.
        tier: Isolation in force: 0 portable, 1 seccomp and Landlock, 2 + namespaces, 3 + cgroup v2.
    """

    verdict: Verdict
    results: tuple[bool, ...]
    error_line: int | None = None
    message: str = ""
    cpu_s: float = 0.0
    wall_s: float = 0.0
    tier: int = 0

    @property
    def tests_passed(self) -> int:
        """How many tests passed."""
        return sum(self.results)

    @property
    def tests_total(self) -> int:
        """How many tests the task has."""
        return len(self.results)

    @property
    def passed(self) -> bool:
        """Whether every test passed."""
        return self.verdict is Verdict.PASSED
