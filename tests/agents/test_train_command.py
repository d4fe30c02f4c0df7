"""`codegym train` as a user runs it, on a tiny untrained model and real tasks."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from transformers import AutoModelForCausalLM

from agents.baselines.group import GRPOConfig
from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.cli import main
from agents.commands.train import parse
from agents.psgpo import PSGPO
from agents.table import load_agent
from agents.training import train_to_folder
from codegym import load_tasks
from codegym.errors import UnknownNameError
from codegym.storage import read_rows
from codegym.tasks import write_tasks
from prm.model import ProcessRewardModel

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([task.prompt + task.reference for task in load_tasks("stepwise", limit=8)], 300)


@pytest.fixture(scope="module")
def model(tmp_path_factory, tokenizer):
    folder = tmp_path_factory.mktemp("model")
    tiny = TinyModelConfig(hidden_size=16, n_layers=1, n_heads=2, n_kv_heads=1, intermediate_size=32)
    make_tiny_model(tokenizer, tiny, seed=0).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    path = tmp_path_factory.mktemp("tasks") / "tasks.jsonl"
    write_tasks(path, load_tasks("stepwise", limit=4, horizons=(1, 1)))
    return path


@pytest.fixture
def command(model, tasks, tmp_path):
    return [
        "train", "--model", str(model), "--tasks", str(tasks), "--out", str(tmp_path / "run"),
        "--rollouts-per-iteration", "4", "--samples-per-task", "2", "--max-new-tokens", "8", "--threads", "1",
    ]  # fmt: skip


def weights(folder):
    state = load_agent(folder / "last", toy_env(), device="cpu").policy.state_dict()
    return torch.cat([tensor.flatten() for _, tensor in sorted(state.items())])


def toy_env():
    return gym.make("CodeGen-v0", tasks=load_tasks("stepwise", limit=1), disable_env_checker=True)


def test_a_run_leaves_policy_curve_and_checkpoint(command, tmp_path, capsys):
    assert main([*command, "--agent", "grpo", "--iterations", "2", "--keep", "1"]) == 0
    out = tmp_path / "run"
    assert "in 2 iterations" in capsys.readouterr().out
    assert [row["iteration"] for row in read_rows(out / "curve.jsonl")] == [1, 2]
    assert (out / "policy" / "model.safetensors").is_file()
    assert (out / "step-2" / "model.safetensors").is_file()
    assert json.loads((out / "last" / "state.json").read_text())["agent"] == "GRPO"


@pytest.mark.parametrize("agent", ["psgpo", "rloo"])
def test_every_trainer_trains(command, tmp_path, agent):
    assert main([*command, "--agent", agent, "--iterations", "1"]) == 0
    assert len(list(read_rows(tmp_path / "run" / "curve.jsonl"))) == 1


def test_more_iterations_go_on_from_a_finished_run(command, tmp_path):
    for n in (1, 3):
        assert main([*command, "--agent", "rloo", "--iterations", str(n)]) == 0
    rows = list(read_rows(tmp_path / "run" / "curve.jsonl"))
    assert [row["iteration"] for row in rows] == [1, 2, 3]


def test_a_reward_model_pays_lines_and_starts_the_critic(command, tokenizer, model, tmp_path):
    prm = ProcessRewardModel.from_backbone(AutoModelForCausalLM.from_pretrained(model), tokenizer)
    prm.save_pretrained(tmp_path / "prm")
    given = ["--reward", "process", "--critic-init", "prm", "--iterations", "1"]
    assert main([*command, *given, "--prm", str(tmp_path / "prm")]) == 0
    (row,) = read_rows(tmp_path / "run" / "curve.jsonl")
    assert "score_on_failing" in row


def test_another_setting_does_not_overwrite_a_run(command, capsys):
    assert main([*command, "--iterations", "1"]) == 0
    assert main([*command, "--iterations", "1", "--gamma", "0.5"]) == 2
    assert "config.gamma: the folder has 1.0, asked for 0.5" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--agent", "random"], "agent 'random' has nothing to learn"),
        (["--agent", "grop"], "unknown agent 'grop'"),
        (["--tasks", "stepwize"], "unknown task source 'stepwize'"),
        (["--model", "./nowhere"], "--model ./nowhere could not be loaded"),
        (["--max-memory-gb", "0.00001"], "more than the 1e-05 GiB it may take"),
        (["--sampler-options", "rows", "3"], "unknown option of sampler 'transformers' 'rows'"),
    ],
)
def test_bad_input_is_said_in_a_line(command, capsys, given, message):
    assert main([*command, *given]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["--reward", "process"], "--reward process needs the reward model"),
        (["--critic-init", "prm"], "--critic-init prm needs the reward model"),
        (["--iterations", "0"], "iterations must be at least 1, got 0"),
        (["--agent", "grpo", "--critic-init", "policy"], "--critic-init"),
    ],
)
def test_options_that_do_not_go_together_are_refused(command, capsys, given, message):
    with pytest.raises(SystemExit) as stopped:
        main([*command, *given])
    assert stopped.value.code == 2
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())


def test_the_agent_decides_which_settings_there_are():
    options = parse(
        ["--agent", "grpo", "--model", "m", "--out", "o", "--process-rewards", "--clip-range", "0.1"]
    )
    assert isinstance(options.config, GRPOConfig)
    assert (options.config.process_rewards, options.config.clip_range) == (True, 0.1)
    assert options.config.kl_coef == GRPOConfig().kl_coef
    with pytest.raises(UnknownNameError, match="unknown agent"):
        parse(["--agent", "ppo", "--model", "m", "--out", "o"])


def test_a_curve_row_that_the_checkpoint_does_not_know_is_written_again(toy, tmp_path):
    settings = {"n_iterations": 2, "rollouts_per_iteration": 8, "max_new_tokens": 5}

    def fresh():
        return PSGPO(toy.model(), toy.env(), tokenizer=toy.tokenizer(), device="cpu", **settings)

    (tmp_path / "curve.jsonl").write_text('{"iteration": 1}\n{"iteration": 2}\n{"iteration": 3}\n')
    train_to_folder(fresh(), tmp_path, lambda *_: None)
    rows = list(read_rows(tmp_path / "curve.jsonl"))
    assert [row["iteration"] for row in rows] == [1, 2]
    assert all("success_rate" in row for row in rows)


@pytest.mark.slow
@pytest.mark.parametrize("agent", ["psgpo", "grpo"])
def test_a_run_that_is_killed_at_random_moments_ends_with_the_same_weights(command, tmp_path, agent):
    # untrained programs never pass; length is something to learn
    given = ["--agent", agent, "--iterations", "40", "--reward", "length", "--learning-rate", "3e-3"]
    run = tmp_path / "run"
    straight = [str(tmp_path / "straight") if part == str(run) else part for part in command]
    assert start([*straight, *given]).wait(timeout=240) == 0
    kills = 0
    for delay in (0.05, 0.41, 0.23, 0.87, 0.61):
        child = start([*command, *given])
        began = time.monotonic()
        while not (run / "last").exists() and child.poll() is None and time.monotonic() - began < 120:
            time.sleep(0.02)
        time.sleep(delay)
        kills += child.poll() is None
        child.send_signal(signal.SIGKILL)
        child.wait(timeout=30)
    assert kills >= 2
    assert start([*command, *given]).wait(timeout=240) == 0
    assert torch.equal(weights(run), weights(tmp_path / "straight"))
    curves = [list(read_rows(folder / "curve.jsonl")) for folder in (run, tmp_path / "straight")]
    timeless = [
        [{k: v for k, v in row.items() if k != "seconds" and not k.endswith("_per_s")} for row in rows]
        for rows in curves
    ]
    assert timeless[0] == timeless[1]


@pytest.mark.slow
def test_several_processes_write_one_run_and_go_on_with_it(command, tmp_path):
    for n in (1, 3):
        with socket.socket() as found:
            found.bind(("127.0.0.1", 0))
            port = str(found.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        given = [*command, "--agent", "grpo", "--iterations", str(n), "--keep", "1"]
        children = [
            start(given, stdout=subprocess.PIPE, RANK=str(rank), LOCAL_RANK=str(rank), **shared)
            for rank in range(2)
        ]
        told = [child.communicate(timeout=200)[0].decode() for child in children]
        assert [child.returncode for child in children] == [0, 0]
        assert f"in {n} iterations" in told[0]
        assert told[1] == ""
    out = tmp_path / "run"
    assert [row["iteration"] for row in read_rows(out / "curve.jsonl")] == [1, 2, 3]
    assert (out / "step-3" / "model.safetensors").is_file()
    assert (out / "policy" / "model.safetensors").is_file()
    assert len(list((out / "tensorboard").iterdir())) == 2  # one of each run


def start(arguments, stdout=subprocess.DEVNULL, **environment):
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", "from agents.cli import entry; entry()", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        stderr=subprocess.DEVNULL,
        stdout=stdout,
        start_new_session=True,
    )
