"""Which weights train, in which arithmetic, and what is saved: PRMConfig's options on a whole training."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModel, LlamaForCausalLM, PreTrainedTokenizerFast

from prm.backbone import load_trained_weights, trained_weights
from prm.batching import encode_labeled
from prm.config import PRMConfig, in_validation
from prm.evaluation import evaluate_prm
from prm.heads import HEADS
from prm.lora import LoRAConfig, load_adapter, merge_adapter
from prm.model import ProcessRewardModel
from prm.optimization import gradient_step, make_optimizer, training_programs
from prm.program import LabeledProgram
from prm.trainable import finish_training, recompute_activations, trainable_model
from prm.training import PRMReport, train_prm

Digits = Callable[[range], list[LabeledProgram]]
QUICK = PRMConfig(epochs=1.0, batch_size=16, n_validations=2, checkpoint_every=3)
LORA = LoRAConfig(rank=4, alpha=8.0)
WAYS = {
    "all": {},
    "head": {"train": "head"},
    "lora": {"lora": LORA},
    "lora with dropout": {"lora": replace(LORA, dropout=0.2)},
    "bfloat16": {"dtype": "bfloat16"},
    "head on bfloat16": {"train": "head", "dtype": "bfloat16"},
    "lora on bfloat16": {"lora": LORA, "dtype": "bfloat16"},
    "recomputed": {"gradient_checkpointing": True},
    "lora, recomputed": {"lora": LORA, "gradient_checkpointing": True},
    "balanced": {"balance": True},
}


def few(*quick: str) -> Any:
    """All ways; those that are not named run among the slow tests."""
    return pytest.mark.parametrize(
        "way", [way if way in quick else pytest.param(way, marks=pytest.mark.slow) for way in WAYS]
    )


class StoppedError(Exception):
    """A run ended from outside."""


@pytest.fixture
def train(backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Callable[..., PRMReport]:
    def run(labeled: list[LabeledProgram], folder: Path, config: PRMConfig = QUICK, **rest: Any) -> PRMReport:
        return train_prm(labeled, config, backbone=backbone, tokenizer=tokenizer, folder=folder, **rest)

    return run


@pytest.fixture
def make(backbone: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast) -> Callable[..., ProcessRewardModel]:
    return lambda **changes: trainable_model(backbone, tokenizer, PRMConfig(**changes), "cpu")


def step(model: ProcessRewardModel, labeled: list[LabeledProgram]) -> float:
    optimizer = make_optimizer(model, learning_rate=1e-2)
    programs = training_programs(model, labeled)
    return gradient_step(model, optimizer, programs, micro_batch_tokens=200, max_grad_norm=1.0)


@few("lora", "head on bfloat16")
def test_the_saved_model_is_plain_and_what_the_report_says(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path, way: str
) -> None:
    report = train(digits(range(140)), tmp_path, replace(QUICK, **WAYS[way]))
    model = ProcessRewardModel.from_pretrained(tmp_path)
    assert model.identity == report.identity
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    assert not any("lora" in name for name in model.state_dict())
    held_out = [
        item for item in digits(range(140)) if in_validation(item.program.task_id, fraction=0.1, seed=0)
    ]
    measured = evaluate_prm(model, held_out, groupings={})
    assert report.held_out["auc"]["value"] == measured.auc.value
    assert report.held_out["auc"]["low"] == measured.auc.low
    AutoModel.from_pretrained(tmp_path)


@few("head", "lora with dropout", "bfloat16")
def test_a_stopped_run_goes_on_bit_for_bit_in_every_way(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path, way: str
) -> None:
    config = replace(QUICK, **WAYS[way])

    def stop(done: int, *_: Any) -> None:
        if done == 5:
            raise StoppedError

    straight = train(digits(range(140)), tmp_path / "straight", config)
    with pytest.raises(StoppedError):
        train(digits(range(140)), tmp_path / "resumed", config, progress=stop)
    resumed = train(digits(range(140)), tmp_path / "resumed", config)
    assert replace(resumed, cpu_s=0.0) == replace(straight, cpu_s=0.0)
    for name in ("README.md", "curve.svg", "model.safetensors"):
        one, other = (tmp_path / run / name for run in ("straight", "resumed"))
        assert one.read_bytes() == other.read_bytes()


def test_a_checkpoint_holds_what_trains_and_nothing_else(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    def stop(done: int, *_: Any) -> None:
        if done == 5:  # a validation and a checkpoint are behind
            raise StoppedError

    with pytest.raises(StoppedError):
        train(digits(range(140)), tmp_path, replace(QUICK, train="head"), progress=stop)
    names = {name for name in load_file(tmp_path / "training.safetensors") if "optimizer" not in name}
    assert names == {"model.head.weight", "model.head.bias"}


def test_weights_of_another_model_are_not_loaded(make: Callable[..., ProcessRewardModel]) -> None:
    model = make(train="head")
    weights = {name: weight + 1 for name, weight in trained_weights(model).items()}
    assert weights.keys() == {"head.weight", "head.bias"}
    load_trained_weights(model, weights)
    assert torch.equal(model.head.bias.detach(), torch.ones(1))
    for bad in (
        {"head.bias": weights["head.bias"]},
        {**weights, "head.weight": torch.zeros(1, 5)},
        {**weights, "tail": torch.zeros(1)},
    ):
        with pytest.raises(ValueError, match=r"the weights are not of this model: '(head\.weight|tail)'"):
            load_trained_weights(model, bad)
    assert torch.equal(model.head.weight.detach(), weights["head.weight"])


@pytest.mark.parametrize("way", ["lora", "head", "lora on bfloat16", "head on bfloat16"])
def test_a_frozen_backbone_does_not_move(
    make: Callable[..., ProcessRewardModel], digits: Digits, way: str
) -> None:
    model = make(**WAYS[way])
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad():
        model.head.weight.normal_()
    before["head.weight"] = model.head.weight.detach().clone()
    for _ in range(2):
        step(model, digits(range(16)))
    moved = {name for name, weight in model.named_parameters() if not torch.equal(weight, before[name])}
    assert {"head.weight", "head.bias"} <= moved
    rest = moved - {"head.weight", "head.bias"}
    assert all("lora_" in name for name in rest)
    assert bool(rest) == ("lora" in way)


@pytest.mark.slow
def test_a_backbone_that_knows_the_language_needs_little_to_train(
    train: Callable[..., PRMReport], digits: Digits, tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    train(digits(range(3000)), tmp_path / "all", PRMConfig(epochs=3.0, learning_rate=5e-3, batch_size=64))
    n_weights = {}
    for way in ("lora", "head"):
        config = PRMConfig(epochs=3.0, learning_rate=1e-2, batch_size=32, **WAYS[way])
        report = train_prm(
            digits(range(5000, 5400)), config, backbone=tmp_path / "all", folder=tmp_path / way
        )
        assert report.losses[-1] < 0.1
        assert report.held_out["local_auc"]["value"] > 0.9
        n_weights[way] = report.n_weights
    assert n_weights["head"] == 33
    assert 33 < n_weights["lora"] < 10_000


def test_the_kept_adapter_makes_the_saved_backbone_of_the_first_one(
    train: Callable[..., PRMReport], digits: Digits, backbone: LlamaForCausalLM, tmp_path: Path
) -> None:
    train(digits(range(140)), tmp_path, replace(QUICK, lora=LORA, keep_adapter=True))
    adapted = load_adapter(backbone.base_model, tmp_path / "adapter")
    merged, saved = merge_adapter(adapted).state_dict(), AutoModel.from_pretrained(tmp_path).state_dict()
    assert merged.keys() == saved.keys()
    assert all(torch.equal(weight, saved[name]) for name, weight in merged.items())


def test_a_model_with_an_adapter_is_saved_merged_and_goes_on_training(
    make: Callable[..., ProcessRewardModel], digits: Digits, tmp_path: Path
) -> None:
    model = make(lora=LORA)
    for _ in range(3):
        step(model, digits(range(16)))
    model.save_pretrained(tmp_path)
    programs = [encode_labeled(item, model.newlines) for item in digits(range(8))]
    read = ProcessRewardModel.from_pretrained(tmp_path).read(programs)
    for one, other in zip(read, model.read(programs), strict=True):
        np.testing.assert_allclose(one.scores, other.scores, atol=1e-5)
    step(model, digits(range(16)))  # saving has merged a copy
    assert any("lora_" in name for name, _ in model.named_parameters())


def test_what_trains_is_float32_and_the_head_reads_float32(make: Callable[..., ProcessRewardModel]) -> None:
    kinds = {}
    for way in ("head on bfloat16", "lora on bfloat16", "bfloat16"):
        model = make(**WAYS[way])
        kinds[way] = {weight.dtype for weight in model.parameters() if not weight.requires_grad}
        assert {weight.dtype for weight in model.parameters() if weight.requires_grad} == {torch.float32}
        with torch.no_grad():
            model.head.weight.normal_()
            outputs = model(torch.tensor([[5, 9, 60]]), torch.ones(1, 3))
        assert outputs.dtype == torch.float32
        plain = make()
        plain.head.load_state_dict(model.head.state_dict())
        with torch.no_grad():
            exact = plain(torch.tensor([[5, 9, 60]]), torch.ones(1, 3))
        assert not torch.equal(outputs, exact)
        torch.testing.assert_close(outputs, exact, atol=0.1, rtol=0.05)
    assert kinds == {
        "head on bfloat16": {torch.bfloat16},
        "lora on bfloat16": {torch.bfloat16},
        "bfloat16": set(),
    }


def test_finished_it_is_what_is_read_back(make: Callable[..., ProcessRewardModel], tmp_path: Path) -> None:
    for way in WAYS.values():
        model = make(**way)
        finish_training(model)
        model.save_pretrained(tmp_path)
        assert ProcessRewardModel.from_pretrained(tmp_path).identity == model.identity


@pytest.mark.parametrize("way", [{}, {"lora": LORA}])
def test_recomputed_activations_change_no_gradient(
    make: Callable[..., ProcessRewardModel],
    digits: Digits,
    way: dict[str, Any],
) -> None:
    gradients = []
    for recomputed in (False, True):
        model = make(**way, gradient_checkpointing=recomputed)
        torch.manual_seed(0)
        torch.nn.init.normal_(model.head.weight)
        layer, calls = model.backbone.layers[0].mlp, []
        layer.register_forward_pre_hook(lambda *_, calls=calls: calls.append(1))
        programs = training_programs(model, digits(range(8)))
        optimizer = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=0.0)
        gradient_step(model, optimizer, programs, micro_batch_tokens=10_000, max_grad_norm=1e9)
        gradients.append([weight.grad for weight in model.parameters() if weight.requires_grad])
        assert len(calls) == 1 + recomputed
        model.read(programs)
        assert len(calls) == 2 + recomputed  # nothing is computed twice where nothing is learnt
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_a_backbone_that_cannot_recompute_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear cannot recompute its activations"):
        recompute_activations(torch.nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "tail"}, "unknown part to train 'tail'"),
        ({"dtype": "float16"}, "unknown dtype 'float16'"),
        ({"patience": -1}, "patience must not be negative, got -1"),
        ({"patience": 1, "validation_fraction": 0.0}, "patience=1 needs held-out tasks"),
        ({"train": "head", "lora": LORA}, "lora trains the backbone, which train='head' leaves"),
        ({"train": "head", "gradient_checkpointing": True}, "saves nothing with train='head'"),
        ({"keep_adapter": True}, "keep_adapter needs an adapter to keep"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PRMConfig(**changes)


def soft(item: LabeledProgram, share: float) -> LabeledProgram:
    """Every line passes this share of its completions."""
    return replace(item, labels=(2 * share - 1,) * len(item.labels))


@pytest.mark.parametrize("share", [0.9, 0.2])
@pytest.mark.parametrize("head", ["newline", "newline_bce"])
def test_soft_labels_are_learnt_as_they_are(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path, head: str, share: float
) -> None:
    labeled = [soft(item, share) for item in digits(range(200))]
    config = replace(QUICK, head=head, epochs=4.0, learning_rate=1e-2, validation_fraction=0.0)
    report = train(labeled, tmp_path, config)
    model = ProcessRewardModel.from_pretrained(tmp_path)
    scores = np.concatenate(model.score_programs([item.program for item in labeled]))
    np.testing.assert_allclose(scores, 2 * share - 1, atol=0.05)
    # the least loss that soft labels allow: none for a regression, their entropy for probabilities
    entropy = -share * np.log(share) - (1 - share) * np.log(1 - share)
    assert report.losses[-1] == pytest.approx(0.0 if head == "newline" else entropy, abs=0.01)


def test_patience_ends_a_run_that_gets_no_better(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    config = replace(QUICK, epochs=4.0, n_validations=16, learning_rate=3e-2)
    whole = train(digits(range(200)), tmp_path / "whole", config)
    steps = [row["step"] for row in whole.history]
    curve = [row["local_auc"] for row in whole.history]
    patient = 2
    best, expected = 0, steps[-1]
    for place, value in enumerate(curve):
        best = place if value >= curve[best] else best
        if place - best == patient:
            expected = steps[place]
            break
    assert expected < steps[-1], "the curve must fall for the test to mean anything"
    report = train(digits(range(200)), tmp_path / "early", replace(config, patience=patient))
    assert (report.n_steps, report.n_planned) == (expected, whole.n_steps)
    assert report.best_step == steps[best]
    assert report.history == whole.history[: len(report.history)]
    assert report.history[-1]["step"] == expected
    assert report.identity == ProcessRewardModel.from_pretrained(tmp_path / "early").identity
    assert f"stopped after {expected} of {whole.n_steps} steps" in (tmp_path / "early/README.md").read_text()


def test_history_and_losses_are_kept_whole_over_a_stop(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    seen: list[float] = []
    report = train(
        digits(range(140)),
        tmp_path,
        replace(QUICK, head="newline_bce"),
        progress=lambda _done, _total, metrics: seen.append(metrics["loss"]),
    )
    assert list(report.losses) == seen
    assert [row["step"] for row in report.history] == [4, 8]
    assert report.history[0]["training_loss"] == pytest.approx(np.mean(seen[:4]))
    assert report.history[1]["training_loss"] == pytest.approx(np.mean(seen[4:]))
    # an untrained head gives log 2; a little training must bring held-out programs below it
    assert 0 < report.history[1]["validation_loss"] < np.log(2)
    assert [row["step"] for row in report.curve] == [*range(1, 9), 4, 8]
    assert json.loads((tmp_path / "training.json").read_text())["report"]["losses"] == seen


def test_the_model_card_says_what_it_was_trained_on_and_measured(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    labeled = [
        replace(item, source="mutation") if place % 4 == 0 else item
        for place, item in enumerate(digits(range(200)))
    ]
    report = train(labeled, tmp_path, replace(QUICK, lora=LORA, balance=True))
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: codegym\n")
    for expected in (
        f"Identity `{report.identity}`",
        "| `mutation` | `scripted/0` | 50 |",
        "| `scripted` | `scripted/1` | 100 |",
        f"{report.n_train} programs, {report.n_validation} more were held out",
        f"{report.n_weights:,} weights of an adapter and the head",
        "| lora.rank | `4` |",
        "| balance | `True` |",
        "![loss and AUC](curve.svg)",
        'ProcessRewardModel.from_pretrained(".")',
    ):
        assert expected in card, expected
    auc = report.held_out["auc"]
    assert f"| auc | {auc['value']:.3f} [{auc['low']:.3f}, {auc['high']:.3f}] |" in card
    assert report.sources == {
        "mutation": {"scripted/0": 50},
        "scripted": {"scripted/0": 50, "scripted/1": 100},
    }
    assert str(tmp_path) not in card


def test_names_in_labels_write_no_markdown_of_their_own(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    labeled = [replace(item, source="a`|\n# b") for item in digits(range(40))]
    train(labeled, tmp_path, QUICK)
    assert "| `a'/ # b` |" in (tmp_path / "README.md").read_text()


def test_without_held_out_tasks_the_card_says_that_nothing_is_known(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path
) -> None:
    report = train(digits(range(40)), tmp_path, replace(QUICK, validation_fraction=0.0))
    assert report.held_out == {}
    assert "the quality of this model is not known" in (tmp_path / "README.md").read_text()


def test_a_new_head_is_one_line_in_the_table(
    train: Callable[..., PRMReport], digits: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It trains, and the model card names its way to read a line."""

    def highest_of_tokens(outputs: Tensor, line_of_token: Tensor, line_ends: Tensor) -> Tensor:
        lines = torch.arange(line_ends.shape[1])[None, :, None]
        masked = outputs[:, None, :].where(line_of_token[:, None, :] == lines, -1e4)
        return masked.amax(dim=2)

    monkeypatch.setitem(HEADS, "highest", replace(HEADS["newline_bce"], read=highest_of_tokens))
    train(digits(range(40)), tmp_path, replace(QUICK, head="highest"))
    card = (tmp_path / "README.md").read_text()
    assert "Head: `highest`: for each line, highest of tokens speaks of the whole program" in card
