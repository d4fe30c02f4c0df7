"""From answer lines to outcomes of tests; the only place where a value is called right."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from math import isfinite
from typing import Any

from codegym.judge.codec import CodecError, decode, encode
from codegym.verdict import Verdict

# First byte of an expectation that is not "exact"; no canonical text begins with one of them.
_MARKS = {"exact": b"", "equal": b"~", "boxed": b"?"}
_NUMBER = re.compile(rb"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,6})?", re.IGNORECASE)
_INTEGER = re.compile(rb"[+-]?\d+")


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


def expectation(value: Any, comparison: str) -> bytes:
    """Return the line that `grade_answer` takes: what is expected, and how to compare with it.

    Raises:
        CodecError: If the value is not plain data.
    """
    return _MARKS[comparison] + encode(value)


def grade_answer(line: bytes, expected: bytes) -> Outcome:
    """Compare an answer line with an expectation."""
    agree = _LENIENT.get(expected[:1], same)
    expected = expected if agree is same else expected[1:]
    # Equal canonical text is the same value of the same type: no need to build it.
    if line[:1] == b"V" and line[1:] == expected:
        return Outcome(verdict=Verdict.PASSED)
    try:
        if line[:1] != b"V":
            return read_failure(line).outcome()
        right = agree(decode(line[1:]), decode(expected))
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


def equal(left: Any, right: Any) -> bool:
    """Whether two plain values are equal as JSON and == have it: tuples are lists, and 1 == 1.0 == True."""
    return bool(_listed(left) == _listed(right))


def _equal_or_item(left: Any, right: Any) -> bool:
    return equal(left, right) or (type(right) is list and len(right) == 1 and equal(left, right[0]))


_LENIENT = {_MARKS["equal"]: equal, _MARKS["boxed"]: _equal_or_item}


def _listed(value: Any) -> Any:
    if type(value) in (list, tuple):
        return [_listed(item) for item in value]
    if type(value) is dict:
        return {key: _listed(item) for key, item in value.items()}
    return value


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


def same_output(actual: bytes, expected: bytes, comparison: str = "lines") -> bool:
    """Whether two texts agree, by one of `codegym.task.OUTPUT_COMPARISONS`."""
    if _lines(actual) == _lines(expected):
        return True
    if comparison == "decimals":
        return _agree(actual.strip().split(b"\n"), expected.strip().split(b"\n"), _same_decimals)
    if comparison == "numbers":
        # The tolerances of APPS, which are those of numpy.allclose.
        same_words = partial(_same_words, absolute=1e-8, relative=1e-5)
        return _agree(_filled_lines(actual), _filled_lines(expected), same_words)
    return comparison == "tokens" and _same_words(actual.lower(), expected.lower(), absolute=1e-5)


def _agree(left: Sequence[bytes], right: Sequence[bytes], same_part: Callable[[bytes, bytes], bool]) -> bool:
    return len(left) == len(right) and all(map(same_part, left, right))


def _same_decimals(left: bytes, right: bytes) -> bool:
    return left.strip() == right.strip() or _agree(left.split(), right.split(), _same_decimal)


def _same_decimal(left: bytes, right: bytes) -> bool:
    return bool(
        _NUMBER.fullmatch(left)
        and _NUMBER.fullmatch(right)
        and Decimal(left.decode()) == Decimal(right.decode())
    )


def _same_words(left: bytes, right: bytes, *, absolute: float, relative: float = 0.0) -> bool:
    same_word = partial(_same_word, absolute=absolute, relative=relative)
    return _agree(left.split(), right.split(), same_word)


def _same_word(left: bytes, right: bytes, *, absolute: float, relative: float) -> bool:
    """Whether two words are equal, or numbers of the same value; fractions to a tolerance."""
    if left == right or _same_decimal(left, right):
        return True
    if not (_NUMBER.fullmatch(left) and _NUMBER.fullmatch(right)):
        return False
    if _INTEGER.fullmatch(left) and _INTEGER.fullmatch(right):
        return False
    actual, wanted = float(left), float(right)
    # Beyond what a float holds, a difference says nothing.
    finite = isfinite(actual) and isfinite(wanted)
    return finite and abs(actual - wanted) <= absolute + relative * abs(wanted)


def _filled_lines(text: bytes) -> list[bytes]:
    return [line for line in text.split(b"\n") if line.strip()]


def _lines(text: bytes) -> list[bytes]:
    lines = [line.rstrip() for line in text.split(b"\n")]
    while lines and not lines[-1]:
        lines.pop()
    return lines
