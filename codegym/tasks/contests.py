"""What collections of contest problems share: tests as inputs and outputs, a choice among solutions."""

from collections.abc import Sequence
from typing import Any

from codegym.judge.codec import encode
from codegym.task import CallTest, StdioTest, Task, TestCase
from codegym.tasks.prompts import entry_point, is_python, problem_prompt, whole_lines
from codegym.tasks.rows import Row, shown


def input_output_task(row: Row, *, task_id: str, licence: str, max_tests: int | None, **about: Any) -> Task:
    """Make a task of a row as APPS and TACO have it: question, input_output, solutions, starter_code.

    `input_output` is JSON: inputs, outputs, and for tests by call fn_name. Values of calls are compared as
    `equal` or `boxed`, printed text as `numbers` (see `codegym.task`). The collections' own runners take some
    more: the words of a line, and the lines, in any order, and long integers to the precision of a float.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    pairs = row.json("input_output", dict)
    solutions = [text for text in row.json("solutions", list, []) if isinstance(text, str)]
    starter = row.get("starter_code", str, "")
    function = pairs.get("fn_name")
    inputs, outputs = pairs.get("inputs"), pairs.get("outputs")
    if not (isinstance(inputs, list) and isinstance(outputs, list) and len(inputs) == len(outputs)):
        raise row.error("input_output", "expected lists inputs and outputs of the same length")
    if not inputs:
        raise row.error("input_output", "there are no tests")
    entry = None
    if function is not None:
        shown = starter if starter.strip() else "".join(solutions[:1])
        entry = entry_point(row, "input_output", function, shown)
    tests = _call_tests(row, inputs, outputs) if entry else _stdio_tests(row, inputs, outputs)
    return Task(
        task_id=task_id,
        prompt=problem_prompt(row.get("question", str), starter, imports=entry is not None),
        entry_point=entry,
        tests=longest(tests, max_tests),
        split=row.file_split or "train",
        reference=first_python(solutions),
        metadata=row.metadata(licence=licence, n_solutions=len(solutions), **about),
    )


def _call_tests(row: Row, inputs: list[Any], outputs: list[Any]) -> list[TestCase]:
    if wrong := [args for args in inputs if not isinstance(args, list)]:
        raise row.error("input_output", f"expected a list of arguments, got {shown(wrong[0])}")
    # Some problems put each output in a list of its own, some do not, and nothing says which.
    boxed = all(isinstance(output, list) and len(output) == 1 for output in outputs)
    return [
        CallTest(
            args=tuple(map(with_numbers_as_keys, args)),
            expected=[with_numbers_as_keys(output[0])] if boxed else with_numbers_as_keys(output),
            comparison="boxed" if boxed else "equal",
        )
        for args, output in zip(inputs, outputs, strict=True)
    ]


def _stdio_tests(row: Row, inputs: list[Any], outputs: list[Any]) -> list[TestCase]:
    return [
        StdioTest(stdin=_text(row, given), stdout=_text(row, wanted), comparison="numbers")
        for given, wanted in zip(inputs, outputs, strict=True)
    ]


def _text(row: Row, value: Any) -> str:
    lines = value if isinstance(value, list) else [value]
    if not all(isinstance(line, str) for line in lines):
        raise row.error("input_output", f"expected a text or a list of lines, got {shown(value)}")
    return "\n".join(lines)


def with_numbers_as_keys(value: Any) -> Any:
    """A dict whose keys are all written numbers with the numbers as keys, which JSON cannot have."""
    if isinstance(value, dict) and value and all(_is_integer(key) for key in value):
        return {int(key): item for key, item in value.items()}
    return value


def _is_integer(key: str) -> bool:
    return key.removeprefix("-").isdecimal()


def first_python(solutions: Sequence[str]) -> str | None:
    """The first solution that this Python can parse, or None: not all of them are of its version."""
    return next((whole_lines(text) for text in solutions if text.strip() and is_python(text)), None)


def longest(tests: Sequence[TestCase], limit: int | None) -> tuple[TestCase, ...]:
    """All tests, or the `limit` ones with the longest inputs (as DeepCoder chose them), in their order.

    Raises:
        ValueError: If `limit` is less than 1.
    """
    if limit is None:
        return tuple(tests)
    if limit < 1:
        raise ValueError(f"max_tests must be at least 1, got {limit}")
    by_length = sorted(range(len(tests)), key=lambda place: -_input_length(tests[place]))
    return tuple(tests[place] for place in sorted(by_length[:limit]))


def _input_length(test: TestCase) -> int:
    match test:
        case StdioTest():
            return len(test.stdin)
        case CallTest():
            return len(encode(list(test.args)))
    return len(test.code)
