"""Binary search over prefixes: labels by hand, equal to a full scan, deterministic, resumable."""

import hashlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import Task, TaskError, Verdict
from codegym.episode import is_neutral
from codegym.storage import append_rows
from codegym.task import CallTest
from codegym.testing import ScriptedJudge, judgement
from prm.completion import Completion
from prm.labeling import BinarySearchLabeler, label_to_file, read_labels
from prm.program import LabeledProgram, SampledProgram

ROOT = Path(__file__).parents[2]
TASK = Task(task_id="t", prompt="def f():\n", entry_point="f", tests=(CallTest(args=(), expected=1),))
TASKS = {"t": TASK}
SIX = ["    a = 1", "    b = 2", "    c = 3", "    d = 4", "    e = 5", "    return e"]


class Merging:
    """A tokenizer in which a newline and the indentation after it are one token; token 0 ends a text."""

    pieces = ("<|end|>", "\n    ", "\n", *(chr(code) for code in range(32, 127)), "é")

    def __len__(self):
        return len(self.pieces)

    def encode(self, text):
        tokens = []
        while text:
            token = next(t for t, piece in enumerate(self.pieces) if text.startswith(piece))
            tokens.append(token)
            text = text[len(self.pieces[token]) :]
        return tokens

    def decode(self, token_ids, *, skip_special_tokens=False, clean_up_tokenization_spaces=True):
        return "".join(self.pieces[token] for token in token_ids if token or not skip_special_tokens)


TOKENIZER = Merging()


class ScriptedCompleter:
    """Completes by a function of the prompt's text and a generator seeded by the draw's place."""

    identity = "scripted-1"

    def __init__(self, write):
        self.write = write
        self.calls = []

    def sample(self, prompts, *, n=1, max_new_tokens, temperature=1.0, seed=0):
        texts = [TOKENIZER.decode(list(prompt), clean_up_tokenization_spaces=False) for prompt in prompts]
        self.calls.append({"texts": texts, "n": n, "max_new_tokens": max_new_tokens, "seed": seed})
        return [
            [self.completion(text, random.Random(f"{seed}/{place}/{draw}")) for draw in range(n)]
            for place, text in enumerate(texts)
        ]

    def completion(self, text, rng):
        written = self.write(text, rng)
        tokens = (*TOKENIZER.encode(written), 0)
        return Completion(token_ids=tokens, logprobs=(0.0,) * len(tokens), text=written, finished=True)


def program(lines=SIX, *, number=0, passed=False, finished=True, newline=True):
    completion = "\n".join(lines) + "\n" * (newline and bool(lines))
    return SampledProgram(
        program_id=f"p/t/{number}",
        task_id="t",
        policy="p",
        prompt_ids=tuple(TOKENIZER.encode(TASK.prompt)),
        token_ids=(*TOKENIZER.encode(completion), *([0] if finished else [])),
        completion=completion,
        finished=finished,
        verdict=Verdict.PASSED if passed else Verdict.WRONG_ANSWER,
        results=(passed,),
    )


def wins(task, source):
    return judgement(task, int("WIN" in source))


def recoverable_up_to(limit):
    """A completer that wins from every prefix of at most `limit` lines, and never from a longer one."""

    def write(text, rng):
        return "WIN\n" if n_lines(text) <= limit else "lose\n"

    return ScriptedCompleter(write)


def n_lines(prompt):
    """Whole lines of a prefix; the prompt has one."""
    return prompt.count("\n") - 1


def labeler(completer, **options):
    return BinarySearchLabeler(completer, ScriptedJudge(wins), TOKENIZER, **options)


def test_six_lines_by_hand():
    # recoverable up to line 3: probes at 3 (yes), 5 (no), 4 (no)
    (labeled,) = labeler(recoverable_up_to(3)).label([program()], TASKS)
    assert labeled.labels == (1, 1, 1, -1, -1, -1)
    assert labeled.probes == {3: (4, 4), 5: (0, 8), 4: (0, 8)}
    won, lost = len(TOKENIZER.encode("WIN\n")) + 1, len(TOKENIZER.encode("lose\n")) + 1
    assert labeled.cost == {"completions": 20, "tokens": 4 * won + 16 * lost, "verdicts": 20}
    assert (labeled.source, labeled.completer) == ("binary_search", "scripted-1")
    assert labeled.program == program()


