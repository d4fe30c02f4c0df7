"""Training into a folder: curve, checkpoint after every iteration, kept policies; resumable."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.logger import Logger, make_output_format

from agents import ranks
from agents.checkpoint import whole_folder
from agents.models import save_policy
from agents.policy_agent import PolicyAgent
from agents.progress import Report
from agents.rollout import Rollout
from codegym.storage import append_rows, read_rows, write_text

LAST, CURVE, POLICY = "last", "curve.jsonl", "policy"
CURVE_KEYS = {
    "success_rate": "rollout/success_rate",
    "reward": "rollout/ep_rew_mean",
    "lines": "codegen/lines_per_program",
    "tokens": "codegen/tokens_per_program",
    "finished": "codegen/finished",
    "steps_addressed": "codegen/steps_addressed",
    "prefix_correct": "codegen/prefix_correct",
    "kl": "train/kl_per_program",
    "clip_fraction": "train/clip_fraction",
    "sampler_gap": "train/sampler_logprob_gap",
    "explained_variance": "train/explained_variance",
    "score_on_failing": "prm/score_on_failing",
    "gap": "prm/gap",
    "seconds": "time/iteration_seconds",
    "sampling_tokens_per_s": "time/sampled_tokens_per_second",
    "update_tokens_per_s": "time/updated_tokens_per_second",
    "verdicts_per_s": "time/verdicts_per_second",
}
"""Columns of `curve.jsonl`, and the logger keys they come from; beside them
`solved`, the ids of tasks, and `alarms`, if there are any."""


class SolvedTasks(BaseCallback):  # type: ignore[misc]  # its package has no types
    """Remembers which tasks the newest rollout solved."""

    def __init__(self) -> None:
        super().__init__()
        self.task_ids: list[str] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_end(self) -> None:
        rollout: Rollout = self.locals["rollout"]
        solved = (e.task.task_id for e in rollout.episodes if e.judgement is not None and e.judgement.passed)
        self.task_ids = sorted(set(solved))


def train_to_folder(agent: PolicyAgent, folder: Path, report: Report, *, n_kept: int = 0) -> None:
    """Train an agent to the end of its run, after every iteration of which it can be killed.

    Of several processes (`agents.ranks`) the first one writes and reports.

    Args:
        agent: New, or loaded from `folder / LAST`.
        folder: Gets the curve, the checkpoint, `step-<iteration>` for each policy that is kept, and the last
            policy.
        report: Told about every iteration.
        n_kept: Policies to keep on the way, evenly spaced.
    """
    total = agent.config.n_iterations
    milestones = {round(total * (step + 1) / n_kept) for step in range(n_kept)}
    first, solved = ranks.rank() == 0, SolvedTasks()
    if first:
        keep_rows(folder / CURVE, agent.iteration)
    agent.set_logger(_logger(folder) if first else Logger(None, []))
    while agent.iteration < total:
        metrics = agent.iterate(agent.iteration / total, solved)
        for key, value in metrics.items():
            agent.logger.record(key, value)
        agent.dump_logs()
        # the row before the checkpoint: a row too many is cut on resume, a missing one would stay missing
        if first:
            _append_row(folder / CURVE, agent.iteration, metrics, solved.task_ids, agent.alarms.current)
        if agent.iteration in milestones:
            _save_policy(agent, folder / f"step-{agent.iteration}")
        agent.save(folder / LAST)
        if first:
            report(agent.iteration, total, {"pass": metrics["rollout/success_rate"]})
    agent.logger.close()
    _save_policy(agent, folder / POLICY)


def keep_rows(path: Path, n_iterations: int) -> None:
    """Cut rows of iterations that the checkpoint does not know."""
    rows = [row for row in read_rows(path) if row["iteration"] <= n_iterations]
    if path.exists():
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _logger(folder: Path) -> Logger:
    """TensorBoard where it is installed; the curve is in `curve.jsonl` in any case."""
    try:
        return Logger(str(folder), [make_output_format("tensorboard", str(folder / "tensorboard"))])
    except AssertionError:  # how Stable-Baselines3 says that tensorboard is missing
        return Logger(str(folder), [])


def _save_policy(agent: PolicyAgent, folder: Path) -> None:
    if ranks.rank() == 0:
        with whole_folder(folder) as draft:
            save_policy(agent.policy, agent.tokenizer, draft)
    ranks.wait_for_all()


def _append_row(
    path: Path,
    iteration: int,
    metrics: Mapping[str, float],
    solved: Sequence[str],
    alarms: Mapping[str, str],
) -> None:
    known = {name: metrics[key] for name, key in CURVE_KEYS.items() if np.isfinite(metrics.get(key, np.nan))}
    told = {"alarms": alarms} if alarms else {}
    append_rows(path, [{"iteration": iteration, **known, "solved": list(solved), **told}])
