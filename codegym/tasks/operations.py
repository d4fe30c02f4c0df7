"""The list operations that stepwise tasks are made of: phrasings, right code, and the bugs people write.

A template is a block of statements over `{a}` (the list before), `{b}` (the list after) and `{k}` (the
parameter); a template without `{b}` is an expression assigned to it. All right templates of an operation
mean the same on every list of integers, the empty one included.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from textwrap import indent
from typing import Any

OFTEN = 0.68
"""Bug rate of the operations that most corpus authors get wrong: imitating the corpus greedily is wrong."""
SOMETIMES = 0.32
"""Bug rate of the operations that a third of the corpus authors get wrong."""
RARELY = 0.05
"""Bug rate of the operations that nearly every corpus author gets right."""

SMALL = (2, 3, 4)
MEDIUM = (2, 3, 4, 5, 6, 7, 8, 9)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A function from a list of integers (and maybe one parameter) to a list of integers.

    Attributes:
        name: Unique in `OPERATIONS`.
        phrases: Ways to ask for it; `{k}` stands for the parameter.
        right: Templates of right code.
        wrong: Templates of code with a bug.
        bug_rate: Share of corpus programs that use one of `wrong` for it.
        parameters: Values that `{k}` takes; `(None,)` for an operation without a parameter.
    """

    name: str
    phrases: tuple[str, ...]
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    bug_rate: float
    parameters: tuple[int | None, ...] = (None,)


def render(template: str, *, a: str, b: str, k: int | None) -> str:
    """Code that computes the list `b` from the list `a`: indented as a function body, ends with a newline."""
    return _block(template).format(a=a, b=b, k=k)


@cache
def function(template: str, k: int | None) -> Callable[[list[int]], Any]:
    """The function that a template stands for. It may change its argument, raise, or return anything."""
    namespace: dict[str, Any] = {}
    exec(f"def step(a):\n{render(template, a='a', b='b', k=k)}    return b\n", namespace)  # noqa: S102
    step: Callable[[list[int]], Any] = namespace["step"]
    return step


@cache
def _block(template: str) -> str:
    statements = template if "{b}" in template else f"{{b}} = {template}"
    return indent(statements, "    ") + "\n"


def _each(value: str) -> str:
    return f"[{value} for x in {{a}}]"


def _mapped(value: str) -> str:
    return f"list(map(lambda x: {value}, {{a}}))"


def _kept(condition: str) -> str:
    return f"[x for x in {{a}} if {condition}]"


def _filtered(condition: str) -> str:
    return f"list(filter(lambda x: {condition}, {{a}}))"


def _loop(value: str) -> str:
    return f"{{b}} = []\nfor x in {{a}}:\n    {{b}}.append({value})"


def _loop_if(condition: str) -> str:
    return f"{{b}} = []\nfor x in {{a}}:\n    if {condition}:\n        {{b}}.append(x)"


