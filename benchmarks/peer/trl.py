"""TRL's arms: GRPOTrainer and RLOOTrainer on a CPU, paid by the same judge.

What they share with our arms: programs per iteration and optimizer steps on them, AdamW without weight
decay, gradient clipping, temperature, token limit, and the law by which the learning rate rises and falls,
here by the clock. What is TRL's: eight programs per prompt, each trainer's default loss, advantages and
clipping, and `model.generate`. GRPO has no KL term by default; RLOO's weighs what PSGPO's weighs. What costs
time without teaching is off: logging, saving, evaluation, gradient checkpointing. Neither smaller batches nor
a static cache make TRL faster on the bundled model.
"""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.optim.lr_scheduler import LambdaLR
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from agents.psgpo_config import PSGPOConfig
from benchmarks.peer.arm import Assignment
from benchmarks.peer.clock import Clock, Recorder
from codegym.judge import Judge, make_judge
from codegym.task import Task

GENERATIONS = 8
"""Programs per prompt: what the advantages are computed over."""
OURS = PSGPOConfig()
STEPS = OURS.n_minibatches
"""Optimizer steps per iteration."""
RLOO_BETA = OURS.kl_coef
"""PSGPO pays -β log(π/π_ref) per token, TRL's RLOO the sum over the program, with 0.05 by default."""


def train_grpo(assignment: Assignment, folder: Path) -> dict[str, Any]:
    """Train with GRPOTrainer."""
    return _train(assignment, folder, GRPOTrainer, GRPOConfig, {})


def train_rloo(assignment: Assignment, folder: Path) -> dict[str, Any]:
    """Train with RLOOTrainer."""
    return _train(assignment, folder, RLOOTrainer, RLOOConfig, {"beta": RLOO_BETA})


class Verdicts:
    """TRL's reward function: judges all completions of a call in one batch.

    Args:
        tasks: What the prompts ask for.
        judge: The judge.
        reward: "pass_fail" or "pass_rate".
    """

    __name__ = "verdicts"  # TRL reads its functions' names

    def __init__(self, tasks: Sequence[Task], judge: Judge, reward: str) -> None:
        self._tasks = {task.task_id: task for task in tasks}
        self._judge, self._reward = judge, reward
        self.last = {"programs": 0, "tokens": 0, "passed": 0, "judging_s": 0.0}

    def __call__(
        self,
        completions: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        task_id: Sequence[str],
        **_: Any,
    ) -> list[float]:
        """One reward per completion."""
        began = time.perf_counter()
        tasks = [self._tasks[name] for name in task_id]
        jobs = [(task, task.assemble(text)) for task, text in zip(tasks, completions, strict=True)]
        judgements = self._judge.judge(jobs)
        self.last = {
            "programs": len(jobs),
            "tokens": sum(map(len, completion_ids)),
            "passed": sum(judgement.passed for judgement in judgements),
            "judging_s": time.perf_counter() - began,
        }
        if self._reward == "pass_rate":
            return [judgement.tests_passed / judgement.tests_total for judgement in judgements]
        return [float(judgement.passed) for judgement in judgements]


class TimedModel:
    """Counts the seconds that a model spends in `generate`."""

    def __init__(self, model: Any) -> None:
        self._generate = model.generate
        self.seconds = 0.0
        model.generate = self

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Generate."""
        began = time.perf_counter()
        output = self._generate(*args, **options)
        self.seconds += time.perf_counter() - began
        return output

    def lap(self) -> float:
        """Seconds since the last lap."""
        seconds, self.seconds = self.seconds, 0.0
        return seconds


class Budget(TrainerCallback):
    """Records iterations and ends the training when the budget is used up."""

    def __init__(self, recorder: Recorder, verdicts: Verdicts, generate: TimedModel) -> None:
        self._recorder, self._verdicts, self._generate = recorder, verdicts, generate

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self._recorder.clock.start()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """An iteration ends with its last optimizer step."""
        del args
        if state.global_step % STEPS == 0:
            self._recorder.add(**self._verdicts.last, sampling_s=self._generate.lap())
            control.should_training_stop = self._recorder.clock.over


def settings(assignment: Assignment, folder: Path) -> dict[str, Any]:
    """Trainer settings that are not TRL's defaults; those of GRPO and RLOO have the same names."""
    return {
        "output_dir": str(folder / "trl"),
        "seed": assignment.seed,
        "num_generations": GENERATIONS,
        "generation_batch_size": assignment.rollouts,
        "per_device_train_batch_size": assignment.rollouts // STEPS,
        "max_completion_length": OURS.max_new_tokens,
        "temperature": OURS.temperature,
        "max_steps": 1_000_000,  # the clock ends the training
        "max_grad_norm": OURS.max_grad_norm,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "use_vllm": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }


def _train(
    assignment: Assignment, folder: Path, trainer_class: Any, config_class: Any, changes: dict[str, Any]
) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(assignment.policy)
    model = AutoModelForCausalLM.from_pretrained(assignment.policy, dtype=torch.float32)
    rate = assignment.learning_rate or OURS.learning_rate
    chosen = settings(assignment, folder) | changes | {"learning_rate": rate}

    def save(place: Path) -> None:
        trainer.model.save_pretrained(place)
        tokenizer.save_pretrained(place)

    clock = Clock(assignment.seconds)
    recorder = Recorder(folder, clock, n_checkpoints=assignment.n_checkpoints, save=save)
    with make_judge("local") as judge:
        verdicts = Verdicts(assignment.tasks, judge, assignment.reward)
        trainer = trainer_class(
            model=model,
            reward_funcs=verdicts,
            args=config_class(**chosen),
            train_dataset=Dataset.from_list(
                [{"prompt": task.prompt, "task_id": task.task_id} for task in assignment.tasks]
            ),
            processing_class=tokenizer,
            optimizers=_optimizer(model, rate, clock),
            callbacks=[Budget(recorder, verdicts, TimedModel(model))],
        )
        trainer.train()
    return chosen


def rate_law(step: int, progress: float) -> float:
    """PSGPO's law, from the first iteration that moves the policy on.

    Args:
        step: Optimizer steps done.
        progress: Share of the budget used up.

    Returns:
        Share of the peak.
    """
    rise = min((step // STEPS + 1) / OURS.warmup_iterations, 1.0)
    return rise * (1.0 - (1.0 - OURS.final_learning_rate) * progress)


def _optimizer(model: Any, rate: float, clock: Clock) -> tuple[torch.optim.Optimizer, LambdaLR]:
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    return optimizer, LambdaLR(optimizer, lambda step: rate_law(step, clock.progress))
