"""A programming problem with its tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTest:
    """Call the entry point with plain data and compare what it returns, by value and type."""

    args: tuple[Any, ...]
    expected: Any


@dataclass(frozen=True, kw_only=True, slots=True)
class StdioTest:
    """Run the program with `stdin` and compare its whole standard output with `stdout`."""

    stdin: str
    stdout: str


@dataclass(frozen=True, kw_only=True, slots=True)
class AssertionTest:
    """Trusted test source, run on the trusted side; the entry point's name is bound to the candidate.

    If `code` defines `check`, it is called as `check(candidate)` (HumanEval's form).
    """

    code: str


TestCase: TypeAlias = CallTest | StdioTest | AssertionTest


@dataclass(frozen=True, kw_only=True)
class Task:
    """One problem: what the agent reads, what the judge runs.

    Attributes:
        task_id: Unique within its source, for example "HumanEval/0".
        prompt: What the agent sees first. Ends with a newline if it is code.
        entry_point: The function that the tests call; None for programs that read stdin.
        tests: Hidden checks; a task without any cannot be judged.
        split: "train", "validation" or "test".
        reference: A right completion, the lines an agent would write after the prompt, or None.
        prompt_is_code: Whether the judged module starts with the prompt.
        metadata: Plain JSON data: provenance, difficulty, and what a source documents.
    """

    task_id: str
    prompt: str
    entry_point: str | None
    tests: tuple[TestCase, ...]
    split: str = "train"
    reference: str | None = None
    prompt_is_code: bool = True
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def assemble(self, completion: str) -> str:
        """Return the whole module that is judged: prompt + completion where the prompt is code."""
        return self.prompt + completion if self.prompt_is_code else completion
