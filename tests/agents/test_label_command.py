"""`codegym label` as a user runs it, on a tiny untrained model and real tasks."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.cli import main
from agents.commands.label import LabelerOptions, LabelOptions
from codegym import Verdict, load_tasks, make_judge
from codegym.storage import append_rows, read_rows
from codegym.tasks import write_tasks
from prm.dataset import read_parquet
from prm.labeling import read_labels
from prm.program import SampledProgram
from prm.store import CompletionStore


@pytest.fixture(scope="module")
def tasks():
    return list(load_tasks("stepwise", limit=4, horizons=(1, 2)))


@pytest.fixture(scope="module")
def tokenizer(tasks):
    return train_tokenizer([task.prompt + task.reference for task in tasks] * 4, 300)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model")
    tiny = TinyModelConfig(hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=32)
    make_tiny_model(tokenizer, tiny, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def programs(tmp_path_factory, tasks, tokenizer):
    """Per task its reference, and the same with a wrong return."""
    rows = []
    for task in tasks:
        wrong = "".join(f"{line}\n" for line in [*task.reference.splitlines()[:-1], "    return None"])
        for number, (text, passed) in enumerate([(task.reference, True), (wrong, False)]):
            rows.append(
                SampledProgram(
                    program_id=f"hand/{task.task_id}/{number}",
                    task_id=task.task_id,
                    policy="hand",
                    prompt_ids=tuple(tokenizer.encode(task.prompt)),
                    token_ids=(*tokenizer.encode(text), tokenizer.eos_token_id),
                    completion=text,
                    finished=True,
                    verdict=Verdict.PASSED if passed else Verdict.WRONG_ANSWER,
                    results=(passed,) * len(task.tests),
                ).to_row()
            )
    path = tmp_path_factory.mktemp("programs") / "programs.jsonl"
    append_rows(path, rows)
    return path


def run(out, *arguments):
    return main(["label", "--out", str(out), "--threads", "1", *map(str, arguments)])


QUICK = ("--k", "2", "--max-new-tokens", "24", "--chunk", "3")


def test_binary_search_from_the_command_line(tmp_path, programs, model, capsys):
    out = tmp_path / "labels"
    arguments = ("--programs", programs, "--model", model, "--draws-at-once", "1", *QUICK)
    assert run(out, *arguments) == 0
    shown = capsys.readouterr().out
    labels = read_labels(out / "labels.jsonl")
    assert len(labels) == 8
    # an untrained model never finishes a program: every failing one is wrong from its first line
    assert all(set(row.labels) == ({1.0} if row.program.passed else {-1.0}) for row in labels)
    n_drawn = sum(row.cost["completions"] for row in labels)
    stored = [
        draw for turn in CompletionStore(out / "completions.jsonl") for p in turn.probes for draw in p.draws
    ]
    assert n_drawn == len(stored) > 0
    assert "full         8        4        0      4" in " ".join(shown.split("\n"))
    assert f"{n_drawn} completions" in shown
    assert "first wrong line, by tenths of the program: 4 0 0 0 0 0 0 0 0 0" in shown
    statistics = json.loads((out / "statistics.json").read_text())
    assert statistics["full"]["cost"]["completions"] == n_drawn
    assert statistics["revised_only"]["programs"] == 4

    before = (out / "labels.jsonl").read_bytes()
    assert run(out, *arguments) == 0  # nothing is left to do
    assert (out / "labels.jsonl").read_bytes() == before
    assert run(out, *arguments, "--seed", "5") == 2
    assert "belongs to a run with other settings" in capsys.readouterr().err


def test_a_named_source_makes_tasks_from_their_ids(tmp_path, programs):
    arguments = ("--programs", programs, "--labeler", "reference", "--seed", "7")
    assert run(tmp_path / "found", *arguments) == 0
    assert run(tmp_path / "named", *arguments, "--tasks", "stepwise") == 0
    found, named = (read_labels(tmp_path / name / "labels.jsonl") for name in ("found", "named"))
    assert [item.labels for item in named] == [item.labels for item in found]


def test_a_file_of_labels_can_be_looked_into(tmp_path, programs, model, capsys):
    out = tmp_path / "labels"
    assert run(out, "--programs", programs, "--labeler", "reference") == 0
    labels = read_labels(out / "labels.jsonl")
    assert [row.labels[-1] for row in labels] == [1, -1] * 4
    assert all(label == 1 for row in labels for label in row.labels[:-1])
    capsys.readouterr()
    assert run(out, "--inspect", "2", "--model", model) == 0
    by_number = capsys.readouterr().out
    assert run(out, "--inspect", labels[1].program.program_id, "--model", model) == 0
    assert capsys.readouterr().out == by_number
    lines = by_number.splitlines()
    assert lines[0].startswith(labels[1].program.program_id)
    assert len(lines) == 2 + len(labels[1].labels)
    assert [line.split()[1] for line in lines[2:]] == [f"{label:+.2f}" for label in labels[1].labels]
    assert run(out, "--inspect", "99", "--model", model) == 2
    assert "has 8 programs and none of id or number '99'" in capsys.readouterr().err


def test_a_full_scan_with_soft_labels_and_a_parquet_copy(tmp_path, programs, model):
    out = tmp_path / "labels"
    arguments = ("--programs", programs, "--model", model, "--labeler", "full_scan", "--kind", "soft", *QUICK)
    assert run(out, *arguments, "--failing", "--limit", "2", "--format", "parquet") == 0
    labels = read_labels(out / "labels.jsonl")
    assert [row.source for row in labels] == ["full_scan_soft"] * 2
    assert all(set(row.probes) == set(range(1, len(row.labels) + 1)) for row in labels)
    assert read_parquet(out / "labels.parquet") == labels


def test_labels_by_mutation_and_a_stepwise_copy(tmp_path, tasks, model):
    write_tasks(tmp_path / "tasks.jsonl", tasks)
    out = tmp_path / "labels"
    arguments = (
        "--labeler",
        "mutation",
        "--tasks",
        tmp_path / "tasks.jsonl",
        "--mutants",
        "3",
        "--limit",
        "2",
    )
    assert run(out, *arguments, "--model", model, "--format", "stepwise") == 0
    labels = read_labels(out / "labels.jsonl")
    assert 0 < len(labels) <= 6
    assert {row.source for row in labels} == {"mutation"}
    rows = list(read_rows(out / "stepwise.jsonl"))
    assert [row["labels"] for row in rows] == [list(row.labels) for row in labels]
    assert len({row["prompt"] for row in rows}) == 2
    assert {row["prompt"] for row in rows} < {task.prompt for task in tasks}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--programs must name a file of programs"),
        (("--programs", "none.jsonl"), "no file of programs at none.jsonl"),
        (("--programs", "{programs}"), "--model must name the folder of a causal LM, got None"),
        (("--programs", "{programs}", "--model", "nowhere"), "folder of a causal LM, got nowhere"),
        (("--labeler", "mutation", "--model", "{model}"), "labels by mutation need --tasks"),
        (("--programs", "{programs}", "--labeler", "reference", "--judge", "lokal"), "unknown judge 'lokal'"),
        (("--inspect", "1", "--model", "{model}"), "has 0 programs"),
        (
            (
                "--programs",
                "{programs}",
                "--labeler",
                "mutation",
                "--tasks",
                "stepwise",
                "--model",
                "{model}",
            ),
            "leave --programs out",
        ),
    ],
)
def test_bad_input_exits_2_and_says_why(tmp_path, programs, model, arguments, said, capsys):
    filled = [argument.format(programs=programs, model=model) for argument in arguments]
    assert run(tmp_path / "out", *filled) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--labeler", "full-scan"), "unknown labeler 'full-scan' (did you mean 'full_scan'?)"),
        (("--labeler", "full_scan", "--reuse"), "'full_scan' has no option 'reuse'"),
        (("--labeler", "reference", "--k", "3"), "it has none of these"),
        (("--limit", "0"), "limit must be at least 1, got 0"),
        (("--format", "xml"), "xml"),
    ],
)
def test_an_option_that_does_not_fit_is_named(tmp_path, arguments, said, capsys):
    with pytest.raises(SystemExit) as error:
        run(tmp_path / "out", *arguments)
    assert error.value.code == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "out").exists()


def test_only_options_that_were_given_reach_the_labeler():
    assert LabelerOptions().given("binary_search") == {}
    assert LabelerOptions(k=4, reuse=True).given("binary_search") == {"k": 4, "reuse": True}
    assert LabelOptions(out="x", labeler="full_scan", options=LabelerOptions(kind="soft")).settings()[
        "options"
    ] == {"kind": "soft"}


def test_an_option_of_zero_was_given(tmp_path, programs, model, capsys):
    zero = LabelerOptions(temperature=0.0, k_per_step=0.0, draws_at_once=0)
    assert zero.given("binary_search") == {"temperature": 0.0, "k_per_step": 0.0, "draws_at_once": 0}
    assert run(tmp_path / "out", "--programs", programs, "--model", model, "--k", "0") == 2
    assert "k=0" in capsys.readouterr().err


@pytest.mark.slow
def test_kill_nine_in_the_middle_and_again_gives_the_labels_of_one_run(tmp_path, programs, model):
    arguments = ["--programs", str(programs), "--model", str(model), "--threads", "1"]
    settings = ["--k", "8", "--max-new-tokens", "96", "--chunk", "2"]
    code = "from agents.cli import entry; entry()"

    def start(name):
        command = [sys.executable, "-c", code, "label", "--out", str(tmp_path / name), *arguments, *settings]
        return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL)

    assert start("whole").wait(200) == 0
    for n_turns in (1, 4):
        child, path = start("killed"), tmp_path / "killed" / "completions.jsonl"
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and child.poll() is None:
            if path.exists() and path.read_bytes().count(b"\n") > n_turns:
                break
            time.sleep(0.005)
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    assert start("killed").wait(200) == 0
    labels = [read_labels(tmp_path / name / "labels.jsonl") for name in ("whole", "killed")]
    assert labels[0] == labels[1]
    stores = [CompletionStore(tmp_path / name / "completions.jsonl") for name in ("whole", "killed")]
    assert [turn.probes for turn in stores[0]] == [turn.probes for turn in stores[1]]


def test_the_judge_is_closed_whatever_happens(tmp_path, programs, monkeypatch):
    closed = []

    def spying(name):
        judge = make_judge(name, workers=1)
        monkeypatch.setattr(judge, "close", lambda close=judge.close: (closed.append(True), close())[1])
        return judge

    monkeypatch.setattr("agents.commands.label.make_judge", spying)
    assert run(tmp_path / "out", "--programs", programs, "--labeler", "reference", "--limit", "1") == 0
    assert closed
