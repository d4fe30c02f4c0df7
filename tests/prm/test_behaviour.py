import pytest

from codegym import AssertionTest, CallTest, StdioTest, Task, make_judge
from codegym.testing import ScriptedJudge, judgement
from prm.behaviour import N_BITS, inputs_of, observe


@pytest.fixture(scope="module")
def judge():
    with make_judge("local", workers=1, time_limit_s=0.5) as judge:
        yield judge


def call_task(*calls, expected=0, entry_point="f", prompt="def f(x):\n"):
    tests = tuple(CallTest(args=args, expected=expected) for args in calls)
    return Task(task_id="t", prompt=prompt, entry_point=entry_point, tests=tests)


DOUBLE = call_task((1,), (2,), (-3,))


def seen(judge, task, *completions):
    return observe(judge, [(task, completion) for completion in completions])


def test_programs_that_give_the_same_are_the_same_however_they_are_written(judge):
    plain, shifted, other = seen(
        judge,
        DOUBLE,
        "    return 2 * x\n",
        "    y = x\n    # doubled\n    return y + y\n",
        "    return x * x\n",
    )
    assert plain == shifted
    assert plain != other
    assert 0 <= plain < 2**N_BITS


def test_what_is_expected_is_not_looked_at(judge):
    right, wrong = call_task((1,), expected=2), call_task((1,), expected=9)
    assert seen(judge, right, "    return 2 * x\n") == seen(judge, wrong, "    return 2 * x\n")


def test_values_of_other_types_are_other_values(judge):
    found = seen(
        judge,
        call_task((1,)),
        *(f"    return {value}\n" for value in ("1", "1.0", "True", "'1'", "[1]", "(1,)")),
    )
    assert len(set(found)) == 6


def test_the_order_of_sets_and_dicts_says_nothing(judge):
    task = call_task((1,))
    for one, other in (
        ("{'a', 'b', 'c', 'dd'}", "{'dd', 'c', 'b', 'a'}"),
        ("{'a': 1, 'b': {2, 3}}", "{'b': {3, 2}, 'a': 1}"),
    ):
        assert len(set(seen(judge, task, f"    return {one}\n", f"    return {other}\n"))) == 1
    assert len(set(seen(judge, task, "    return [1, 2]\n", "    return [2, 1]\n"))) == 2


def test_the_addresses_of_values_say_nothing(judge):
    completions = [
        f"    return {value}\n" for value in ("object()", "(i for i in [x])", "lambda: x", "[iter([])]")
    ]
    with make_judge("local", workers=1) as elsewhere:  # its processes have other addresses
        assert seen(elsewhere, DOUBLE, *completions) == seen(judge, DOUBLE, *completions)


def test_text_that_looks_like_an_address_is_text(judge):
    assert len(set(seen(judge, DOUBLE, "    return ' at 0x1'\n", "    return ' at 0x2'\n"))) == 2


def test_raising_on_some_inputs_is_behaviour_and_raising_on_all_is_none(judge):
    fails = "    return 6 // (x - 1)\n"
    some, kind, every = seen(
        judge,
        DOUBLE,
        fails,
        "    if x == 1:\n        raise KeyError(x)\n    return 6 // (x - 1)\n",
        "    raise KeyError(x)\n",
    )
    assert None not in (some, kind)
    assert some != kind
    assert every is None


@pytest.mark.parametrize(
    "completion",
    [
        "    return (\n",
        "    while True:\n        pass\n",
        "    import os\n    os._exit(0)\n",
        "\nraise SystemExit\n",
        "\ndel f\n",
        "    return undefined\n",
        "    return 1 \ud800\n",
    ],
)
def test_programs_that_break_have_no_vote_and_disturb_nobody(judge, completion):
    broken, fine = seen(judge, DOUBLE, completion, "    return 2 * x\n")
    assert broken is None
    assert fine is not None


