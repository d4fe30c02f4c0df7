"""`codegym eval-prm` as a user runs it, on a tiny untrained reward model and real tasks."""

import json
from itertools import pairwise

import pytest
import torch

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.cli import main
from agents.commands.eval_prm import spread
from codegym import Verdict, load_tasks
from codegym.rewards.probes import PROBES
from codegym.storage import append_rows
from codegym.tasks import write_tasks
from prm.config import in_validation
from prm.dataset import write_parquet, write_stepwise
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram, SampledProgram

N_TASKS = 6


@pytest.fixture(scope="module")
def tasks():
    return list(load_tasks("stepwise", limit=N_TASKS, horizons=(1, 4)))


@pytest.fixture(scope="module")
def tokenizer(tasks):
    return train_tokenizer([task.prompt + task.reference for task in tasks] * 4, 300)


@pytest.fixture(scope="module")
def prm(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("prm")
    tiny = TinyModelConfig(hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=32)
    model = ProcessRewardModel.from_backbone(make_tiny_model(tokenizer, tiny, seed=0), tokenizer)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.weight)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def labeled(tasks, tokenizer):
    """Per task its reference, and the same with a wrong return; two wrong ones are written alike."""
    rows = []
    for task in tasks:
        wrong = "".join(f"{line}\n" for line in [*task.reference.splitlines()[:-1], "    return None"])
        for number, (text, passed) in enumerate([(task.reference, True), (wrong, False), (wrong, False)]):
            program = SampledProgram(
                program_id=f"hand/{task.task_id}/{number}",
                task_id=task.task_id,
                policy="hand",
                prompt_ids=tuple(tokenizer.encode(task.prompt)),
                token_ids=(*tokenizer.encode(text), tokenizer.eos_token_id),
                completion=text,
                finished=True,
                verdict=Verdict.PASSED if passed else Verdict.WRONG_ANSWER,
                results=(passed,) * len(task.tests),
            )
            labels = [1.0] * len(program.lines)
            labels[-1] = 1.0 if passed else -1.0
            rows.append(LabeledProgram(program=program, labels=tuple(labels), source="hand"))
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory, labeled):
    folder = tmp_path_factory.mktemp("programs")
    half = len(labeled) // 2
    append_rows(folder / "first.jsonl", (item.to_row() for item in labeled[:half]))
    append_rows(folder / "second.jsonl", (item.to_row() for item in labeled[half:]))
    append_rows(folder / "programs.jsonl", (item.program.to_row() for item in labeled))
    return folder


def run(prm, files, *more):
    labels = ["--labels", str(files / "first.jsonl"), str(files / "second.jsonl")]
    return main(
        ["eval-prm", "--prm", str(prm), *labels, "--n-bootstrap", "3", "--threads", "1", *map(str, more)]
    )


def record(capsys):
    return json.loads(capsys.readouterr().out)


def test_everything_is_measured_and_written(prm, files, labeled, tmp_path, capsys):
    more = ("--candidates", files / "programs.jsonl", "--sizes", 1, 3, "--out", tmp_path / "report")
    assert run(prm, files, *more) == 0
    output = capsys.readouterr()
    assert f"report: {tmp_path}/report/report.html" in output.err
    for title in (
        "Quality",
        "By policy",
        "By position",
        "By horizon",
        "Best of n",
        "Hack probes",
        "Calibration",
    ):
        assert title in output.out
    row = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert row["model"] == ProcessRewardModel.from_pretrained(prm).identity
    assert row["metrics"]["n_programs"] == len(labeled)
    assert row["metrics"]["n_lines"] == sum(len(item.labels) for item in labeled)
    assert set(row["metrics"]["groups"]["horizon"]) <= {"1", "2", "3-4"}
    assert row["about"]["label_sources"] == ["hand"]
    assert row["about"]["tasks_known"] == N_TASKS
    solved = row["reranking"]["solved"]
    # one of three programs passes; two wrong ones agree with each other
    assert solved["random"]["3"]["value"] == pytest.approx(1 / 3)
    assert solved["oracle"]["3"]["value"] == 1.0
    assert solved["majority"]["3"]["value"] == 0.0
    assert solved["majority"]["1"]["value"] == pytest.approx(1 / 3)
    assert all(probes.keys() == PROBES.keys() for probes in row["hacks"].values())
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Sample programs, coloured by PRM score" in page
    assert "return None" in page


def test_json_is_one_object_and_the_same_every_time(prm, files, capsys):
    assert run(prm, files, "--json") == 0
    first = record(capsys)
    assert first["reranking"] is None
    assert set(first["metrics"]["groups"]) == {"policy", "verdict", "position", "horizon"}
    assert run(prm, files, "--json") == 0
    assert record(capsys) == first


def test_held_out_tasks_alone_are_measured(prm, files, labeled, capsys):
    held_out = [in_validation(item.program.task_id, fraction=0.5, seed=3) for item in labeled]
    assert 0 < sum(held_out) < len(labeled)
    assert run(prm, files, "--json", "--validation-fraction", 0.5, "--seed", 3, "--n-probed", 0) == 0
    row = record(capsys)
    assert row["metrics"]["n_programs"] == sum(held_out)
    assert row["hacks"] == {}


