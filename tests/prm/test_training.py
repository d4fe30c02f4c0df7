import json
import math
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from prm.config import PRMConfig, in_validation, learning_rate_at
from prm.evaluation import evaluate_prm
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram
from prm.training import PRMReport, train_prm

Digits = Callable[[range], list[LabeledProgram]]
QUICK = PRMConfig(epochs=1.0, batch_size=16, n_validations=2, checkpoint_every=3)


class StoppedError(Exception):
    """A run ended from outside."""


@pytest.fixture
def train(backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Callable[..., PRMReport]:
    def run(labeled: list[LabeledProgram], folder: Path, config: PRMConfig = QUICK, **rest: Any) -> PRMReport:
        return train_prm(labeled, config, backbone=backbone, tokenizer=tokenizer, folder=folder, **rest)

    return run


def stop_at(step: int) -> Callable[[int, int, Mapping[str, float]], None]:
    def progress(done: int, total: int, metrics: Mapping[str, float]) -> None:
        if done == step:
            raise StoppedError

    return progress


def test_it_learns_where_programs_first_go_wrong(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    config = PRMConfig(epochs=3.0, learning_rate=5e-3, batch_size=64)
    report = train(digits(range(3000)), tmp_path, config)
    metrics = evaluate_prm(
        ProcessRewardModel.from_pretrained(tmp_path), digits(range(10_000, 10_300)), n_bootstrap=0
    )
    assert report.local_auc is not None
    assert report.local_auc > 0.97
    assert metrics.local_auc.value is not None
    assert metrics.local_auc.value > 0.97
    assert metrics.first_error_accuracy.value is not None
    assert metrics.first_error_accuracy.value > 0.7


@pytest.mark.slow
def test_reading_all_tokens_of_a_line_beats_reading_its_newline(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    first_error = {}
    for head in ("token_sum", "newline"):
        config = PRMConfig(head=head, epochs=3.0, learning_rate=5e-3, batch_size=64)
        first_error[head] = train(digits(range(3000)), tmp_path / head, config).first_error_accuracy
    assert first_error["token_sum"] > first_error["newline"]


def test_progress_counts_every_step(train: Callable[..., PRMReport], digits: Digits, tmp_path: Path) -> None:
    seen: list[tuple[int, int, Mapping[str, float]]] = []
    report = train(digits(range(100)), tmp_path, progress=lambda *row: seen.append(row))
    assert [done for done, _, _ in seen] == list(range(1, report.n_steps + 1))
    assert {total for _, total, _ in seen} == {report.n_steps}
    assert all(math.isfinite(metrics["loss"]) for _, _, metrics in seen)
    assert [done for done, _, metrics in seen if "local_auc" in metrics] == [
        row["step"] for row in report.history
    ]


def test_the_best_weights_are_kept(train: Callable[..., PRMReport], digits: Digits, tmp_path: Path) -> None:
    report = train(digits(range(200)), tmp_path, replace(QUICK, n_validations=6, learning_rate=2e-2))
    best = max(row["local_auc"] for row in report.history)
    assert report.local_auc == best
    assert next(row for row in report.history if row["step"] == report.best_step)["local_auc"] == best
    held_out = [
        item for item in digits(range(200)) if in_validation(item.program.task_id, fraction=0.1, seed=0)
    ]
    model = ProcessRewardModel.from_pretrained(tmp_path)
    assert model.identity == report.identity
    assert evaluate_prm(model, held_out, n_bootstrap=0).local_auc.value == pytest.approx(best)


def test_without_validation_the_last_weights_are_kept(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    report = train(digits(range(50)), tmp_path, replace(QUICK, validation_fraction=0.0))
    assert (report.n_train, report.n_validation) == (50, 0)
    assert report.best_step == report.n_steps
    assert report.local_auc is None


@pytest.mark.parametrize("step", [2, 3, 8])
def test_a_stopped_run_goes_on_bit_for_bit(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path, step: int
) -> None:
    straight = train(digits(range(140)), tmp_path / "straight")
    with pytest.raises(StoppedError):
        train(digits(range(140)), tmp_path / "resumed", progress=stop_at(step))
    resumed = train(digits(range(140)), tmp_path / "resumed")
    assert replace(resumed, cpu_s=0.0) == replace(straight, cpu_s=0.0)
    names = {path.name for path in (tmp_path / "straight").iterdir()}
    assert {path.name for path in (tmp_path / "resumed").iterdir()} == names
    assert "training.safetensors" not in names


def test_a_resumed_run_repeats_no_finished_checkpoint(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        train(digits(range(140)), tmp_path, progress=stop_at(5))
    steps: list[int] = []
    train(digits(range(140)), tmp_path, progress=lambda done, *_: steps.append(done))
    assert steps[0] == 4  # the newest checkpoint is of step 3


KILLED = """
    import importlib.util, os, signal, sys
    spec = importlib.util.spec_from_file_location("conftest", sys.argv[1])
    setup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(setup)
    import torch
    from prm.config import PRMConfig
    from prm.training import train_prm
    torch.set_num_threads(1)
    tokenizer = setup.make_tokenizer()
    train_prm(
        [setup.digit_program(tokenizer, number) for number in range(140)],
        PRMConfig(epochs=1.0, batch_size=16, n_validations=2, checkpoint_every=3),
        backbone=setup.make_backbone(), tokenizer=tokenizer, folder=sys.argv[2],
        progress=lambda done, *_: os.kill(os.getpid(), signal.SIGKILL) if done == 7 else None,
    )
"""


@pytest.mark.slow
def test_a_killed_process_loses_nothing(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    command = [sys.executable, "-c", textwrap.dedent(KILLED)]
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [*command, str(Path(__file__).with_name("conftest.py")), str(tmp_path / "killed")],
        env={**os.environ, "PYTHONPATH": str(root)},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "killed" / "training.safetensors").exists()
    resumed = train(digits(range(140)), tmp_path / "killed")
    straight = train(digits(range(140)), tmp_path / "straight")
    assert resumed.identity == straight.identity


def test_a_finished_run_is_not_run_again(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    report = train(digits(range(60)), tmp_path)
    assert train(digits(range(60)), tmp_path, progress=stop_at(1)) == report


@pytest.mark.parametrize("change", [{"seed": 1}, {"head": "newline"}, {"learning_rate": 1e-4}])
def test_another_run_is_never_overwritten(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path, change: dict[str, Any]
) -> None:
    report = train(digits(range(60)), tmp_path)
    with pytest.raises(ValueError, match="trained on other labels, configuration or backbone"):
        train(digits(range(60)), tmp_path, replace(QUICK, **change))
    with pytest.raises(ValueError, match="trained on other labels, configuration or backbone"):
        train(digits(range(61)), tmp_path)
    assert ProcessRewardModel.from_pretrained(tmp_path).identity == report.identity


def test_another_runs_checkpoint_is_refused(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    with pytest.raises(StoppedError):
        train(digits(range(140)), tmp_path, progress=stop_at(4))
    with pytest.raises(ValueError, match=r"training\.safetensors belongs to another run"):
        train(digits(range(150)), tmp_path)
    assert train(digits(range(140)), tmp_path).n_steps == 8


def test_a_damaged_checkpoint_is_refused(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    for damage in (
        lambda path: path.write_bytes(b"junk"),
        lambda path: save_file({"weight": torch.zeros(1)}, path),
    ):
        damage(tmp_path / "training.safetensors")
        with pytest.raises(ValueError, match=r"not a training checkpoint|belongs to another run"):
            train(digits(range(60)), tmp_path)


def test_a_foreign_reward_model_is_never_overwritten(
    train: Callable[..., PRMReport],
    digits: Digits,
    random_model: Callable[..., ProcessRewardModel],
    tmp_path: Path,
) -> None:
    random_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a reward model but no readable training\.json"):
        train(digits(range(60)), tmp_path)


@pytest.mark.parametrize("name", ["config.json", "README.md"])
def test_files_that_are_no_reward_models_are_never_overwritten(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"holds a {name} of something else; choose another folder"):
        train(digits(range(60)), tmp_path)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_nothing_to_train_on_is_refused(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="nothing to train on: 0 labelled programs"):
        train([], tmp_path)
    one_task = [item for item in digits(range(500)) if item.program.task_id == "digits/123"]
    held_out = next(seed for seed in range(99) if in_validation("digits/123", fraction=0.5, seed=seed))
    with pytest.raises(ValueError, match=f"{len(one_task)} of them held out"):
        train(one_task, tmp_path, replace(QUICK, validation_fraction=0.5, seed=held_out))
    assert not list(tmp_path.iterdir())


def test_the_report_is_json(train: Callable[..., PRMReport], digits: Digits, tmp_path: Path) -> None:
    report = train(digits(range(60)), tmp_path)
    written = json.loads((tmp_path / "training.json").read_text())["report"]
    assert written == json.loads(json.dumps(report.to_row()))
    assert report.n_train + report.n_validation == 60


@given(st.text(max_size=20), st.integers(0, 3))
def test_a_larger_fraction_holds_out_more(task_id: str, seed: int) -> None:
    held = [in_validation(task_id, fraction=fraction, seed=seed) for fraction in (0.0, 0.2, 0.6, 1.0)]
    assert held == sorted(held)
    assert (held[0], held[-1]) == (False, True)


def test_the_split_follows_fraction_and_seed() -> None:
    tasks = [f"stepwise/{number}" for number in range(2000)]
    held = [{task for task in tasks if in_validation(task, fraction=0.1, seed=seed)} for seed in (0, 1)]
    assert all(150 < len(chosen) < 250 for chosen in held)
    assert held[0] != held[1]
    share = 0.7549  # of "0:HumanEval/0", the same in every process and on every machine
    assert in_validation("HumanEval/0", fraction=share + 0.001, seed=0)
    assert not in_validation("HumanEval/0", fraction=share - 0.001, seed=0)


def test_learning_rate_warms_up_and_falls_to_its_share() -> None:
    config = PRMConfig(learning_rate=1.0, warmup_fraction=0.2, final_lr_fraction=0.1)
    rates = [learning_rate_at(step, 10, config) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[-1] == pytest.approx(0.1)
    assert rates[2:] == sorted(rates[2:], reverse=True)


@pytest.mark.parametrize("n_steps", [1, 2, 3])
def test_the_shortest_runs_have_a_learning_rate(n_steps: int) -> None:
    rates = [learning_rate_at(step, n_steps, PRMConfig()) for step in range(n_steps)]
    assert all(0 < rate <= PRMConfig().learning_rate for rate in rates)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("head", "sum", "unknown PRM head 'sum'"),
        ("learning_rate", 0.0, "learning_rate must be positive and finite, got 0.0"),
        ("learning_rate", math.nan, "learning_rate must be positive and finite, got nan"),
        ("epochs", -1.0, "epochs must be positive"),
        ("epochs", math.inf, "epochs must be positive and finite, got inf"),
        ("batch_size", 0, "batch_size must be at least 1, got 0"),
        ("n_validations", 0, "n_validations must be at least 1"),
        ("warmup_fraction", 1.5, r"warmup_fraction must be in \[0, 1\], got 1.5"),
        ("validation_fraction", 1.0, r"validation_fraction must be in \[0, 1\), got 1.0"),
        ("weight_decay", -0.1, "weight_decay must not be negative"),
    ],
)
def test_a_bad_setting_is_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PRMConfig(**{field: value})
