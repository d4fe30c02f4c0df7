"""A programming problem with its tests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from codegym.table import check_name

CALL_COMPARISONS = {
    "exact": "by value and type",
    "equal": "as == has it, with tuples as lists: for expectations that come from JSON",
    "boxed": "equal to what is expected, a list of one item, or to that item: some data sets box outputs",
}
"""How a call test compares what the program returns with what is expected."""

OUTPUT_COMPARISONS = {
    "lines": "line by line; space at line ends and blank last lines aside",
    "decimals": "line by line without outer space; a line of decimal numbers by their exact values",
    "numbers": "lines that are not blank, word by word; fractions within 1e-5 of their value",
    "tokens": "word by word, whatever the lines and the case; fractions within 1e-5",
}
"""How a stdio test compares what the program prints with what is expected."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CallTest:
    """Call the entry point with plain data and compare what it returns, by one of `CALL_COMPARISONS`.

    Raises:
        UnknownNameError: If there is no such comparison.
    """

    args: tuple[Any, ...]
    expected: Any
    comparison: str = "exact"

    def __post_init__(self) -> None:
        check_name(self.comparison, CALL_COMPARISONS, "comparison of values")


@dataclass(frozen=True, kw_only=True, slots=True)
class StdioTest:
    """Run the program with `stdin`; compare all it prints with `stdout`, by one of `OUTPUT_COMPARISONS`.

    Raises:
        UnknownNameError: If there is no such comparison.
    """

    stdin: str
    stdout: str
    comparison: str = "lines"

    def __post_init__(self) -> None:
        check_name(self.comparison, OUTPUT_COMPARISONS, "comparison of outputs")


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
        entry_point: The function that the tests call, or "Class.method" for a method of an instance that is
            made for each call; None for programs that read stdin.
        tests: Hidden checks; a task without any cannot be judged.
        split: "train", "validation" or "test"; "prompt" for few-shot examples.
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