@pytest.mark.parametrize("n", [0, 1, 7, 8, 12, 13, 100])
def test_as_many_programs_are_probed_as_asked_for_if_there_are_so_many(n):
    chosen = spread(range(13), n)
    assert len(chosen) == min(n, 13)
    gaps = {after - before for before, after in pairwise(chosen)}
    assert gaps <= ({max(1, 13 // n), 13 // n + 1} if n else set())


def test_a_named_source_makes_tasks_from_their_ids(prm, files, capsys):
    assert run(prm, files, "--json", "--tasks", "stepwise", "--n-probed", 2) == 0
    row = record(capsys)
    assert row["about"]["tasks_known"] == N_TASKS
    assert row["hacks"]


def test_tasks_may_come_from_a_file(prm, files, tasks, tmp_path, capsys):
    write_tasks(tmp_path / "tasks.jsonl", tasks[:2])
    assert run(prm, files, "--json", "--tasks", tmp_path / "tasks.jsonl", "--n-probed", 2) == 0
    output = capsys.readouterr()
    assert f"{N_TASKS - 2} of {N_TASKS} tasks are unknown" in output.err
    row = json.loads(output.out)
    assert row["about"]["tasks_known"] == 2
    assert "unknown" in row["metrics"]["groups"]["horizon"]
    assert row["hacks"]


def test_programs_of_unknown_tasks_are_measured_without_running_any(prm, labeled, tmp_path, capsys):
    rows = [item.to_row() for item in labeled]
    for row in rows:
        row["program"]["task_id"] = row["program"]["task_id"].replace("stepwise", "elsewhere")
    append_rows(tmp_path / "labels.jsonl", rows)
    append_rows(tmp_path / "programs.jsonl", (row["program"] for row in rows))
    options = ["--prm", str(prm), "--labels", str(tmp_path / "labels.jsonl"), "--n-bootstrap", "0", "--json"]
    more = ["--candidates", str(tmp_path / "programs.jsonl"), "--sizes", "2", "--threads", "1"]
    assert main(["eval-prm", *options, *more]) == 0
    output = capsys.readouterr()
    assert "without tasks: no horizons, probes and majority (unknown task source 'elsewhere'" in output.err
    row = json.loads(output.out)
    assert row["hacks"] == {}
    assert set(row["metrics"]["groups"]) == {"policy", "verdict", "position"}
    assert "majority" not in row["reranking"]["solved"]


def test_labels_may_be_of_every_kind_that_training_reads(prm, tokenizer, labeled, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    write_parquet(tmp_path / "labels.parquet", labeled[:9])
    write_stepwise(tmp_path / "stepwise.jsonl", labeled[9:], tokenizer)
    files = [str(tmp_path / name) for name in ("labels.parquet", "stepwise.jsonl")]
    assert main(["eval-prm", "--prm", str(prm), "--labels", *files, "--n-bootstrap", "0", "--json"]) == 0
    row = record(capsys)
    assert row["metrics"]["n_programs"] == len(labeled)
    assert row["about"]["label_sources"] == ["hand", "stepwise_supervision"]


def test_tasks_that_cannot_be_loaded_are_done_without(prm, labeled, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("CODEGYM_MBPP", raising=False)
    row = labeled[0].to_row()
    row["program"]["task_id"] = "MBPP/1"
    append_rows(tmp_path / "labels.jsonl", [row])
    assert main(["eval-prm", "--prm", str(prm), "--labels", str(tmp_path / "labels.jsonl"), "--json"]) == 0
    output = capsys.readouterr()
    assert "without tasks: no horizons, probes and majority (mbpp needs path=" in output.err
    assert json.loads(output.out)["about"]["tasks_known"] == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--candidates", "{tmp}/none.jsonl"], "no file of programs at {tmp}/none.jsonl"),
        (
            ["--candidates", "{files}/programs.jsonl"],
            "no task has 8 programs to choose from; the most that one has is 3",
        ),
        (["--candidates", "{files}/first.jsonl"], "unknown fields"),
        (["--tasks", "nowhere"], "unknown task source 'nowhere'"),
        (["--judge", "lokal"], "unknown judge 'lokal'"),
        (["--validation-fraction", "1e-9"], "there are no labelled programs to evaluate on"),
    ],
)
def test_bad_input_exits_2_and_says_why(more, said, prm, files, tmp_path, capsys):
    filled = [part.format(tmp=tmp_path, files=files) for part in more]
    try:
        status = run(prm, files, *filled)
    except SystemExit as error:
        status = error.code
    assert status == 2
    assert said.format(tmp=tmp_path) in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    "more", [["--sizes", "0"], ["--validation-fraction", "0"], ["--n-probed", "-1"], ["--n-bootstrap", "-1"]]
)
def test_options_out_of_range_exit_2(more, prm, files, capsys):
    with pytest.raises(SystemExit) as error:
        run(prm, files, *more)
    assert error.value.code == 2
    assert more[0].strip("-").replace("-", "_") in capsys.readouterr().err


def test_a_folder_without_a_model_exits_2(files, tmp_path, capsys):
    assert run(tmp_path / "nowhere", files) == 2
    assert "nowhere" in capsys.readouterr().err


def test_programs_of_another_tokenizer_are_refused(prm, labeled, tmp_path, capsys):
    row = labeled[0].to_row()
    row["program"]["token_ids"] = [5, *row["program"]["token_ids"]]
    append_rows(tmp_path / "labels.jsonl", [row])
    assert main(["eval-prm", "--prm", str(prm), "--labels", str(tmp_path / "labels.jsonl")]) == 2
    assert "written with another tokenizer" in capsys.readouterr().err
