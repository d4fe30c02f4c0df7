"""`codegym train-prm` as a user runs it, on a tiny untrained model and labels by hand."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.cli import main
from agents.commands.train_prm import TrainPRMOptions
from codegym import Verdict
from codegym.storage import append_rows
from prm import ProcessRewardModel
from prm.dataset import write_parquet
from prm.program import LabeledProgram, SampledProgram

PROMPT = "def double(a):\n"
GOOD, BAD = "    b = a + a\n", "    b = a - a\n"
END = "    return b\n"


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([PROMPT + GOOD + END, PROMPT + BAD + END] * 8, 280)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("backbone")
    tiny = TinyModelConfig(hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=32)
    make_tiny_model(tokenizer, tiny, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def labeled_program(tokenizer, number, source="hand"):
    rng = random.Random(number)
    wrong = rng.random() < 0.5
    text = (BAD if wrong else GOOD) + END
    return LabeledProgram(
        program=SampledProgram(
            program_id=f"hand/{number}",
            task_id=f"double/{number % 40}",
            policy="hand",
            prompt_ids=tuple(tokenizer.encode(PROMPT)),
            token_ids=(*tokenizer.encode(text), tokenizer.eos_token_id),
            completion=text,
            finished=True,
            verdict=Verdict.WRONG_ANSWER if wrong else Verdict.PASSED,
            results=(not wrong,),
        ),
        labels=(-1.0, -1.0) if wrong else (1.0, 1.0),
        source=source,
    )


@pytest.fixture(scope="module")
def labels(tmp_path_factory, tokenizer):
    path = tmp_path_factory.mktemp("labels") / "labels.jsonl"
    append_rows(path, [labeled_program(tokenizer, number).to_row() for number in range(80)])
    return path


def run(out, *arguments):
    return main(["train-prm", "--out", str(out), "--threads", "1", *map(str, arguments)])


QUICK = ("--epochs", "1", "--batch-size", "16", "--n-validations", "2", "--device", "cpu")


def test_labels_of_several_files_become_a_model_with_a_card(
    tmp_path, tokenizer, backbone, labels, capsys, caplog
):
    caplog.set_level("INFO")
    write_parquet(
        tmp_path / "mutants.parquet", [labeled_program(tokenizer, n, "mutation") for n in range(80, 100)]
    )
    arguments = ("--labels", labels, tmp_path / "mutants.parquet", "--backbone", backbone, *QUICK)
    out = tmp_path / "prm"
    assert run(out, *arguments, "--lora.rank", "2", "--balance") == 0
    shown = capsys.readouterr().out
    report = json.loads((out / "training.json").read_text())["report"]
    assert report["sources"] == {"hand": {"hand": 80}, "mutation": {"hand": 20}}
    assert report["n_train"] + report["n_validation"] == 100
    assert "labels: 80 by hand, 20 by mutation" in shown
    assert f"trained on {report['n_train']} programs, {report['n_validation']} held out" in shown
    auc = report["held_out"]["local_auc"]
    assert f"local_auc             {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}]" in shown
    assert "train-prm: 6/6" in caplog.text
    assert "eta" in caplog.text
    assert ProcessRewardModel.from_pretrained(out).identity == report["identity"]
    assert "| lora.rank | `2` |" in (out / "README.md").read_text()

    before = {path: path.read_bytes() for path in out.iterdir()}
    assert run(out, *arguments, "--lora.rank", "2", "--balance") == 0  # nothing is left to do
    assert capsys.readouterr().out == shown
    assert {path: path.read_bytes() for path in out.iterdir()} == before
    assert run(out, *arguments, "--seed", "3") == 2
    assert "trained on other labels, configuration or backbone" in capsys.readouterr().err


def test_the_seed_of_the_command_line_is_that_of_the_training(tmp_path, backbone, labels):
    for seed in ("0", "1"):
        assert run(tmp_path / seed, "--labels", labels, "--backbone", backbone, *QUICK, "--seed", seed) == 0
    identities = [
        json.loads((tmp_path / seed / "training.json").read_text())["report"]["identity"] for seed in "01"
    ]
    assert identities[0] != identities[1]
    assert "| seed | `1` |" in (tmp_path / "1" / "README.md").read_text()


def test_only_selected_programs_are_trained_on(tmp_path, backbone, labels):
    out = tmp_path / "prm"
    chosen = ("--selection.strategy", "revised_only")
    assert run(out, "--labels", labels, "--backbone", backbone, *QUICK, *chosen) == 0
    report = json.loads((out / "training.json").read_text())["report"]
    n_passing = sum(
        json.loads(line)["program"]["verdict"] == "passed" for line in labels.read_text().splitlines()
    )
    assert report["n_train"] + report["n_validation"] == n_passing < 80  # no program here is revised


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--labels": "nowhere.jsonl"}, "no file of labels at nowhere.jsonl"),
        ({"--backbone": "./nowhere"}, "--backbone must name the folder of a causal LM, got ./nowhere"),
        ({"--head": "sum"}, "unknown PRM head 'sum'"),
        ({"--train": "head", "--lora.rank": "2"}, "lora trains the backbone"),
        ({"--patience": "2", "--validation-fraction": "0"}, "patience=2 needs held-out tasks"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(tmp_path, backbone, labels, capsys, changes, message):
    options = {"--labels": labels, "--backbone": backbone, **changes}
    assert run(tmp_path / "prm", *(part for pair in options.items() for part in pair)) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "prm").exists()


def test_a_bad_row_is_named_by_file_row_and_field(tmp_path, backbone, labels, capsys):
    row = json.loads(labels.read_text().splitlines()[0])
    path = tmp_path / "bad.jsonl"
    append_rows(path, [row, {**row, "labels": [1.0, "wrong"]}])
    assert run(tmp_path / "prm", "--labels", path, "--backbone", backbone, *QUICK) == 2
    assert f"{path}, row 2: field 'labels' must be float or int, got 'wrong'" in capsys.readouterr().err


def test_labels_of_another_tokenizer_are_refused(tmp_path, tokenizer, backbone, capsys):
    item = labeled_program(tokenizer, 0).to_row()
    item["program"]["token_ids"] = [len(tokenizer) + 5]
    append_rows(tmp_path / "foreign.jsonl", [item])
    assert run(tmp_path / "prm", "--labels", tmp_path / "foreign.jsonl", "--backbone", backbone, *QUICK) == 2
    assert "it was written with another tokenizer" in capsys.readouterr().err


def test_a_file_is_no_folder_to_write_to(tmp_path, backbone, labels, capsys):
    (tmp_path / "file").touch()
    assert run(tmp_path / "file", "--labels", labels, "--backbone", backbone, *QUICK) == 2
    assert "file is a file; --out must name a folder" in capsys.readouterr().err


def test_options_are_checked(tmp_path):
    with pytest.raises(ValueError, match="--labels must name at least one file"):
        TrainPRMOptions(labels=(), backbone="model", out=tmp_path)
    with pytest.raises(ValueError, match="threads must not be negative, got -1"):
        TrainPRMOptions(labels=(tmp_path,), backbone="model", out=tmp_path, threads=-1)


@pytest.mark.slow
@pytest.mark.parametrize("way", [(), ("--lora.rank", "2", "--lora.dropout", "0.1")], ids=["all", "lora"])
def test_killed_at_any_moment_it_ends_with_the_same_bytes(tmp_path, backbone, labels, way):
    settings = ["--epochs", "12", "--batch-size", "4", "--n-validations", "6", "--checkpoint-every", "3"]
    code = "from agents.cli import entry; entry()"

    def start(name):
        command = [sys.executable, "-c", code, "train-prm", "--out", str(tmp_path / name), "--threads", "1"]
        command += ["--labels", str(labels), "--backbone", str(backbone), "--device", "cpu", *settings, *way]
        return subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    began = time.monotonic()
    assert start("whole").wait(200) == 0
    whole_time = time.monotonic() - began
    rng, kills = random.Random(0), 0
    checkpoint, card = tmp_path / "killed/training.safetensors", tmp_path / "killed/training.json"
    while kills < 6 and not card.exists():
        child, deadline = start("killed"), time.monotonic() + 100
        # the first kill strikes early, later ones once this process has trained on: some training is left
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        if kills:
            while child.poll() is None and time.monotonic() < deadline:
                if checkpoint.exists() and checkpoint.stat().st_mtime_ns > before:
                    break
                time.sleep(0.002)
            time.sleep(rng.random() * 0.1)
        else:
            time.sleep(rng.random() * 0.3 * whole_time)
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            kills += 1
        child.wait()
    assert kills >= 2
    assert start("killed").wait(200) == 0
    names = {"model.safetensors", "head.safetensors", "README.md", "curve.svg", "config.json", "prm.json"}
    for name in sorted(names):
        one, other = (tmp_path / run / name for run in ("whole", "killed"))
        assert one.read_bytes() == other.read_bytes(), name
    reports = [
        json.loads((tmp_path / run / "training.json").read_text())["report"] for run in ("whole", "killed")
    ]
    assert {**reports[0], "cpu_s": 0} == {**reports[1], "cpu_s": 0}
    assert not checkpoint.exists()