@pytest.mark.parametrize(
    "completion",
    [
        "    import sys\n    sys.modules.clear()\n    return x\n",
        "    x = object()\n    return x\n",
        "    class Liar:\n        def __repr__(self):\n            raise SystemExit\n    return Liar()\n",
        "    print('noise' * 1000)\n    return 10 ** 5000\n",
        "    l = []\n    l.append(l)\n    return l\n",
    ],
)
def test_hostile_values_have_some_fingerprint_or_none_and_the_same_one_every_time(judge, completion):
    first, second = seen(judge, DOUBLE, completion, completion + "    # again\n")
    assert first == second


def test_a_program_keeps_its_state_between_calls_as_in_its_tests(judge):
    counting = "    global n\n    n = globals().get('n', 0) + 1\n    return n\n"
    listed = "    return {1: 1, 2: 2, -3: 3}[x]\n"
    assert len(set(seen(judge, DOUBLE, counting, listed))) == 1


def test_methods_are_called_on_an_instance(judge):
    task = call_task((2,), entry_point="Solution.double", prompt="class Solution:\n")
    by_sum, by_product = seen(
        judge,
        task,
        "    def double(self, x):\n        return x + x\n",
        "    def double(self, x):\n        return 2 * x\n",
    )
    assert by_sum == by_product is not None


def test_programs_that_read_stdin_are_told_apart_by_what_they_print(judge):
    tests = (StdioTest(stdin="3\n4\n", stdout=""), StdioTest(stdin="5\n6\n", stdout=""))
    task = Task(task_id="s", prompt="# add\n", entry_point=None, tests=tests)
    added, spaced, read, other, silent = seen(
        judge,
        task,
        "print(int(input()) + int(input()))\n",
        "a = int(input())\nprint(a + int(input()), end='  \\n\\n')\n",
        "import sys\nif __name__ == '__main__':\n"
        "    print(sum(map(int, sys.stdin.read().split())))\n    exit()\n",
        "print(int(input()) * int(input()))\n",
        "raise ValueError\n",
    )
    assert added == spaced == read
    assert other not in (added, None)
    assert silent is None


def test_inputs_of_assertions_are_the_literal_arguments_of_calls():
    humaneval = (
        "def check(candidate):\n    assert candidate([1, 2], 'a') == 3\n"
        "    assert abs(candidate((1.5,)) - 2) < 1\n"
    )
    mbpp = "assert f({'k': -1}) == [1]\nassert f(g(2)) == 1\nassert f(x=1) == 2\nassert other(5) == 5\n"
    task = Task(
        task_id="a",
        prompt="",
        entry_point="f",
        tests=(AssertionTest(code=humaneval), AssertionTest(code=mbpp), CallTest(args=(7,), expected=1)),
    )
    assert inputs_of(task) == [([1, 2], "a"), ((1.5,),), ({"k": -1},), (7,)]


def test_assertion_tasks_are_observed_on_these(judge):
    task = Task(
        task_id="a", prompt="def f(x):\n", entry_point="f", tests=(AssertionTest(code="assert f(3) == 0\n"),)
    )
    one, other, third = seen(judge, task, "    return x\n", "    return 3\n", "    return 4\n")
    assert one == other != third


def test_a_task_that_tells_no_inputs_gives_no_votes_and_costs_no_verdicts():
    judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    task = Task(task_id="a", prompt="", entry_point="f", tests=(AssertionTest(code="assert f(open)\n"),))
    assert observe(judge, [(task, "x")]) == [None]
    assert judge.batches == [[]]


def test_all_programs_are_one_batch():
    judge = ScriptedJudge(lambda task, source: judgement(task, 2))
    assert observe(judge, [(DOUBLE, "    return 1\n"), (DOUBLE, "    return 2\n")]) == [1, 1]
    assert [len(batch) for batch in judge.batches] == [2]
    (task, _), _ = judge.batches[0]
    assert len(task.tests) == N_BITS + 1
    assert all(test.expected in (1, True) for test in task.tests)
