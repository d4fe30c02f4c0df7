"""Speed of sampling and of updates, as ratios to the plain library calls, measured in turns in one run.

Sampling: the transformers sampler against `model.generate`, same model, prompts, batch and sampling law;
useful tokens (up to and including end-of-text) per second, with one and with several samples per prompt.
Its limit: the forward passes alone, that is each distinct prompt read once and, step by step, the rows that
have not ended, without cache, drawing or bookkeeping. Update: PPO's policy and critic passes against
a bare forward and backward of the same two models over the same token grids. The machine may be busy with
other work, so the two sides take turns and the median of the ratios is what counts.
"""

import statistics
import time
from collections.abc import Callable, Sequence
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
from codegym.storage import append_rows, write_text
from codegym.tasks.stepwise_corpus import corpus
from prm.alignment import newlines_per_token, split_lines
from prm.batching import plan_batches
from prm.completion import Completion

BATCHES = {"smoke": (32,), "small": (128, 256), "full": (128, 256, 512)}
REPEATS = {"smoke": 2, "small": 5, "full": 9}
SAMPLES_PER_PROMPT = (1, 8)
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
    model: str | None = None  # folder of a causal LM, for example runs/psgpo/sft; None: an untrained tiny one
    max_new_tokens: int = 192  # of a completion; what RL samples with
    threads: int = 2  # of torch
    out: Path = Path("runs/benchmarks/training_speed")  # where rows and report go


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
    """Run the benchmark and print its table."""
    options = tyro.cli(Options, prog="python -m benchmarks.training_speed")
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    rows = measure(options)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(options.out / "rows.jsonl", map(asdict, rows))
    text = table(rows)
    write_text(options.out / "report.md", text)
    print(text)


def measure(options: Options) -> list[Row]:
    """Every comparison at every batch size."""
    model, tokenizer = load(options.model)
    prompts = [
        tokenizer.encode(prompt)
        for prompt, _ in corpus(max(BATCHES[options.scale]), seed=1, horizons=(9, 12))
    ]
    rows = []
    for batch in BATCHES[options.scale]:
        length, repeats = options.max_new_tokens, REPEATS[options.scale]
        for n in SAMPLES_PER_PROMPT:
            rows += compare_sampling(model, tokenizer, prompts[: batch // n], n, length, repeats)
        rows.append(compare_update(model, tokenizer, prompts[:batch], length, repeats))
    if options.scale == "full":
        large = LlamaForCausalLM(LlamaConfig(**SMOLLM2_SHAPE, eos_token_id=tokenizer.eos_token_id)).eval()
        for n in SAMPLES_PER_PROMPT:
            compared = compare_sampling(large, tokenizer, prompts[: 32 // n], n, 48, 3)
            rows += [replace(row, what=f"{row.what}, 135 M") for row in compared]
    return rows


def load(path: str | None) -> tuple[Any, Any]:
    """The model to measure and its tokenizer."""
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

    rows = [
        _in_turns(what, len(prompts) * n, ours, other, repeats)
        for what, other in (("sampling", plain), ("sampling, forwards only", forwards))
    ]
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
    policy_learner = Learner(
        network=model, optimizer=torch.optim.AdamW(model.parameters(), lr=0.0, weight_decay=0.0)
    )
    critic_learner = Learner(network=critic, optimizer=torch.optim.AdamW(critic.parameters(), lr=0.0))
    zeros = torch.zeros_like(batch.logprobs)
    experience = Experience(batch=batch, values=zeros, advantages=zeros, returns=zeros)
    n_tokens = int(batch.lengths.sum())

    def ours(seed: int) -> int:
        update(policy_learner, critic_learner, experience, config, move_policy=True, seed=(seed,))
        return n_tokens

    def plain(seed: int) -> int:
        del seed
        for rows, _, last in micro_batches(batch, range(len(batch)), config.micro_batch_tokens):
            ids = batch.ids[rows, :last]
            model(input_ids=ids, use_cache=False).logits.sum().backward()
            critic(ids).sum().backward()
        for learner in (policy_learner, critic_learner):
            learner.optimizer.zero_grad(set_to_none=True)
        return n_tokens

    return _in_turns("update", len(prompts), ours, plain, repeats)


def _in_turns(
    what: str, batch: int, ours: Callable[[int], int], plain: Callable[[int], int], repeats: int
) -> Row:
    rates: dict[str, list[float]] = {"ours": [], "plain": []}
    for seed in range(repeats + 1):
        for name, call in (("ours", ours), ("plain", plain)):
            start = time.perf_counter()
            n_tokens = call(seed)
            if seed:  # the first round warms up
                rates[name].append(n_tokens / (time.perf_counter() - start))
    ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
    return Row(
        what=what,
        batch=batch,
        samples_per_prompt=1,
        ours=statistics.median(rates["ours"]),
        plain=statistics.median(rates["plain"]),
        ratio=statistics.median(ratios),
        lowest_ratio=min(ratios),
    )


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
