"""Speed of sampling and of updates, as ratios to the plain library calls, measured in turns in one run.

Sampling: the transformers sampler against `model.generate`, same model, prompts, batch and sampling law;
useful tokens (up to and including end-of-text) per second, with one and with several samples per prompt.
Its limit: the forward passes alone, that is each distinct prompt read once and, step by step, the rows that
have not ended, without cache, drawing or bookkeeping. Update: PPO's policy and critic passes against
a bare forward and backward of the same two models over the same token grids. The machine may be busy with
other work, so the sides take turns and the median of the ratios is what counts.

Phases: where an iteration of PSGPO spends its time, tasks, judge and a reward model of the policy's size
included; only for models that are small enough. `--model smollm2` measures a real pretrained model instead of
the bundled tiny one, with fewer rows.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

from agents.bundled import TinyModelConfig, make_tiny_model, train_tokenizer
from agents.critic import Critic
from agents.psgpo_config import PSGPOConfig
from agents.rollout import make_batch
from agents.samplers.transformers import TransformersSampler
from agents.update import Experience, Learner, micro_batches, update
from benchmarks.markdown import table as markdown_table
from benchmarks.smollm2 import smollm2_folder
from benchmarks.training_phases import phase_shares, share_table
from codegym.storage import append_rows, write_text
from codegym.tasks.stepwise_corpus import corpus
from prm.alignment import newlines_per_token, split_lines
from prm.batching import plan_batches
from prm.completion import Completion

SMOLLM2 = "smollm2"


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much is measured."""

    batches: tuple[int, ...]  # rows sampled together
    repeats: int  # measured rounds, after one that warms up
    samples_per_prompt: tuple[int, ...] = (1, 8)
    max_new_tokens: int = 192  # of a completion; what RL samples with
    horizons: tuple[int, int] = (9, 12)  # steps that prompts ask for, hence their length
    update_rows: int | None = None  # of the update; None: the batch
    rollouts: int | None = None  # programs of an iteration whose phases are timed; None: no such iteration


SCALES = {
    "smoke": Scale(batches=(32,), repeats=2, rollouts=32),
    "small": Scale(batches=(128, 256), repeats=5, rollouts=128),
    "full": Scale(batches=(128, 256, 512), repeats=9, rollouts=128),
}
SMOLLM2_SCALES = {
    "smoke": Scale(
        batches=(4,), repeats=1, samples_per_prompt=(2,), max_new_tokens=8, horizons=(1, 2), update_rows=1
    ),
    "small": Scale(batches=(16,), repeats=2, max_new_tokens=32, horizons=(1, 2), update_rows=3),
    "full": Scale(batches=(16, 32), repeats=5, max_new_tokens=48, horizons=(2, 4), update_rows=8),
}
SMOLLM2_SHAPE = {
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
}
"""Of SmolLM2-135M; at random weights texts hardly ever end, so all rows stay to the last token."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure sampling and update speed."""

    scale: Literal["smoke", "small", "full"] = "small"  # batch sizes and repeats
    model: str | None = (
        None  # folder of a causal LM, say runs/psgpo/sft; smollm2; None: an untrained tiny one
    )
    max_new_tokens: int | None = None  # of a completion; None: the scale's
    threads: int = 2  # of torch
    out: Path = Path("runs/benchmarks/training_speed")  # where rows and report go

    @property
    def sizes(self) -> Scale:
        """How much is measured."""
        scale = (SMOLLM2_SCALES if self.model == SMOLLM2 else SCALES)[self.scale]
        return scale if self.max_new_tokens is None else replace(scale, max_new_tokens=self.max_new_tokens)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One comparison: ours and the plain one in tokens per second, medians, and the median ratio."""

    what: str
    batch: int
    samples_per_prompt: int
    ours: float
    plain: float
    ratio: float
    lowest_ratio: float


def main() -> None:
    """Run the benchmark and print its tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.training_speed")
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    model, tokenizer = load(options.model)
    rows = measure(options, model, tokenizer)
    shares = shares_of(options.sizes, model, tokenizer)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(options.out / "rows.jsonl", [*map(asdict, rows), {"what": "phases", **shares}])
    text = table(rows) + (f"\n{share_table(shares)}" if shares else "")
    write_text(options.out / "report.md", text)
    print(text)