@pytest.mark.parametrize("limit", range(7))
def test_every_flip_is_found(limit):
    (labeled,) = labeler(recoverable_up_to(limit)).label([program()], TASKS)
    assert labeled.labels == (1.0,) * limit + (-1.0,) * (6 - limit)
    assert len(labeled.probes) <= math.ceil(math.log2(7))


def test_comment_and_blank_lines_are_neutral_and_never_probed():
    lines = ["    # plan", SIX[0], "", "    # why", SIX[1], "", SIX[2]]
    completer = recoverable_up_to(4)
    (labeled,) = labeler(completer).label([program(lines)], TASKS)
    assert labeled.labels == (0, 1, 0, 0, -1, 0, -1)
    assert set(labeled.probes) <= {2, 5, 7}


def test_programs_that_pass_are_right_without_a_probe():
    completer = recoverable_up_to(0)
    passed = program(["    # c", *SIX], passed=True)
    (labeled,) = labeler(completer).label([passed], TASKS)
    assert labeled.labels == (0, 1, 1, 1, 1, 1, 1)
    assert (labeled.probes, labeled.completer, completer.calls) == ({}, "", [])
    assert labeled.cost == {"completions": 0, "tokens": 0, "verdicts": 0}


@pytest.mark.parametrize("lines", [[], ["# only", ""], [""]])
def test_programs_without_code_need_no_probe(lines):
    completer = recoverable_up_to(0)
    (labeled,) = labeler(completer).label([program(lines)], TASKS)
    assert labeled.labels == (0.0,) * len(lines)
    assert completer.calls == []


def test_a_probe_stops_at_its_first_pass():
    (labeled,) = labeler(recoverable_up_to(9), k=8, draws_at_once=2).label([program()], TASKS)
    assert labeled.probes == {3: (2, 2), 5: (2, 2), 6: (2, 2)}


def test_a_pass_among_the_last_draws_still_counts():
    turns = []

    def write(text, rng):
        turns.append(text)
        return "WIN\n" if len(turns) == 8 else "lose\n"

    (labeled,) = labeler(ScriptedCompleter(write), k=8, draws_at_once=4).label([program(SIX[:1])], TASKS)
    assert labeled.labels == (1,)
    assert labeled.probes == {1: (1, 8)}


def test_prefixes_are_the_policys_own_tokens():
    completer = recoverable_up_to(2)
    wrong = program()
    labeler(completer).label([wrong], TASKS)
    # the token that ends line 3 also holds the indentation of line 4
    assert completer.calls[0]["texts"] == ["def f():\n" + "\n".join(SIX[:3]) + "\n    "]
    completion = "".join(TOKENIZER.pieces[token] for token in wrong.token_ids[:-1])
    assert all(
        completion.startswith(text.removeprefix(TASK.prompt))
        for call in completer.calls
        for text in call["texts"]
    )


def test_the_judge_sees_prefix_and_completion_as_one_module():
    judge = ScriptedJudge(wins)
    BinarySearchLabeler(recoverable_up_to(9), judge, TOKENIZER, k=1, draws_at_once=1).label(
        [program(["    é = 1"])], TASKS
    )
    assert judge.batches == [[(TASK, "def f():\n    é = 1\nWIN\n")]]


def test_a_last_line_cut_in_the_middle_is_a_prefix_too():
    cut = program(["    a = 1", "    b ="], finished=False, newline=False)
    completer = recoverable_up_to(1)
    (labeled,) = labeler(completer).label([cut], TASKS)
    assert completer.calls[-1]["texts"] == ["def f():\n    a = 1\n    b ="]
    assert labeled.labels == (1, 1)  # one whole line, and a second one that can still be finished


