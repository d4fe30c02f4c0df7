"""Stage sft: the starting policy."""

from typing import Any

from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.bundled import make_tiny_model, train_tokenizer
from agents.models import check_folder, loading
from agents.progress import Report
from agents.sft import train_sft
from agents.stages.context import Context, Metrics, peak_memory_mb
from codegym.table import resolve

CORPORA = {"stepwise": "codegym.tasks.stepwise_corpus:corpus"}
"""Task sources that come with a corpus to imitate; for others the reference solutions are the corpus."""

TOKENIZER_PROGRAMS = 4000


def train_start(context: Context, report: Report) -> Metrics:
    """Train the starting policy on the source's corpus and write it to `sft/`."""
    config = context.config
    if config.model is not None:
        model, tokenizer = _pretrained(config.model)  # first, since it may be missing
        pairs = corpus(context)
    else:
        pairs = corpus(context)
        texts = (prompt + completion for prompt, completion in pairs[:TOKENIZER_PROGRAMS])
        tokenizer = train_tokenizer(texts, config.tiny.vocab_size)
        model = make_tiny_model(tokenizer, config.tiny, seed=config.seed)
    metrics = train_sft(model, tokenizer, pairs, config.sft, context.path / "sft", report=report)
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "programs": metrics.n_pairs,
        "steps": metrics.n_steps,
        "tokens": metrics.n_tokens,
        "tokens_per_s": metrics.tokens_per_second,
        "loss": metrics.history[-1]["loss"],
        "peak_memory_mb": peak_memory_mb(),
    }


def _pretrained(name: str) -> tuple[Any, Any]:
    """A causal LM and its tokenizer, from a folder or by the name that the hub has for it.

    Raises:
        FileNotFoundError: If `name` is a path, but not that of a model's folder.
        ValueError: If the model or its tokenizer cannot be had.
    """
    check_folder("--model", name)
    with loading("--model", name):
        return AutoModelForCausalLM.from_pretrained(name), AutoTokenizer.from_pretrained(name)


def corpus(context: Context) -> list[tuple[str, str]]:
    """Pairs of prompt and completion that the starting policy imitates.

    Raises:
        ValueError: If the source has neither a corpus nor reference solutions.
    """
    config = context.config
    if config.tasks in CORPORA:
        make = resolve(CORPORA, config.tasks, "corpus")
        return list(make(config.sft_programs, seed=config.seed, horizons=config.sft_horizons))
    pairs = [(task.prompt, task.reference) for task in context.train_tasks if task.reference is not None]
    if not pairs:
        raise ValueError(
            f"task source {config.tasks!r} has neither a corpus nor reference solutions to imitate"
        )
    return pairs[: config.sft_programs]
