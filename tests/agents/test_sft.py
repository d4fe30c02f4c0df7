"""Supervised fine-tuning: hand-computed losses, exact resume, atomic results, and a model that learns."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.sft import SFTConfig, learning_rate_at, train_sft, weighted_loss
from agents.sft_data import Example, collate, plan_steps, tokenize
from codegym.tasks.operations import OPERATIONS, render
from codegym.tasks.stepwise import load
from codegym.tasks.stepwise_corpus import corpus

ROOT = Path(__file__).parents[2]
PAIRS = list(corpus(160, seed=2, horizons=(1, 3)))
TOKENIZER = train_tokenizer((prompt + completion for prompt, completion in PAIRS), 600)
SHAPE = TinyModelConfig(hidden_size=32, n_layers=1, intermediate_size=64)
QUICK = SFTConfig(batch_tokens=512, checkpoint_every=7, learning_rate=1e-2)


def fresh() -> LlamaForCausalLM:
    return make_tiny_model(TOKENIZER, SHAPE, seed=0)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


def plan(
    examples: list[Example],
    *,
    batch_tokens: int = 1024,
    n_epochs: int = 1,
    curriculum: float = 0.0,
    seed: int = 0,
) -> list[list[int]]:
    return plan_steps(
        examples, batch_tokens=batch_tokens, n_epochs=n_epochs, curriculum=curriculum, seed=seed
    )


class KilledError(Exception):
    """Stands for the moment a process dies."""


def die_at(step: int):
    def report(done: int, total: int, metrics: dict[str, float] | None = None) -> None:
        if done >= step:
            raise KilledError

    return report


def test_the_weighted_loss_on_hand_computed_numbers():
    logits = torch.tensor([[[0.0, 0.0], [0.0, float(np.log(3.0))], [5.0, 0.0]]])
    targets = torch.tensor([[0, 1, 0]])
    # -log(1/2) at weight .5, -log(3/4) at weight 1, nothing at weight 0
    expected = (0.5 * np.log(2) + np.log(4 / 3)) / 1.5
    loss = weighted_loss(logits, targets, torch.tensor([[0.5, 1.0, 0.0]]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_prompts_weigh_less_than_completions_and_padding_nothing():
    examples = tokenize(TOKENIZER, [("a\n", "b\n"), ("a\n", "b\nb\nb\n")])
    ids, weight = collate(examples, pad_id=1, prompt_weight=0.25)
    # tokens: a, newline | b, newline, end of text; the first token is never predicted
    assert weight[0].tolist() == [0.25, 1, 1, 1, 0, 0, 0, 0]
    assert weight[1].tolist() == [0.25, 1, 1, 1, 1, 1, 1, 1]
    assert ids[0, 4].item() == TOKENIZER.eos_token_id
    assert ids[0, 5:].tolist() == [1, 1, 1, 1]


def test_completions_end_with_the_end_of_text():
    for example, (prompt, completion) in zip(tokenize(TOKENIZER, PAIRS[:9]), PAIRS[:9], strict=True):
        assert TOKENIZER.decode(example.token_ids[: example.n_prompt]) == prompt
        assert TOKENIZER.decode(example.token_ids[example.n_prompt : -1]) == completion
        assert example.token_ids[-1] == TOKENIZER.eos_token_id


@pytest.mark.parametrize(("step", "rate"), [(0, 0.25), (1, 0.5), (2, 0.75), (4, 1.0), (12, 0.6), (19, 0.25)])
def test_the_learning_rate_rises_then_falls_in_straight_lines(step: int, rate: float):
    config = SFTConfig(learning_rate=1.0, warmup=0.2, final_learning_rate=0.2)
    assert learning_rate_at(step, 20, config) == pytest.approx(rate)


def test_the_learning_rate_without_warmup_starts_at_the_peak():
    assert learning_rate_at(0, 10, SFTConfig(learning_rate=1.0, warmup=0)) == 1.0
    assert learning_rate_at(9, 10, SFTConfig(learning_rate=1.0, warmup=0)) == pytest.approx(0.1)


def test_batches_hold_every_pair_once_per_epoch_within_the_token_budget():
    examples = tokenize(TOKENIZER, PAIRS)
    batches = plan(examples, batch_tokens=512, n_epochs=2)
    assert sorted(index for batch in batches for index in batch) == sorted([*range(160)] * 2)
    for batch in batches:
        assert len(batch) * max(len(examples[index].token_ids) for index in batch) <= 512


def test_like_lengths_share_a_batch():
    examples = tokenize(TOKENIZER, list(corpus(400, horizons=(1, 8))))
    batches = plan(examples, batch_tokens=1024)
    padded = sum(len(batch) * max(len(examples[index].token_ids) for index in batch) for batch in batches)
    assert sum(len(example.token_ids) for example in examples) / padded > 0.9


def test_epochs_and_seeds_have_their_own_order():
    examples = tokenize(TOKENIZER, PAIRS)

    once = plan(examples, batch_tokens=512)
    assert plan(examples, batch_tokens=512) == once
    assert plan(examples, batch_tokens=512, seed=1) != once
    two = plan(examples, batch_tokens=512, n_epochs=2)
    assert two[: len(once)] == once
    assert two[len(once) :] != once


def test_short_pairs_come_first_where_a_curriculum_asks_for_it():
    examples = tokenize(TOKENIZER, list(corpus(600, horizons=(1, 8))))
    lengths = [len(example.token_ids) for example in examples]

    def mean_length(batches: list[list[int]]) -> float:
        flat = [lengths[index] for batch in batches for index in batch]
        return sum(flat) / len(flat)

    even, short_first = plan(examples), plan(examples, curriculum=1.0)
    assert mean_length(even[: len(even) // 4]) == pytest.approx(mean_length(even), rel=0.15)
    assert mean_length(short_first[: len(short_first) // 4]) < 0.8 * mean_length(even)
    assert mean_length(short_first) == pytest.approx(mean_length(even))


def test_the_first_step_is_the_gradient_of_the_documented_loss(tmp_path: Path):
    """One batch of equal lengths: the same as a plain computation that keeps all logits."""
    pairs = PAIRS[:1] * 3
    model, twin = fresh(), fresh()
    config = SFTConfig(batch_tokens=4096, learning_rate=1e-3, warmup=0)
    metrics = train_sft(model, TOKENIZER, pairs, config, tmp_path / "sft")
    prompt, completion = (TOKENIZER(text)["input_ids"] for text in PAIRS[0])
    ids = torch.tensor([[*prompt, *completion, TOKENIZER.eos_token_id]])
    log_probs = twin(ids, attention_mask=torch.ones_like(ids)).logits.log_softmax(-1)
    taken = log_probs[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
    weight = torch.tensor([0.1] * (len(prompt) - 1) + [1.0] * (len(completion) + 1))
    loss = -(taken * weight).sum() / weight.sum()
    assert metrics.history[0]["loss"] == pytest.approx(loss.item(), rel=1e-5)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(twin.parameters(), config.max_grad_norm)
    optimizer = torch.optim.AdamW(twin.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.01)
    optimizer.step()
    for name, tensor in weights(twin).items():
        torch.testing.assert_close(weights(model)[name], tensor, rtol=0, atol=2e-5)


def test_without_prompt_loss_no_prompt_logits_are_needed_and_the_loss_is_the_completions(tmp_path: Path):
    config = SFTConfig(batch_tokens=4096, learning_rate=1e-3, warmup=0, prompt_weight=0)
    metrics = train_sft(fresh(), TOKENIZER, PAIRS[:1], config, tmp_path / "sft")
    prompt, completion = (TOKENIZER(text)["input_ids"] for text in PAIRS[0])
    ids = torch.tensor([[*prompt, *completion, TOKENIZER.eos_token_id]])
    with torch.no_grad():
        log_probs = fresh()(ids).logits.log_softmax(-1)
    taken = log_probs[0, :-1].gather(1, ids[0, 1:, None])[len(prompt) - 1 :, 0]
    assert metrics.history[0]["loss"] == pytest.approx(-taken.mean().item(), rel=1e-5)


def test_training_lowers_the_loss_and_writes_a_hugging_face_folder(tmp_path: Path):
    model = fresh()
    seen: list[tuple[int, int]] = []
    config = SFTConfig(batch_tokens=512, learning_rate=1e-2, n_epochs=2)
    metrics = train_sft(
        model,
        TOKENIZER,
        PAIRS,
        config,
        tmp_path / "deep" / "sft",
        report=lambda done, total, metrics: seen.append((done, total)),
    )
    assert metrics.history[-1]["loss"] < 0.85 * metrics.history[0]["loss"]
    assert seen[-1] == (metrics.n_steps, metrics.n_steps)
    assert [done for done, _ in seen[:2]] == [10, 20]
    assert metrics.n_pairs == 160
    examples = tokenize(TOKENIZER, PAIRS)
    assert metrics.n_tokens == 2 * sum(len(example.token_ids) for example in examples)
    assert metrics.tokens_per_second > 0
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "deep" / "sft")
    assert same(weights(model), weights(loaded))
    assert not model.training
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "deep" / "sft")
    assert tokenizer.eos_token_id == TOKENIZER.eos_token_id
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"sft"}
    about = json.loads((tmp_path / "deep" / "sft" / "training.json").read_text())
    assert about["config"]["n_epochs"] == 2


def test_the_same_arguments_give_the_same_bits(tmp_path: Path):
    first, second = fresh(), fresh()
    train_sft(first, TOKENIZER, PAIRS, QUICK, tmp_path / "first")
    torch.rand(3)
    train_sft(second, TOKENIZER, PAIRS, QUICK, tmp_path / "second")
    assert same(weights(first), weights(second))


def test_training_leaves_the_global_generator_alone(tmp_path: Path):
    before = torch.random.get_rng_state()
    train_sft(fresh(), TOKENIZER, PAIRS[:20], QUICK, tmp_path / "sft")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("step", [10, 14])
def test_a_resumed_run_ends_with_the_same_bits(tmp_path: Path, step: int):
    whole, broken, resumed = fresh(), fresh(), fresh()
    train_sft(whole, TOKENIZER, PAIRS, QUICK, tmp_path / "whole")
    with pytest.raises(KilledError):
        train_sft(broken, TOKENIZER, PAIRS, QUICK, tmp_path / "broken", report=die_at(step))
    assert not (tmp_path / "broken").exists()
    done: list[int] = []
    metrics = train_sft(
        resumed, TOKENIZER, PAIRS, QUICK, tmp_path / "broken", report=lambda n, *_: done.append(n)
    )
    assert min(done) > 7
    assert same(weights(whole), weights(resumed))
    steps = [row["step"] for row in metrics.history]
    assert steps == sorted(set(steps))
    assert metrics.history[-1]["n_tokens"] == metrics.n_tokens
    tokens = sum(len(example.token_ids) for example in tokenize(TOKENIZER, PAIRS))
    assert metrics.n_tokens == tokens


def test_dropout_is_resumed_exactly_too(tmp_path: Path):
    def dropping() -> LlamaForCausalLM:
        model = fresh()
        model.config.attention_dropout = 0.3
        for layer in model.model.layers:
            layer.self_attn.attention_dropout = 0.3
        return model

    whole, broken, resumed, plain = dropping(), dropping(), dropping(), fresh()
    train_sft(whole, TOKENIZER, PAIRS, QUICK, tmp_path / "whole")
    train_sft(plain, TOKENIZER, PAIRS, QUICK, tmp_path / "plain")
    assert not same(weights(whole), weights(plain))
    with pytest.raises(KilledError):
        train_sft(broken, TOKENIZER, PAIRS, QUICK, tmp_path / "broken", report=die_at(10))
    torch.rand(11)
    train_sft(resumed, TOKENIZER, PAIRS, QUICK, tmp_path / "broken")
    assert same(weights(whole), weights(resumed))


def test_a_finished_folder_is_not_trained_again(tmp_path: Path):
    first = train_sft(fresh(), TOKENIZER, PAIRS, QUICK, tmp_path / "sft")
    model = fresh()
    again = train_sft(model, TOKENIZER, PAIRS, QUICK, tmp_path / "sft")
    assert again == first
    assert same(weights(model), weights(fresh()))


def test_another_runs_folder_is_refused_and_left_alone(tmp_path: Path):
    train_sft(fresh(), TOKENIZER, PAIRS[:40], QUICK, tmp_path / "sft")
    before = (tmp_path / "sft" / "model.safetensors").read_bytes()
    with pytest.raises(ValueError, match="does not hold the result of this run"):
        train_sft(fresh(), TOKENIZER, PAIRS[:41], QUICK, tmp_path / "sft")
    assert (tmp_path / "sft" / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"metrics": {}}'])
def test_a_foreign_folder_is_refused(tmp_path: Path, content: str):
    (tmp_path / "sft").mkdir()
    (tmp_path / "sft" / "training.json").write_text(content)
    with pytest.raises(ValueError, match="does not hold the result of this run"):
        train_sft(fresh(), TOKENIZER, PAIRS, QUICK, tmp_path / "sft")


def test_another_runs_checkpoint_is_refused(tmp_path: Path):
    with pytest.raises(KilledError):
        train_sft(fresh(), TOKENIZER, PAIRS, QUICK, tmp_path / "sft", report=die_at(10))
    with pytest.raises(ValueError, match="belongs to another run"):
        train_sft(fresh(), TOKENIZER, PAIRS[1:], QUICK, tmp_path / "sft")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path):
    (tmp_path / ".sft.checkpoint.safetensors").write_bytes(b"torn")
    with pytest.raises(ValueError, match="is not a training checkpoint"):
        train_sft(fresh(), TOKENIZER, PAIRS, QUICK, tmp_path / "sft")


def test_no_pairs_is_an_error(tmp_path: Path):
    with pytest.raises(ValueError, match="no pairs"):
        train_sft(fresh(), TOKENIZER, [], QUICK, tmp_path / "sft")


def test_a_pair_longer_than_the_context_is_an_error_that_names_it(tmp_path: Path):
    with pytest.raises(ValueError, match="pair 1 has 2002 tokens but the model's context is 1024"):
        train_sft(fresh(), TOKENIZER, [PAIRS[0], ("\n" * 2000, "\n")], QUICK, tmp_path / "sft")


def test_a_tokenizer_without_an_end_is_an_error(tmp_path: Path):
    tokenizer = train_tokenizer(["a"], 300)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="no end-of-text token"):
        train_sft(fresh(), tokenizer, PAIRS, QUICK, tmp_path / "sft")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("learning_rate", 0),
        ("learning_rate", float("nan")),
        ("max_grad_norm", -1),
        ("batch_tokens", 0),
        ("n_epochs", 0),
        ("checkpoint_every", 0),
        ("warmup", 1.5),
        ("curriculum", -0.5),
        ("final_learning_rate", -0.1),
        ("prompt_weight", 2),
        ("weight_decay", -1e-3),
    ],
)
def test_a_bad_setting_is_an_error_that_names_it(field: str, value: float):
    with pytest.raises(ValueError, match=f"{field} must .*got {value}"):
        SFTConfig(**{field: value})


SCRIPT = """
    import sys
    from pathlib import Path
    import torch
    from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
    from agents.sft import SFTConfig, train_sft
    from codegym.tasks.stepwise_corpus import corpus

    torch.set_num_threads(1)
    pairs = list(corpus(1500, seed=2, horizons=(1, 3)))
    tokenizer = train_tokenizer((prompt + completion for prompt, completion in pairs), 600)
    model = make_tiny_model(tokenizer, TinyModelConfig(hidden_size=32, n_layers=1), seed=0)
    train_sft(model, tokenizer, pairs, SFTConfig(batch_tokens=512, checkpoint_every=5), Path(sys.argv[1]))
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder)], env=environment)