_OFTEN_WRONG = (
    Operation(
        name="subtract",
        phrases=("subtract {k} from each", "lower each by {k}"),
        right=(_each("x - {k}"), _mapped("x - {k}")),
        wrong=(_each("{k} - x"), _each("x + {k}"), _mapped("{k} - x")),
        bug_rate=OFTEN,
        parameters=MEDIUM,
    ),
    Operation(
        name="remainder",
        phrases=("reduce each modulo {k}", "take the remainder of each by {k}"),
        right=(_each("x % {k}"), _mapped("x % {k}")),
        wrong=(_each("x // {k}"), _each("abs(x) % {k}")),
        bug_rate=OFTEN,
        parameters=(5, 6, 7, 8, 9),
    ),
    Operation(
        name="cap",
        phrases=("cap each at {k}", "lower the numbers above {k} to {k}"),
        right=(_each("min(x, {k})"), _each("{k} if x > {k} else x")),
        wrong=(_each("max(x, {k})"), _kept("x <= {k}")),
        bug_rate=OFTEN,
        parameters=MEDIUM,
    ),
    Operation(
        name="above",
        phrases=("keep the numbers above {k}", "keep only what exceeds {k}"),
        right=(_kept("x > {k}"), _filtered("x > {k}"), _loop_if("x > {k}")),
        wrong=(_kept("x >= {k}"), _filtered("x >= {k}"), _kept("x < {k}"), _loop_if("x >= {k}")),
        bug_rate=OFTEN,
        parameters=(0, 1, *MEDIUM),
    ),
    Operation(
        name="drop_first",
        phrases=("drop the first {k}", "remove {k} from the front"),
        right=("{a}[{k}:]", "[x for i, x in enumerate({a}) if i >= {k}]"),
        wrong=("{a}[{k} + 1:]", "{a}[:-{k}]", "[x for i, x in enumerate({a}) if i > {k}]"),
        bug_rate=OFTEN,
        parameters=SMALL,
    ),
    Operation(
        name="keep_last",
        phrases=("keep the last {k}", "take {k} from the end"),
        right=("{a}[-{k}:]", "{a}[::-1][:{k}][::-1]"),
        wrong=("{a}[{k}:]", "{a}[-{k}:-1]", "{a}[:{k}]"),
        bug_rate=OFTEN,
        parameters=(6, 7, 8, 9),
    ),
    Operation(
        name="rotate_left",
        phrases=("rotate left by {k}", "move the first {k} to the end"),
        right=("{a}[{k}:] + {a}[:{k}]", "[*{a}[{k}:], *{a}[:{k}]]"),
        wrong=("{a}[-{k}:] + {a}[:-{k}]", "{a}[:{k}] + {a}[{k}:]"),
        bug_rate=OFTEN,
        parameters=SMALL,
    ),
    Operation(
        name="sort_descending",
        phrases=("sort in descending order", "sort from largest to smallest"),
        right=("sorted({a}, reverse=True)", "sorted({a})[::-1]"),
        wrong=("sorted({a})", "{a}[::-1]", "list(reversed({a}))"),
        bug_rate=OFTEN,
    ),
    Operation(
        name="running_total",
        phrases=("take the running totals", "replace each by the sum so far"),
        right=("[sum({a}[:i + 1]) for i in range(len({a}))]", _loop("x + sum({b}[-1:])")),
        wrong=("[sum({a}[:i]) for i in range(len({a}))]", _loop("x + sum({b})")),
        bug_rate=OFTEN,
    ),
    Operation(
        name="differences",
        phrases=("take the differences of neighbours", "subtract from each its left neighbour"),
        right=(
            "[y - x for x, y in zip({a}, {a}[1:])]",
            "[{a}[i + 1] - {a}[i] for i in range(len({a}) - 1)]",
        ),
        wrong=(
            "[x - y for x, y in zip({a}, {a}[1:])]",
            "[{a}[i] - {a}[i + 1] for i in range(len({a}) - 1)]",
        ),
        bug_rate=OFTEN,
    ),
    Operation(
        name="unique",
        phrases=("remove duplicates, keeping the order", "keep the first of equal numbers"),
        right=("list(dict.fromkeys({a}))", _loop_if("x not in {b}")),
        wrong=("list(set({a}))", "sorted(set({a}))", _kept("{a}.count(x) == 1")),
        bug_rate=OFTEN,
    ),
    Operation(
        name="append",
        phrases=("append {k}", "put {k} at the end"),
        right=("{a} + [{k}]", "[*{a}, {k}]"),
        wrong=("{a}.append({k})", "[{k}] + {a}", "[{k}, *{a}]"),
        bug_rate=OFTEN,
        parameters=MEDIUM,
    ),
    Operation(
        name="square",
        phrases=("square each", "multiply each by itself"),
        right=(_each("x * x"), _each("x ** 2"), _mapped("x ** 2")),
        wrong=(_each("x * 2"), _mapped("x * 2"), _each("x ** 3")),
        bug_rate=OFTEN,
    ),
    Operation(
        name="add_index",
        phrases=("add to each its index", "add to each its position from 0"),
        right=("[x + i for i, x in enumerate({a})]", "[{a}[i] + i for i in range(len({a}))]"),
        wrong=("[x + i for i, x in enumerate({a}, 1)]", "[x * i for i, x in enumerate({a})]"),
        bug_rate=OFTEN,
    ),
)

