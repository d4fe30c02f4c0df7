"""From answer lines to outcomes of tests; the only place where a value is called right."""

from dataclasses import dataclass
from typing import Any

from codegym.judge.codec import CodecError, decode
from codegym.verdict import Verdict


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """How one test ended."""

    verdict: Verdict
    message: str = ""
    line: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An exception in the candidate, as the candidate's process tells it: hostile text."""

    kind: str
    type_name: str
    text: str
    line: int | None

    def outcome(self) -> Outcome:
        """Return what this failure makes of a test."""
        if self.kind == "large":
            verdict = Verdict.OUTPUT_LIMIT
        elif self.kind == "unplain":
            verdict = Verdict.WRONG_ANSWER
        elif self.kind == "syntax":
            verdict = Verdict.SYNTAX_ERROR
        else:
            verdict = Verdict.MEMORY_LIMIT if self.type_name == "MemoryError" else Verdict.RUNTIME_ERROR
        return Outcome(verdict=verdict, message=self.text, line=self.line)


def read_failure(line: bytes) -> Failure:
    """Read an `E` line.

    Raises:
        CodecError: If it is none.
    """
    fields = decode(line[1:]) if line[:1] == b"E" else None
    if (
        type(fields) is not list
        or [type(field) for field in fields[:3]] != [str, str, str]
        or len(fields) != 4
    ):
        raise CodecError("not an answer line")
    number = fields[3] if type(fields[3]) is int and 0 < fields[3] < 2**31 else None
    return Failure(kind=fields[0], type_name=fields[1], text=fields[2], line=number)


def grade_answer(line: bytes, expected: bytes) -> Outcome:
    """Compare an answer line with the text of the expected value, by value and type."""
    # Equal canonical text is the same value of the same type: no need to build it.
    if line[:1] == b"V" and line[1:] == expected:
        return Outcome(verdict=Verdict.PASSED)
    try:
        if line[:1] != b"V":
            return read_failure(line).outcome()
        right = same(decode(line[1:]), decode(expected))
    except (CodecError, MemoryError) as error:
        return Outcome(verdict=Verdict.TAMPERED, message=f"an answer that is no answer: {error}")
    return (
        Outcome(verdict=Verdict.PASSED)
        if right
        else Outcome(verdict=Verdict.WRONG_ANSWER, message="wrong answer")
    )


def same(left: Any, right: Any) -> bool:
    """Whether two plain values are equal in value and type, all the way down. NaN is NaN, save in sets."""
    if type(left) is not type(right):
        return False
    if type(left) in (list, tuple):
        return len(left) == len(right) and all(map(same, left, right))
    if type(left) is dict:
        return _same_dict(left, right)
    if type(left) in (set, frozenset):
        return _same_set(left, right)
    if type(left) is complex:
        return same(left.real, right.real) and same(left.imag, right.imag)
    return bool(left == right or (left != left and right != right))


def _same_dict(left: dict[Any, Any], right: dict[Any, Any]) -> bool:
    if len(left) != len(right):
        return False
    keys = {key: key for key in right}
    return all(
        key in keys and same(key, keys[key]) and same(value, right[key]) for key, value in left.items()
    )


def _same_set(left: Any, right: Any) -> bool:
    if len(left) != len(right):
        return False
    members = {member: member for member in right}
    return all(member in members and same(member, members[member]) for member in left)


def same_output(actual: bytes, expected: bytes) -> bool:
    """Whether two texts agree as online judges see it: space at line ends and blank last lines aside."""
    return _lines(actual) == _lines(expected)


def _lines(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