@pytest.mark.slow
def test_kill_9_in_mid_run_and_the_same_command_again_ends_with_the_same_bits(tmp_path: Path):
    assert start(tmp_path / "whole").wait() == 0
    checkpoint = tmp_path / ".killed.checkpoint.safetensors"
    for _ in range(2):
        process = start(tmp_path / "killed")
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        while process.poll() is None and not (checkpoint.exists() and checkpoint.stat().st_mtime_ns > stamp):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not (tmp_path / "killed").exists()
    assert start(tmp_path / "killed").wait() == 0
    for name in ("model.safetensors", "tokenizer.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not checkpoint.exists()


@pytest.mark.slow
def test_the_tiny_model_learns_to_write_what_one_step_prompts_ask_for(tmp_path: Path):
    pairs = list(corpus(6000, seed=1, horizons=(1, 1)))
    tokenizer = train_tokenizer((prompt + completion for prompt, completion in pairs), 1024)
    model = make_tiny_model(tokenizer, TinyModelConfig(), seed=0)
    train_sft(model, tokenizer, pairs, SFTConfig(batch_tokens=512, n_epochs=2), tmp_path / "sft")
    # of the split it was trained on: at one step, other splits hold operations with unseen parameters
    tasks = load(limit=40, seed=5, horizons=(1, 1))
    answered = 0
    for task in tasks:
        inputs = torch.tensor([tokenizer(task.prompt)["input_ids"]])
        written = model.generate(inputs, do_sample=False, max_new_tokens=60)
        operation = OPERATIONS[task.metadata["operations"][0]]
        code = tokenizer.decode(written[0, inputs.shape[1] :], skip_special_tokens=True)
        answered += any(
            code.startswith(render(template, a="v0", b="v1", k=task.metadata["parameters"][0]))
            for template in (*operation.right, *operation.wrong)
        )
    assert answered >= 25