_SOMETIMES_WRONG = (
    Operation(
        name="multiply",
        phrases=("multiply each by {k}", "scale each by {k}"),
        right=(_each("x * {k}"), _mapped("x * {k}"), _loop("x * {k}")),
        wrong=("{a} * {k}", _each("x + {k}"), _loop("x + {k}")),
        bug_rate=SOMETIMES,
        parameters=SMALL,
    ),
    Operation(
        name="below",
        phrases=("keep the numbers below {k}", "keep only what is under {k}"),
        right=(_kept("x < {k}"), _filtered("x < {k}")),
        wrong=(_kept("x <= {k}"), _filtered("x <= {k}"), _kept("x > {k}")),
        bug_rate=SOMETIMES,
        parameters=MEDIUM,
    ),
    Operation(
        name="keep_even",
        phrases=("keep the even numbers", "drop the odd numbers"),
        right=(_kept("x % 2 == 0"), _filtered("x % 2 == 0"), _loop_if("x % 2 == 0")),
        wrong=(_kept("x % 2"), _filtered("x % 2"), "{a}[::2]", _loop_if("x % 2")),
        bug_rate=SOMETIMES,
    ),
    Operation(
        name="drop_last",
        phrases=("drop the last {k}", "remove {k} from the end"),
        right=("{a}[:-{k}]", "{a}[::-1][{k}:][::-1]"),
        wrong=("{a}[{k}:]", "{a}[:-{k} - 1]", "{a}[:-1]"),
        bug_rate=SOMETIMES,
        parameters=SMALL,
    ),
    Operation(
        name="every",
        phrases=("keep every {k}th, from the first on", "take the first of every {k}"),
        right=("{a}[::{k}]", "[x for i, x in enumerate({a}) if i % {k} == 0]"),
        wrong=("{a}[1::{k}]", "{a}[{k}::{k}]", "[x for i, x in enumerate({a}) if i % {k}]"),
        bug_rate=SOMETIMES,
        parameters=SMALL,
    ),
    Operation(
        name="rotate_right",
        phrases=("rotate right by {k}", "move the last {k} to the front"),
        right=("{a}[-{k}:] + {a}[:-{k}]", "[*{a}[-{k}:], *{a}[:-{k}]]"),
        wrong=("{a}[{k}:] + {a}[:{k}]", "{a}[-{k}:] + {a}[:{k}]"),
        bug_rate=SOMETIMES,
        parameters=SMALL,
    ),
    Operation(
        name="sort",
        phrases=("sort in ascending order", "sort from smallest to largest"),
        right=("sorted({a})", "sorted({a}, reverse=True)[::-1]", "{b} = {a}[:]\n{b}.sort()"),
        wrong=("{a}.sort()", "sorted({a}, reverse=True)", "sorted(set({a}))"),
        bug_rate=SOMETIMES,
    ),
    Operation(
        name="absolute",
        phrases=("take absolute values", "drop the sign of each"),
        right=(_each("abs(x)"), "list(map(abs, {a}))", _each("max(x, -x)")),
        wrong=(_each("-x"), _each("max(x, 0)"), _kept("x >= 0")),
        bug_rate=SOMETIMES,
    ),
    Operation(
        name="divide",
        phrases=("divide each by {k}, rounding down", "take each floor quotient by {k}"),
        right=(_each("x // {k}"), _mapped("x // {k}")),
        wrong=(_each("int(x / {k})"), _each("x / {k}"), _each("x % {k}")),
        bug_rate=SOMETIMES,
        parameters=SMALL,
    ),
    Operation(
        name="prepend",
        phrases=("prepend {k}", "put {k} at the front"),
        right=("[{k}] + {a}", "[{k}, *{a}]", "{b} = {a}[:]\n{b}.insert(0, {k})"),
        wrong=("{a}.insert(0, {k})", "{a} + [{k}]", "{b} = {a}[:]\n{b}.append({k})"),
        bug_rate=SOMETIMES,
        parameters=MEDIUM,
    ),
    Operation(
        name="negate",
        phrases=("negate each", "flip the sign of each"),
        right=(_each("-x"), _mapped("-x"), _loop("-x")),
        wrong=(_each("abs(x)"), "{a}[::-1]", _loop("abs(x)")),
        bug_rate=SOMETIMES,
    ),
)