def measure(options: Options, model: Any, tokenizer: Any) -> list[Row]:
    """Every comparison at every batch size."""
    sizes = options.sizes
    texts = corpus(max(sizes.batches), seed=1, horizons=sizes.horizons)
    prompts = [tokenizer.encode(prompt) for prompt, _ in texts]
    length, rows = sizes.max_new_tokens, []
    for batch in sizes.batches:
        for n in sizes.samples_per_prompt:
            rows += compare_sampling(model, tokenizer, prompts[: batch // n], n, length, sizes.repeats)
        updated = prompts[: sizes.update_rows or batch]
        rows.append(compare_update(model, tokenizer, updated, length, sizes.repeats))
    if options.scale == "full" and options.model != SMOLLM2:
        large = LlamaForCausalLM(LlamaConfig(**SMOLLM2_SHAPE, eos_token_id=tokenizer.eos_token_id)).eval()
        for n in sizes.samples_per_prompt:
            compared = compare_sampling(large, tokenizer, prompts[: 32 // n], n, 48, 3)
            rows += [replace(row, what=f"{row.what}, 135 M") for row in compared]
    return rows


def shares_of(sizes: Scale, model: Any, tokenizer: Any) -> dict[str, float]:
    """Where an iteration's time goes; empty where the scale has none."""
    if sizes.rollouts is None:
        return {}
    config = PSGPOConfig(rollouts_per_iteration=sizes.rollouts, max_new_tokens=sizes.max_new_tokens)
    return phase_shares(model, tokenizer, config, sizes.horizons)


def load(path: str | None) -> tuple[Any, Any]:
    """The model to measure and its tokenizer.

    Raises:
        MissingExtraError: If SmolLM2 is asked for and the package that holds it is not installed.
    """
    if path == SMOLLM2:
        path = str(smollm2_folder())
    if path is not None:
        return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)
    tiny = TinyModelConfig()
    tokenizer = train_tokenizer((a + b for a, b in corpus(2000, seed=0)), tiny.vocab_size)
    return make_tiny_model(tokenizer, tiny, seed=0).eval(), tokenizer


def compare_sampling(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], n: int, max_new_tokens: int, repeats: int
) -> list[Row]:
    """Useful sampled tokens per second of our sampler against `generate`, and against its own forwards."""
    sampler = TransformersSampler(model, tokenizer)
    padded = tokenizer.pad({"input_ids": list(prompts)}, padding_side="left", return_tensors="pt")
    end = tokenizer.eos_token_id
    lengths: list[int] = []

    def ours(seed: int) -> int:
        drawn = sampler.sample(prompts, n=n, max_new_tokens=max_new_tokens, seed=seed)
        lengths[:] = [len(completion.token_ids) for group in drawn for completion in group]
        return sum(lengths)

    def plain(seed: int) -> int:
        torch.manual_seed(seed)
        output = model.generate(
            **padded, do_sample=True, top_k=0, top_p=1.0, max_new_tokens=max_new_tokens,
            num_return_sequences=n, pad_token_id=tokenizer.pad_token_id, eos_token_id=end,
        )[:, padded["input_ids"].shape[1] :]  # fmt: skip
        ended = (output == end).int().cumsum(1)
        return int(((ended == 0) | ((ended == 1) & (output == end))).sum())

    def forwards(seed: int) -> int:
        del seed
        with torch.inference_mode():
            for batch in plan_batches([len(prompt) for prompt in prompts], sampler.prefill_tokens):
                width = max(len(prompts[i]) for i in batch)
                model(torch.zeros((len(batch), width), dtype=torch.long), use_cache=False, logits_to_keep=1)
            for step in range(1, max(lengths)):
                alive = sum(length > step for length in lengths)
                model(torch.zeros((alive, 1), dtype=torch.long), use_cache=False)
        return sum(lengths)

    others = {"sampling": plain, "sampling, forwards only": forwards}
    rows = in_turns(len(prompts) * n, ours, others, repeats)
    return [replace(row, samples_per_prompt=n) for row in rows]


def compare_update(
    model: Any, tokenizer: Any, prompts: Sequence[Sequence[int]], max_new_tokens: int, repeats: int
) -> Row:
    """Tokens per second of PPO's update and of a bare forward and backward of policy and critic."""
    drawn = TransformersSampler(model, tokenizer).sample(prompts, max_new_tokens=max_new_tokens, seed=0)
    completions: list[Completion] = [group[0] for group in drawn]
    newlines = newlines_per_token(tokenizer)
    credits = [np.zeros(len(split_lines(c.text)) + c.finished) for c in completions]
    batch = make_batch(prompts, completions, credits, newlines)
    critic, config = Critic.create("policy", model), PSGPOConfig(n_minibatches=1)
    learners = (Learner.of(model), Learner.of(critic))
    for learner in learners:
        learner.set_learning_rate(0.0)
    zeros = torch.zeros_like(batch.logprobs)
    experience = Experience(batch=batch, values=zeros, advantages=zeros, returns=zeros)
    n_tokens = int(batch.lengths.sum())

    def ours(seed: int) -> int:
        update(*learners, experience, config, move_policy=True, seed=(seed,))
        return n_tokens

    def plain(seed: int) -> int:
        del seed
        for rows, _, last in micro_batches(batch, range(len(batch)), config.micro_batch_tokens):
            ids = batch.ids[rows, :last]
            model(input_ids=ids, use_cache=False).logits.sum().backward()
            critic(ids).sum().backward()
        for learner in learners:
            learner.optimizer.zero_grad(set_to_none=True)
        return n_tokens

    (row,) = in_turns(len(prompts), ours, {"update": plain}, repeats)
    return row


def in_turns(
    batch: int, ours: Callable[[int], int], others: Mapping[str, Callable[[int], int]], repeats: int
) -> list[Row]:
    """Let both sides do their work in turns; each is given the round and returns its number of tokens.

    Args:
        batch: Rows, for the table.
        ours: Comes first in each round.
        others: What it is compared with, by name.
        repeats: Rounds that count, after one that warms up.
    """
    sides = {"": ours, **others}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for seed in range(repeats + 1):
        for name, call in sides.items():
            start = time.perf_counter()
            n_tokens = call(seed)
            if seed:
                rates[name].append(n_tokens / (time.perf_counter() - start))
    mine, rows = rates.pop(""), []
    for what, theirs in rates.items():
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        medians = statistics.median(mine), statistics.median(theirs), statistics.median(ratios)
        rows.append(
            Row(
                what=what,
                batch=batch,
                samples_per_prompt=1,
                ours=medians[0],
                plain=medians[1],
                ratio=medians[2],
                lowest_ratio=min(ratios),
            )
        )
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    names = (
        "what",
        "rows",
        "samples per prompt",
        "ours, tokens/s",
        "plain, tokens/s",
        "ratio",
        "lowest ratio",
    )
    return markdown_table(
        names,
        [
            (r.what, r.batch, r.samples_per_prompt, f"{r.ours:,.0f}", f"{r.plain:,.0f}",
             f"{r.ratio:.2f}", f"{r.lowest_ratio:.2f}")
            for r in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
