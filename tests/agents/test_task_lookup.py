"""Tasks by source, by file and by id."""

import pytest

from agents.task_lookup import FINDERS, find_task, find_tasks, load_named
from codegym.errors import TaskError, UnknownNameError
from codegym.table import resolve
from codegym.tasks import load_tasks
from codegym.tasks.jsonl import write_tasks

STEPWISE = list(load_tasks("stepwise", limit=4, horizons=(1, 2)))
IDS = [task.task_id for task in STEPWISE]
OTHER_SEED = load_tasks("stepwise", limit=2, seed=5, horizons=(3, 3))


@pytest.fixture
def file(tmp_path):
    write_tasks(tmp_path / "tasks.jsonl", STEPWISE[:3])
    return str(tmp_path / "tasks.jsonl")


def test_tasks_are_found_by_their_ids_in_the_ids_order():
    assert list(find_tasks(IDS).values()) == STEPWISE
    assert list(find_tasks(IDS[::-1])) == IDS[::-1]
    assert find_tasks([]) == {}


def test_ids_make_their_tasks_whatever_the_seed():
    ids = [task.task_id for task in OTHER_SEED]
    for name in (None, "stepwise"):
        assert list(find_tasks(ids, name).values()) == list(OTHER_SEED)


def test_a_file_gives_the_tasks_that_it_has(file):
    assert find_tasks(IDS, file) == dict(zip(IDS[:3], STEPWISE[:3], strict=True))
    assert find_tasks(IDS[3:], file) == {}


def test_a_file_s_tasks_are_read_whatever_their_split(file):
    assert list(load_named(file, split="test", seed=3)) == STEPWISE[:3]


def test_a_limit_draws_the_same_tasks_of_a_file_as_of_its_source(file):
    drawn = [list(load_named(file, limit=1, seed=seed)) for seed in range(8)]
    assert drawn == [list(load_tasks("jsonl", path=file, limit=1, seed=seed)) for seed in range(8)]
    assert {tasks[0].task_id for tasks in drawn} == set(IDS[:3])


def test_a_source_gets_split_seed_and_options():
    given = {"split": "test", "seed": 5, "limit": 3, "horizons": (2, 2)}
    assert list(load_named("stepwise", **given)) == list(load_tasks("stepwise", **given))


def test_an_option_that_a_file_does_not_have_is_an_error(file):
    with pytest.raises(UnknownNameError, match="horizons"):
        load_named(file, horizons=(1, 2))


@pytest.mark.parametrize("look", [lambda: find_tasks(["nowhere/1"]), lambda: find_task("nowhere/1")])
def test_an_id_of_no_source_is_an_error(look):
    with pytest.raises(UnknownNameError, match="nowhere"):
        look()


def test_a_task_that_its_source_does_not_have_is_an_error():
    with pytest.raises(TaskError, match="stepwise/no"):
        find_task("stepwise/no")


@pytest.mark.parametrize("source", FINDERS)
def test_finding_a_task_is_loading_it(source):
    (task,) = load_tasks(source, limit=1)
    assert resolve(FINDERS, source, "task source")(task.task_id) == task == find_task(task.task_id)
