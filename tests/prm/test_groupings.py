import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym import CallTest, Task, Verdict
from prm.groupings import (
    by_horizon,
    by_policy,
    by_position,
    by_verdict,
    doubling_range,
    horizon,
    in_natural_order,
)
from prm.program import LabeledProgram, SampledProgram


def labeled(task_id: str = "t", *, n_lines: int = 1) -> LabeledProgram:
    return LabeledProgram(
        program=SampledProgram(
            program_id="p",
            task_id=task_id,
            policy="baseline/step-6",
            prompt_ids=(1,),
            token_ids=(2,) * n_lines,
            completion="x\n" * n_lines,
            finished=False,
            verdict=Verdict.TIME_LIMIT,
            results=(False,),
        ),
        labels=(1.0,) * n_lines,
        source="scripted",
    )


def task(task_id: str = "t", reference: str | None = None, **metadata: object) -> Task:
    return Task(
        task_id=task_id,
        prompt="def f():\n",
        entry_point="f",
        tests=(CallTest(args=(), expected=1),),
        reference=reference,
        metadata=metadata,
    )


def test_programs_are_grouped_by_who_wrote_them_and_what_the_judge_said() -> None:
    assert by_policy(labeled()) == "baseline/step-6"
    assert by_verdict(labeled()) == "time_limit"


def test_lines_are_grouped_by_their_number() -> None:
    assert by_position(labeled(n_lines=6)) == ["1", "2", "3-4", "3-4", "5-8", "5-8"]


def test_a_horizon_is_stated_or_else_counted_on_the_reference() -> None:
    assert horizon(task(horizon=7, reference="    return 1\n")) == 7
    assert horizon(task(reference="    # one\n    a = 1\n\n    return a\n")) == 2
    assert horizon(task()) == 0


def test_programs_are_grouped_by_the_horizon_of_their_task() -> None:
    tasks = {"a": task("a", horizon=3), "b": task("b", horizon=12), "c": task("c")}
    group = by_horizon(tasks)
    assert [group(labeled(name)) for name in "abcd"] == ["3-4", "9-16", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("number", "name"), [(1, "1"), (2, "2"), (3, "3-4"), (4, "3-4"), (5, "5-8"), (9, "9-16"), (17, "17-32")]
)
def test_ranges_double(number: int, name: str) -> None:
    assert doubling_range(number) == name


@given(st.integers(1, 10**6))
def test_a_range_holds_its_number_and_ends_at_twice_what_came_before_it(number: int) -> None:
    low, _, high = doubling_range(number).partition("-")
    assert int(low) <= number <= int(high or low)
    assert number == 1 or int(high or low) == 2 * (int(low) - 1)


@pytest.mark.parametrize("number", [0, -3])
def test_what_is_not_positive_has_no_range(number: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, got {number}"):
        doubling_range(number)


def test_numbers_in_names_are_compared_as_numbers() -> None:
    assert in_natural_order(["17-32", "3-4", "unknown", "9-16", "1"]) == [
        "1",
        "3-4",
        "9-16",
        "17-32",
        "unknown",
    ]
    assert in_natural_order(["b/step-10", "b/step-9", "a"]) == ["a", "b/step-9", "b/step-10"]


@given(st.lists(st.text("a1²٣0-", max_size=5)))
def test_any_names_can_be_ordered(names: list[str]) -> None:
    assert sorted(in_natural_order(names)) == sorted(names)