def test_all_programs_advance_in_one_batch_per_turn():
    limits = [0, 1, 2, 3, 4, 5, 6]
    programs = [program([f"    # {n}", *SIX], number=n) for n in limits]

    def write(text, rng):
        return "WIN\n" if n_lines(text) - 1 <= int(text.split("# ")[1][0]) else "lose\n"

    completer, judge = ScriptedCompleter(write), ScriptedJudge(wins)
    found = BinarySearchLabeler(completer, judge, TOKENIZER, k=4, draws_at_once=4).label(programs, TASKS)
    assert [sum(label > 0 for label in row.labels) for row in found] == limits
    assert len(completer.calls) == len(judge.batches) == 3  # ceil(log2(7)) turns for all seven programs
    # one of the seven answers is known after two probes
    assert [len(batch) for batch in judge.batches] == [28, 28, 24]
    assert len({call["seed"] for call in completer.calls}) == 3


def test_the_token_limit_holds_for_the_whole_program():
    completer = recoverable_up_to(0)
    labeler(completer, max_new_tokens=100).label([program()], TASKS)
    for call in completer.calls:
        (text,) = call["texts"]
        assert call["max_new_tokens"] == 100 - len(TOKENIZER.encode(text.removeprefix(TASK.prompt)))
    labeler(completer, max_new_tokens=3).label([program()], TASKS)
    assert completer.calls[-1]["max_new_tokens"] == 1


LINES = st.lists(st.sampled_from(["    x = 1", "    # c", "", "    y = 2", "return 3"]), max_size=20)


@settings(max_examples=150)
@given(LINES, st.integers(0, 20))
def test_binary_search_equals_the_full_scan_where_recovery_is_monotone(lines, limit):
    (labeled,) = labeler(recoverable_up_to(limit), k=2, draws_at_once=1).label([program(lines)], TASKS)
    scan = tuple(
        0.0 if is_neutral(line) else 1.0 if number <= limit else -1.0
        for number, line in enumerate(lines, start=1)
    )
    assert labeled.labels == scan
    n_scored = sum(not is_neutral(line) for line in lines)
    assert len(labeled.probes) <= math.ceil(math.log2(n_scored + 1))


@settings(max_examples=60)
@given(st.lists(st.booleans(), min_size=6, max_size=6))
def test_without_monotony_the_flip_is_between_a_recoverable_and_a_lost_prefix(recoverable):
    completer = ScriptedCompleter(lambda text, rng: "WIN\n" if recoverable[n_lines(text) - 1] else "lose\n")
    (labeled,) = labeler(completer).label([program()], TASKS)
    flip = sum(label > 0 for label in labeled.labels)
    assert labeled.labels == (1.0,) * flip + (-1.0,) * (6 - flip)
    assert flip == 0 or recoverable[flip - 1]
    assert flip == 6 or not recoverable[flip]


def sometimes(text, rng):
    return "WIN\n" if rng.random() < 0.5 ** n_lines(text) else "lose\n"


