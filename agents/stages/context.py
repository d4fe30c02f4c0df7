"""What the stages share."""

import resource
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeAlias

from transformers import AutoModelForCausalLM, AutoTokenizer

from agents.config import PipelineConfig
from agents.progress import Report
from agents.run_folder import RunFolder
from agents.samplers import make_sampler
from codegym.judge import Judge, make_judge
from codegym.task import Task
from prm.completion import Completer

Metrics: TypeAlias = Mapping[str, Any]


class Context:
    """The run folder, the settings, the tasks, and a judge that starts when first needed."""

    def __init__(self, run: RunFolder, config: PipelineConfig) -> None:
        self.run, self.config = run, config
        self._judge: Judge | None = None

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.run.path

    @property
    def judge(self) -> Judge:
        """The judge of the whole run."""
        if self._judge is None:
            self._judge = make_judge(self.config.judge)
        return self._judge

    @cached_property
    def train_tasks(self) -> Sequence[Task]:
        """Tasks that RL trains on and programs are collected from."""
        config = self.config
        return tuple(config.load(split="train", limit=config.train_tasks, horizons=config.rl_horizons))

    @cached_property
    def test_tasks(self) -> Sequence[Task]:
        """Held-out tasks, one horizon range after the other."""
        config = self.config
        ranges = [
            config.load(split="test", limit=config.eval_tasks, horizons=horizons)
            for horizons in config.eval_horizons
        ]
        # a source without the dial gives the same tasks for every range
        return tuple({task.task_id: task for tasks in ranges for task in tasks}.values())

    @property
    def traced(self) -> bool:
        """Whether the tasks know the values that a right program computes on its way."""
        return "trace" in self.train_tasks[0].metadata

    @property
    def arms(self) -> list[str]:
        """Policies that the run compares."""
        run = {"baseline": self.config.baseline, "oracle": self.config.oracle and self.traced}
        return [arm for arm in ("sft", "baseline", "psgpo", "oracle") if run.get(arm, True)]

    def policy_folder(self, arm: str) -> Path:
        """Where an arm's trained policy lies."""
        return self.path / "sft" if arm == "sft" else self.path / arm / "policy"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._judge is not None:
            self._judge.close()


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage: what it does, and which stages' files it reads."""

    work: Callable[[Context, Report], Metrics]
    needs: tuple[str, ...] = ()


def load_sampler(context: Context, folder: Path) -> tuple[Completer, Any]:
    """The run's sampler of the policy in a folder, and that policy's tokenizer."""
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    rl = context.config.rl
    return make_sampler(rl.sampler, model, tokenizer, **rl.sampler_options), tokenizer


def peak_memory_mb() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