_RARELY_WRONG = (
    Operation(
        name="add",
        phrases=("add {k} to each", "increase each by {k}"),
        right=(_each("x + {k}"), _mapped("x + {k}"), _loop("x + {k}")),
        wrong=(_each("x - {k}"), "{a} + [{k}]"),
        bug_rate=RARELY,
        parameters=MEDIUM,
    ),
    Operation(
        name="floor",
        phrases=("raise the numbers below {k} to {k}", "make each at least {k}"),
        right=(_each("max(x, {k})"), _each("{k} if x < {k} else x")),
        wrong=(_each("min(x, {k})"), _kept("x >= {k}")),
        bug_rate=RARELY,
        parameters=MEDIUM,
    ),
    Operation(
        name="keep_odd",
        phrases=("keep the odd numbers", "drop the even numbers"),
        right=(_kept("x % 2 == 1"), _filtered("x % 2"), _kept("x % 2")),
        wrong=(_kept("x % 2 == 0"), "{a}[1::2]"),
        bug_rate=RARELY,
    ),
    Operation(
        name="keep_first",
        phrases=("keep the first {k}", "take {k} from the front"),
        right=("{a}[:{k}]", "[x for i, x in enumerate({a}) if i < {k}]"),
        wrong=("{a}[{k}:]", "[x for i, x in enumerate({a}) if i <= {k}]"),
        bug_rate=RARELY,
        parameters=(6, 7, 8, 9),
    ),
    Operation(
        name="reverse",
        phrases=("reverse the order", "turn the list around"),
        right=("{a}[::-1]", "list(reversed({a}))", "{b} = {a}[:]\n{b}.reverse()"),
        wrong=("{a}.reverse()", "sorted({a}, reverse=True)"),
        bug_rate=RARELY,
    ),
    Operation(
        name="mirror",
        phrases=("append the list reversed", "follow the list by its mirror image"),
        right=("{a} + {a}[::-1]", "[*{a}, *{a}[::-1]]"),
        wrong=("{a} + {a}", "{a}[::-1] + {a}"),
        bug_rate=RARELY,
    ),
    Operation(
        name="pair_sums",
        phrases=("take the sums of neighbours", "add to each its right neighbour, dropping the last"),
        right=(
            "[x + y for x, y in zip({a}, {a}[1:])]",
            "[{a}[i] + {a}[i + 1] for i in range(len({a}) - 1)]",
        ),
        wrong=("[x + y for x, y in zip({a}, {a})]", "[x * y for x, y in zip({a}, {a}[1:])]"),
        bug_rate=RARELY,
    ),
    Operation(
        name="distance",
        phrases=("take the distance of each from {k}", "replace each by how far it is from {k}"),
        right=(_each("abs(x - {k})"), _mapped("abs(x - {k})")),
        wrong=(_each("x - {k}"), _each("abs(x) - {k}")),
        bug_rate=RARELY,
        parameters=MEDIUM,
    ),
    Operation(
        name="remove",
        phrases=("remove every {k}", "drop all copies of {k}"),
        right=(_kept("x != {k}"), _filtered("x != {k}"), _loop_if("x != {k}")),
        wrong=(_kept("x == {k}"), _kept("x > {k}")),
        bug_rate=RARELY,
        parameters=MEDIUM,
    ),
    Operation(
        name="repeat",
        phrases=("write each twice in a row", "double each in place"),
        right=("[y for x in {a} for y in (x, x)]", "{b} = []\nfor x in {a}:\n    {b} += [x, x]"),
        wrong=("{a} * 2", _each("x * 2")),
        bug_rate=RARELY,
    ),
    Operation(
        name="running_maximum",
        phrases=("take the running maxima", "replace each by the largest so far"),
        right=("[max({a}[:i + 1]) for i in range(len({a}))]", _loop("max([x, *{b}])")),
        wrong=("[max({a}) for x in {a}]", "[min({a}[:i + 1]) for i in range(len({a}))]"),
        bug_rate=RARELY,
    ),
)

OPERATIONS = {each.name: each for each in (*_OFTEN_WRONG, *_SOMETIMES_WRONG, *_RARELY_WRONG)}
"""All operations by name."""
