import json
from dataclasses import replace

import pytest

from agents.cli import main
from codegym import AssertionTest, CallTest, Task, load_tasks
from codegym.doctor import CHECKS
from codegym.rewards.probes import PROBES
from codegym.tasks import write_tasks


def task(number, **changes):
    fields = {
        "task_id": f"mine/{number}",
        "prompt": f'def add(a, b):\n    """Add a, b and {number}."""\n',
        "entry_point": "add",
        "tests": (CallTest(args=(1, number), expected=1 + 2 * number),),
        "reference": f"    c = a + b\n    return c + {number}\n",
    }
    return Task(**fields | changes)


@pytest.fixture
def doctor(tmp_path, capsys, monkeypatch):
    """Runs the command over tasks; returns its exit status and what it wrote."""
    monkeypatch.delenv("CODEGYM_MBPP", raising=False)

    def run(tasks, *arguments):
        write_tasks(tmp_path / "mine.jsonl", tasks)
        status = main(["doctor", "--tasks", str(tmp_path / "mine.jsonl"), *arguments])
        return status, capsys.readouterr()

    return run


def test_a_clean_set_is_fine(doctor):
    status, told = doctor([task(2), task(3, split="test")], "--reward", "pass_fail")
    assert status == 0
    lines = told.out.splitlines()
    assert lines[0].endswith("mine.jsonl: 2 tasks, 0 of them without a reference")
    assert lines[1 : 1 + len(CHECKS)] == [f"{name}: fine" for name in CHECKS]
    assert "mbpp" in lines[1 + len(CHECKS)]
    assert "not compared with mbpp: mbpp needs path=" in told.out
    assert [line.split() for line in lines[-len(PROBES) :]] == [[name, "+0.0000"] for name in PROBES]


def test_findings_make_the_status_1(doctor):
    status, told = doctor([task(2), task(3, reference="    return 0\n"), task(2, task_id="copy")])
    assert status == 1
    assert "reference: 1 errors, 0 warnings\n  error 'mine/3': the reference gives wrong_answer" in told.out
    assert "duplicates: 0 errors, 1 warnings\n  warning 'copy': the same prompt and tests as" in told.out


def test_warnings_alone_can_be_let_through(doctor):
    tasks = [task(2), task(2, task_id="copy")]
    assert doctor(tasks, "--checks", "duplicates")[0] == 1
    assert doctor(tasks, "--checks", "duplicates", "--fail-on", "error")[0] == 0
    leak = [task(2), task(2, task_id="copy", split="test")]
    assert doctor(leak, "--checks", "leaks", "--fail-on", "error")[0] == 1


def test_at_most_ten_findings_of_a_check_are_shown_and_json_has_them_all(doctor):
    tasks = [task(number, tests=(AssertionTest(code="pass\n"),)) for number in range(13)]
    status, told = doctor(tasks, "--checks", "trivial", "tests")
    assert status == 1
    assert sum(line.startswith("  error") for line in told.out.splitlines()) == 10
    assert "  ... and 3 more (--json has them all)" in told.out
    status, told = doctor(tasks, "--checks", "trivial", "tests", "--json")
    record = json.loads(told.out)
    assert status == 1
    assert len(record["findings"]) == record["checks"]["trivial"] == 13


def test_json_has_one_schema(doctor):
    status, told = doctor([task(2), task(3, reference=None)], "--reward", "pass_rate", "--json")
    record = json.loads(told.out)
    assert status == 0
    assert record.pop("tasks").endswith("mine.jsonl")
    assert record.pop("benchmarks_missing").keys() >= {"mbpp"}
    assert record == {
        "reward": "pass_rate",
        "n_tasks": 2,
        "n_references": 1,
        "n_errors": 0,
        "n_warnings": 0,
        "checks": dict.fromkeys(CHECKS, 0),
        "findings": [],
        "gains": dict.fromkeys(PROBES, 0.0),
    }


def test_what_probes_earn_is_told_and_a_gain_is_a_finding(doctor):
    options = ["--checks", "probes", "--reward", "length", "--reward-options", '{"rate": 0.01, "cap": 1.0}']
    status, told = doctor([task(2)], *options)
    assert status == 1
    assert "what hack probes add to the return of failing programs under length:" in told.out
    assert "  stop_early      -0.0050\n" in told.out
    # length alone knows no passing programs: alone it is no scheme to train with
    assert (
        "  error 'mine/2': comment_spam raises the return of failing programs by 0.03 on average; 2 of 2"
        in (told.out)
    )


def test_splits_are_loaded_one_by_one(capsys):
    arguments = ["--splits", "train", "validation", "test", "--limit", "3", "--repeats", "1", "--json"]
    assert main(["doctor", "--tasks", "stepwise", *arguments, "--fail-on", "error"]) == 0
    assert json.loads(capsys.readouterr().out)["n_tasks"] == 9


def test_a_benchmark_in_the_training_set_is_found(capsys, tmp_path, monkeypatch):
    code = "def total(a, b, c):\n    d = a + b\n    e = d + c\n    return e\n"
    asserts = ["assert total(1, 2, 3) == 6"]
    row = {"task_id": 11, "text": "Add three numbers.", "code": code, "test_list": asserts}
    (tmp_path / "mbpp.jsonl").write_text(json.dumps(row), encoding="utf-8")
    monkeypatch.setenv("CODEGYM_MBPP", str(tmp_path / "mbpp.jsonl"))
    (benchmark,) = load_tasks("mbpp")
    write_tasks(tmp_path / "mine.jsonl", [replace(benchmark, task_id="mine/1", split="train")])
    arguments = ["doctor", "--tasks", str(tmp_path / "mine.jsonl"), "--checks", "benchmarks"]
    assert main([*arguments, "--benchmarks", "mbpp"]) == 1
    assert (
        "benchmarks: 1 errors, 0 warnings\n  error 'mine/1': the same prompt and tests in split 'train' as"
        " 'mbpp/11' of mbpp\n"
    ) in capsys.readouterr().out
    assert main(["doctor", "--tasks", "mbpp", "--checks", "benchmarks", "--benchmarks", "mbpp"]) == 0


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--tasks", "nowhere"], "unknown task source 'nowhere'"),
        (["--tasks", "stepwise", "--reward", "pass"], "unknown reward scheme 'pass'"),
        (["--tasks", "stepwise", "--reward", "process"], "ProcessReward needs exactly one of prm="),
        (["--tasks", "stepwise", "--options", "[]"], "--options must be a JSON object"),
        (["--tasks", "stepwise", "--reward-options", "{"], "--reward-options must be a JSON object"),
        (["--tasks", "stepwise", "--checks", "leak"], "unknown check 'leak'"),
        (["--tasks", "stepwise", "--limit", "1", "--repeats", "0"], "repeats must be positive, got 0"),
        (["--tasks", "stepwise", "--judge", "remote"], "unknown judge 'remote'"),
        (["--tasks", "jsonl"], "needs path="),
    ],
)
def test_bad_input_is_status_2_and_named(capsys, arguments, problem):
    assert main(["doctor", *arguments]) == 2
    assert problem in capsys.readouterr().err
