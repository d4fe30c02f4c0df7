"""The operations' table: right templates agree, wrong ones do not, and rendering is legal Python."""

import ast
import re
from collections import Counter
from string import Formatter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym.tasks.operations import OFTEN, OPERATIONS, RARELY, SOMETIMES, Operation, function, render

LISTS = st.lists(st.integers(-30, 30), max_size=20)

MEANING: dict[str, Any] = {
    "subtract": lambda a, k: [x - k for x in a],
    "remainder": lambda a, k: [x % k for x in a],
    "cap": lambda a, k: [min(x, k) for x in a],
    "above": lambda a, k: [x for x in a if x > k],
    "drop_first": lambda a, k: a[k:],
    "keep_last": lambda a, k: a[max(0, len(a) - k) :],
    "rotate_left": lambda a, k: a[k:] + a[:k],
    "sort_descending": lambda a, k: sorted(a, key=lambda x: -x),
    "unique": lambda a, k: [x for i, x in enumerate(a) if x not in a[:i]],
    "append": lambda a, k: [*a, k],
    "square": lambda a, k: [x * x for x in a],
    "add_index": lambda a, k: [a[i] + i for i in range(len(a))],
    "multiply": lambda a, k: [k * x for x in a],
    "below": lambda a, k: [x for x in a if x < k],
    "keep_even": lambda a, k: [x for x in a if x % 2 == 0],
    "drop_last": lambda a, k: a[: max(0, len(a) - k)],
    "every": lambda a, k: [a[i] for i in range(0, len(a), k)],
    "sort": lambda a, k: sorted(a),
    "absolute": lambda a, k: [abs(x) for x in a],
    "divide": lambda a, k: [x // k for x in a],
    "prepend": lambda a, k: [k, *a],
    "negate": lambda a, k: [0 - x for x in a],
    "add": lambda a, k: [x + k for x in a],
    "floor": lambda a, k: [max(x, k) for x in a],
    "keep_odd": lambda a, k: [x for x in a if x % 2 == 1],
    "keep_first": lambda a, k: a[:k],
    "reverse": lambda a, k: a[::-1],
    "mirror": lambda a, k: a + a[::-1],
    "distance": lambda a, k: [abs(k - x) for x in a],
    "remove": lambda a, k: [x for x in a if x != k],
}

BY_HAND = [
    ("running_total", None, [3, -1, 4], [3, 2, 6]),
    ("differences", None, [3, -1, 4], [-4, 5]),
    ("pair_sums", None, [3, -1, 4], [2, 3]),
    ("running_maximum", None, [3, -1, 4, 2], [3, 3, 4, 4]),
    ("repeat", None, [3, -1], [3, 3, -1, -1]),
    ("rotate_right", 2, [1, 2, 3, 4], [3, 4, 1, 2]),
    ("rotate_left", 3, [1, 2, 3, 4], [4, 1, 2, 3]),
    ("every", 3, [1, 2, 3, 4, 5], [1, 4]),
    ("divide", 2, [-3, 3], [-2, 1]),
    ("remainder", 5, [-3, 7], [2, 2]),
    ("unique", None, [3, 1, 3, 1, 2], [3, 1, 2]),
]

operations = pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)


def outcome(template: str, k: int | None, numbers: list[int]) -> Any:
    try:
        return function(template, k)(list(numbers))
    except (TypeError, IndexError, ValueError) as error:
        return repr(error)


@operations
@given(numbers=LISTS, data=st.data())
@settings(max_examples=30)
def test_all_right_templates_mean_the_same_on_every_list(
    operation: Operation, numbers: list[int], data: st.DataObject
):
    k = data.draw(st.sampled_from(operation.parameters))
    first, *others = [outcome(template, k, numbers) for template in operation.right]
    assert isinstance(first, list)
    assert all(type(number) is int for number in first)
    assert others == [first] * len(others)


@pytest.mark.parametrize("name", MEANING)
@given(numbers=LISTS, data=st.data())
@settings(max_examples=30)
def test_right_code_does_what_its_name_says(name: str, numbers: list[int], data: st.DataObject):
    k = data.draw(st.sampled_from(OPERATIONS[name].parameters))
    assert outcome(OPERATIONS[name].right[0], k, numbers) == MEANING[name](numbers, k)


@pytest.mark.parametrize(("name", "k", "before", "after"), BY_HAND)
def test_right_code_on_hand_computed_lists(name: str, k: int | None, before: list[int], after: list[int]):
    for template in OPERATIONS[name].right:
        assert outcome(template, k, before) == after


def test_every_operation_is_checked_against_a_second_opinion():
    assert set(OPERATIONS) == set(MEANING) | {name for name, *_ in BY_HAND}


@operations
def test_every_wrong_template_is_wrong_on_some_list_for_every_parameter(operation: Operation):
    lists = [[(7 * i * i + 3 * i * start) % 25 - 9 for i in range(10 + start % 7)] for start in range(40)]
    for k in operation.parameters:
        for template in operation.wrong:
            assert any(
                outcome(template, k, numbers) != outcome(operation.right[0], k, numbers) for numbers in lists
            ), (template, k)


@operations
def test_right_code_leaves_the_list_before_unchanged(operation: Operation):
    for template in operation.right:
        numbers = [5, -3, 8, 8, 0, 2]
        function(template, operation.parameters[0])(numbers)
        assert numbers == [5, -3, 8, 8, 0, 2]


@operations
def test_rendered_code_binds_the_new_variable_first_and_reads_only_the_old_one(operation: Operation):
    for template in (*operation.right, *operation.wrong):
        code = render(template, a="v4", b="v5", k=operation.parameters[0])
        assert code.endswith("\n")
        assert all(line.startswith("    ") for line in code.splitlines())
        assert code.startswith("    v5 = ")
        assert set(re.findall(r"\bv\d+\b", code)) <= {"v4", "v5"}
        ast.parse(f"def solve(v4):\n{code}")


@operations
def test_templates_and_phrases_use_the_parameter_exactly_where_there_is_one(operation: Operation):
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in Formatter().parse(text) if name is not None}

    has_parameter = operation.parameters != (None,)
    assert all(("k" in fields(phrase)) == has_parameter for phrase in operation.phrases)
    assert all(fields(template) <= {"a", "b", "k"} for template in (*operation.right, *operation.wrong))
    if not has_parameter:
        assert not any("k" in fields(template) for template in (*operation.right, *operation.wrong))


@operations
def test_no_template_is_both_right_and_wrong_and_none_occurs_twice(operation: Operation):
    templates = (*operation.right, *operation.wrong)
    assert len(set(templates)) == len(templates)
    assert len(operation.right) >= 2
    assert len(operation.wrong) >= 2


def test_no_two_operations_share_a_phrase():
    asked = Counter(
        phrase.format(k=k)
        for operation in OPERATIONS.values()
        for phrase in operation.phrases
        for k in operation.parameters
    )
    assert [phrase for phrase, count in asked.items() if count > 1] == []


def test_the_table_is_as_large_and_as_buggy_as_documented():
    assert len(OPERATIONS) == 36
    assert sum(operation.parameters != (None,) for operation in OPERATIONS.values()) >= 20
    rates = Counter(operation.bug_rate for operation in OPERATIONS.values())
    assert rates == {OFTEN: 14, SOMETIMES: 11, RARELY: 11}
    assert OFTEN > 0.5 > SOMETIMES > RARELY > 0


def test_some_code_takes_several_lines():
    blocks = [template for each in OPERATIONS.values() for template in each.right if "\n" in template]
    assert len(blocks) >= 8
