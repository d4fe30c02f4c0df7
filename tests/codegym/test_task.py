"""Tasks, test cases and judgements: frozen values."""

import dataclasses

import pytest

from codegym import AssertionTest, CallTest, Judgement, StdioTest, Task, Verdict


def test_assembling_puts_the_prompt_first_only_where_it_is_code():
    code = Task(task_id="a", prompt="def f():\n", entry_point="f", tests=())
    prose = dataclasses.replace(code, prompt="Write f.\n", prompt_is_code=False)
    assert code.assemble("    return 1\n") == "def f():\n    return 1\n"
    assert prose.assemble("def f(): return 1\n") == "def f(): return 1\n"


def test_a_task_is_frozen_and_keyword_only():
    task = Task(task_id="a", prompt="", entry_point=None, tests=(StdioTest(stdin="", stdout=""),))
    with pytest.raises(dataclasses.FrozenInstanceError):
        task.prompt = "x"
    with pytest.raises(TypeError):
        Task("a", "", None, ())
    assert (task.split, task.reference, task.metadata) == ("train", None, {})


@pytest.mark.parametrize(
    "test",
    [CallTest(args=(1,), expected=2), StdioTest(stdin="1", stdout="2"), AssertionTest(code="assert True")],
)
def test_test_cases_are_frozen_values(test):
    assert test == dataclasses.replace(test)
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(test, dataclasses.fields(test)[0].name, "x")


def test_a_judgement_counts_its_tests():
    judgement = Judgement(verdict=Verdict.WRONG_ANSWER, results=(True, False, True))
    assert (judgement.tests_passed, judgement.tests_total, judgement.passed) == (2, 3, False)


def test_only_the_verdict_makes_a_pass():
    assert Judgement(verdict=Verdict.PASSED, results=(True,)).passed
    assert not Judgement(verdict=Verdict.TAMPERED, results=(True,)).passed


def test_verdicts_read_as_their_names():
    assert [str(verdict) for verdict in Verdict] == [
        "passed",
        "wrong_answer",
        "runtime_error",
        "syntax_error",
        "time_limit",
        "memory_limit",
        "output_limit",
        "tampered",
    ]
    assert Verdict("time_limit") is Verdict.TIME_LIMIT