def test_labels_repeat_with_the_seed():
    programs = [program(number=n) for n in range(20)]
    runs = [labeler(ScriptedCompleter(sometimes), seed=seed).label(programs, TASKS) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "draws_at_once=4 and k=0"),
        ({"k": 6, "draws_at_once": 4}, "draws_at_once must divide k"),
        ({"draws_at_once": 0}, "draws_at_once=0"),
        ({"max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        labeler(recoverable_up_to(0), **options)


def test_a_program_without_its_task_is_named():
    with pytest.raises(TaskError, match="'p/t/0' answers task 't', which is not given"):
        labeler(recoverable_up_to(0)).label([program()], {})


def test_tokens_that_are_not_the_programs_are_refused():
    with pytest.raises(ValueError, match="cannot be 5 lines"):
        labeler(recoverable_up_to(0)).label([replace(program(), completion="a\nb\nc\nd\ne\n")], TASKS)


# ---------------------------------------------------------------- to a file, resumable


class Hashed:
    """Labels that depend on everything labelled in one call, as those of a sampled batch do."""

    source = "hashed"

    def __init__(self):
        self.calls = []

    def label(self, programs, tasks):
        self.calls.append([p.program_id for p in programs])
        batch = "".join(p.program_id for p in programs)
        return [
            LabeledProgram(
                program=p,
                labels=tuple(
                    float(byte % 3 - 1)
                    for byte in hashlib.sha256((batch + p.program_id).encode()).digest()[:6]
                ),
                source=self.source,
            )
            for p in programs
        ]


PROGRAMS = [program(number=n) for n in range(10)]


def test_chunks_are_appended_and_progress_is_told(tmp_path):
    path, told, hashed = tmp_path / "labels.jsonl", [], Hashed()
    label_to_file(hashed, PROGRAMS, TASKS, path, chunk=4, progress=lambda *args: told.append(args))
    assert [len(call) for call in hashed.calls] == [4, 4, 2]
    assert told == [(0, 10), (4, 10), (8, 10), (10, 10)]
    assert [row.program for row in read_labels(path)] == PROGRAMS
    label_to_file(hashed, PROGRAMS, TASKS, path, chunk=4, progress=lambda *args: told.append(args))
    assert len(hashed.calls) == 3
    assert told[4:] == [(10, 10)]


@settings(max_examples=40)
@given(st.floats(0, 1), st.integers(1, 12))
def test_resumed_anywhere_equals_uninterrupted(tmp_path_factory, share, chunk):
    folder = tmp_path_factory.mktemp("labels")
    whole, resumed = folder / "whole.jsonl", folder / "resumed.jsonl"
    label_to_file(Hashed(), PROGRAMS, TASKS, whole, chunk=chunk)
    content = whole.read_bytes()
    resumed.write_bytes(content[: int(share * len(content))])
    label_to_file(Hashed(), PROGRAMS, TASKS, resumed, chunk=chunk)
    assert resumed.read_bytes() == content


def test_a_file_of_another_job_is_refused_untouched(tmp_path):
    path = tmp_path / "labels.jsonl"
    label_to_file(Hashed(), PROGRAMS[:3], TASKS, path)
    before = path.read_bytes()
    other = Hashed()
    other.source = "reference"
    changed = [replace(PROGRAMS[0], policy="q"), *PROGRAMS[1:]]
    for labels, programs in ((other, PROGRAMS), (Hashed(), PROGRAMS[1:]), (Hashed(), changed)):
        with pytest.raises(ValueError, match="not of this job") as caught:
            label_to_file(labels, programs, TASKS, path)
        assert str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_a_corrupt_file_is_refused(tmp_path):
    path = tmp_path / "labels.jsonl"
    append_rows(path, [{"labels": []}])
    with pytest.raises(ValueError, match="field 'program' is missing"):
        label_to_file(Hashed(), PROGRAMS, TASKS, path)


def test_bad_jobs_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 programs have only 1 different ids"):
        label_to_file(Hashed(), [PROGRAMS[0]] * 2, TASKS, tmp_path / "x.jsonl")
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        label_to_file(Hashed(), PROGRAMS, TASKS, tmp_path / "x.jsonl", chunk=0)


JOB = """
import sys, time
from pathlib import Path
from prm.labeling import label_to_file
from prm.program import LabeledProgram, SampledProgram

class Slow:
    source = "slow"
    def label(self, programs, tasks):
        time.sleep(0.02)
        return [LabeledProgram(program=p, labels=(1.0,), source="slow") for p in programs]

programs = [
    SampledProgram(program_id=str(n), task_id="t", policy="p", prompt_ids=(1,) * 50, token_ids=(1, 0),
                   completion="x\\n", finished=True, verdict="wrong_answer", results=(False,))
    for n in range(250)
]
def work(path):
    label_to_file(Slow(), programs, {}, Path(path), chunk=7)
"""


def test_kill_nine_and_again_leaves_each_row_once(tmp_path):
    path = tmp_path / "labels.jsonl"
    child = subprocess.Popen(
        [sys.executable, "-c", JOB + "work(sys.argv[1])", str(path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (path.exists() and path.stat().st_size > 5_000):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 0 < len(read_labels(path)) < 250
    again = {}
    exec(JOB, again)
    again["work"](path)
    assert [row.program.program_id for row in read_labels(path)] == [str(n) for n in range(250)]
