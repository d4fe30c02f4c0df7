"""Stages baseline, psgpo and oracle: the same agent and rollouts, paid in three ways."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from agents.checkpoint import settle, whole_folder
from agents.critic import CriticInit
from agents.monitor import LastScores
from agents.prm_refresh import PRMRefresh
from agents.progress import Report
from agents.psgpo import PSGPO
from agents.stages.context import Context, Metrics, peak_memory_mb
from agents.stages.labels import make_labeler
from agents.training import CURVE, CURVE_KEYS, LAST, train_to_folder
from codegym.rewards import LineScorer, RewardScheme, make_scheme
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.storage import read_rows
from prm.model import ProcessRewardModel
from prm.reference import ReferenceScorer


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to train the starting policy; arms of one run share tasks, rollout seeds and settings."""

    name: str  # of its folder in the run
    pays: Literal["prm", "oracle"] | None = None  # who scores lines; None: nobody
    scheme: str | None = None  # reward scheme; None: "process" by the run's settings if somebody scores lines
    scheme_options: Mapping[str, Any] = field(default_factory=dict)  # of that scheme
    critic_init: CriticInit | None = None  # how its critic starts; None: as the run's settings say
    refresh: bool = False  # train the PRM a little on the arm's own rollouts as it goes
    n_iterations: int | None = None  # length of its run; None: as the run's settings say
    checkpoints: int = 0  # evenly spaced policies that are kept


def train_baseline(context: Context, report: Report) -> Metrics:
    """Train with the tests' verdict alone, keeping evenly spaced checkpoints."""
    if "baseline" not in context.arms:
        report(1, 1)
        return {"skipped": "baseline is off"}
    return train_arm(context, report, Arm(name="baseline", checkpoints=context.config.label.checkpoints))


def train_psgpo(context: Context, report: Report) -> Metrics:
    """Train with the reward model's pay per line and the critic it initialises, refreshing it on the way."""
    dense = context.config.dense
    arm = Arm(
        name="psgpo", pays="prm", critic_init=dense.critic_init, refresh=dense.refresh_learning_rate > 0
    )
    return train_arm(context, report, arm)


def train_oracle(context: Context, report: Report) -> Metrics:
    """Train with exact line labels in the place of the reward model: the upper bound of any PRM."""
    if "oracle" not in context.arms:
        report(1, 1)
        return {"skipped": "the tasks carry no trace" if context.config.oracle else "oracle is off"}
    return train_arm(context, report, Arm(name="oracle", pays="oracle"))


def train_arm(context: Context, report: Report, arm: Arm) -> Metrics:
    """Train one arm into its folder of the run, from its last finished iteration.

    Writes `curve.jsonl`, the policy and the kept checkpoints, and the PRM as the arm leaves it.
    """
    folder = context.path / arm.name
    needs_prm = arm.pays == "prm" or arm.critic_init == "prm"
    prm = ProcessRewardModel.from_pretrained(context.path / "prm") if needs_prm else None
    refresh = _refresh(context, prm) if prm is not None and arm.refresh else None
    agent = _agent(context, arm, prm, refresh)
    if refresh is not None:
        refresh.labeler = make_labeler(context, agent.sampler)
    train_to_folder(agent, folder, report, n_kept=arm.checkpoints)
    if prm is not None and arm.pays == "prm":
        with whole_folder(folder / "prm") as draft:
            prm.save_pretrained(draft)
    return _summary(list(read_rows(folder / CURVE)))


def _scheme(context: Context, arm: Arm, prm: ProcessRewardModel | None) -> RewardScheme | None:
    if arm.pays is None:
        return None if arm.scheme is None else make_scheme(arm.scheme, **arm.scheme_options)
    scorer = LastScores(ReferenceScorer(context.judge) if arm.pays == "oracle" or prm is None else prm)
    if arm.scheme is not None:
        return make_scheme(arm.scheme, scorer=scorer, **arm.scheme_options)
    return ProcessReward.from_scorer(scorer, **context.config.dense.reward_options)


def _refresh(context: Context, prm: ProcessRewardModel) -> PRMRefresh:
    config = context.config
    tasks = {task.task_id: task for task in context.train_tasks}
    return PRMRefresh(prm, tasks, learning_rate=config.dense.refresh_learning_rate, seed=config.seed)


def _agent(context: Context, arm: Arm, prm: ProcessRewardModel | None, refresh: PRMRefresh | None) -> PSGPO:
    folder = context.path / arm.name / LAST
    env: gym.Env[str, str] = gym.make(
        "CodeGen-v0", tasks=context.train_tasks, judge=context.judge, disable_env_checker=True
    )
    scheme = _scheme(context, arm, prm)
    if scheme is not None:
        env = RewardWrapper(env, scheme)
    oracle: LineScorer | None = LastScores(ReferenceScorer(context.judge)) if context.traced else None
    if arm.pays == "oracle" and isinstance(scheme, ProcessReward):
        oracle = scheme.scorer  # one execution serves the pay and the log
    watched: dict[str, Any] = {"oracle": oracle, "refresh": refresh}
    settle(folder)
    if folder.exists():
        return PSGPO.load(folder, env, **watched)
    rl = context.config.rl
    rl = replace(
        rl, critic_init=arm.critic_init or rl.critic_init, n_iterations=arm.n_iterations or rl.n_iterations
    )
    return PSGPO(context.path / "sft", env, rl, prm=prm, seed=context.config.seed, **watched)


def _summary(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    def mean(name: str, chosen: Sequence[Mapping[str, float]]) -> float | None:
        values = [row[name] for row in chosen if name in row]
        return float(np.mean(values)) if values else None

    return {
        "iterations": len(rows),
        "first_success_rate": mean("success_rate", rows[:4]),
        "last_success_rate": mean("success_rate", rows[-4:]),
        **{name: mean(name, rows) for name in CURVE_KEYS if name.endswith("_per_s")},
        "peak_memory_mb": peak_memory_mb(),
    }
