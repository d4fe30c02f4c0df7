"""Our arms, with the project's defaults: three that the verdict pays, and PSGPO with its reward model."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gymnasium as gym

from agents.config import DenseConfig
from agents.monitor import LastScores
from agents.prm_refresh import PRMRefresh
from agents.table import make_agent
from benchmarks.peer.arm import Assignment
from benchmarks.peer.clock import Clock, Recorder
from codegym.judge import Judge, make_judge
from codegym.rewards import RewardScheme
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from prm.labelers import make_labeler
from prm.model import ProcessRewardModel


def train_ppo(assignment: Assignment, folder: Path) -> dict[str, Any]:
    """Train PSGPO's agent on the verdict alone."""
    return _train_on_verdict("psgpo", assignment, folder)


def train_grpo(assignment: Assignment, folder: Path) -> dict[str, Any]:
    """Train GRPO on the verdict."""
    return _train_on_verdict("grpo", assignment, folder)


def train_rloo(assignment: Assignment, folder: Path) -> dict[str, Any]:
    """Train RLOO on the verdict."""
    return _train_on_verdict("rloo", assignment, folder)


def train_psgpo(assignment: Assignment, folder: Path) -> dict[str, Any]:
    """Train on the reward model's pay per line; it starts the critic and is refreshed on the way."""
    dense = DenseConfig()
    prm = ProcessRewardModel.from_pretrained(Path(assignment.run) / "prm")
    tasks = {task.task_id: task for task in assignment.tasks}
    with make_judge("local") as judge:
        refresh = PRMRefresh(prm, tasks, learning_rate=dense.refresh_learning_rate, seed=assignment.seed)
        refresh.labeler = make_labeler("reference", judge=judge)
        scheme = ProcessReward.from_scorer(
            LastScores(prm), form=dense.form, lambda_fail=dense.lambda_fail, lambda_pass=dense.lambda_pass
        )
        agent = make_agent(
            "psgpo",
            assignment.policy,
            _env(assignment, judge, scheme),
            prm=prm,
            refresh=refresh,
            critic_init=dense.critic_init,
            **_options(assignment),
        )
        return _train(agent, assignment, folder) | {"dense": asdict(dense)}


def _train_on_verdict(name: str, assignment: Assignment, folder: Path) -> dict[str, Any]:
    with make_judge("local") as judge:
        env = _env(assignment, judge, assignment.reward)
        agent = make_agent(name, assignment.policy, env, **_options(assignment))
        return _train(agent, assignment, folder)


def _env(assignment: Assignment, judge: Judge, pay: str | RewardScheme) -> gym.Env[str, str]:
    env = gym.make("CodeGen-v0", tasks=assignment.tasks, judge=judge, disable_env_checker=True)
    return RewardWrapper(env, pay)


def _options(assignment: Assignment) -> dict[str, Any]:
    rate = assignment.learning_rate
    tuned = {} if rate is None else {"learning_rate": rate}
    return {"seed": assignment.seed, "device": "cpu", "rollouts_per_iteration": assignment.rollouts, **tuned}


def _train(agent: Any, assignment: Assignment, folder: Path) -> dict[str, Any]:
    clock = Clock(assignment.seconds)
    recorder = Recorder(folder, clock, n_checkpoints=assignment.n_checkpoints, save=agent.save_policy)
    clock.start()
    while not clock.over:
        recorder.add(**_counts(agent.iterate(clock.progress), assignment.rollouts))
    return asdict(agent.config)


def _counts(metrics: Mapping[str, float], programs: int) -> dict[str, Any]:
    """What a recorder asks for, from the agent's log."""
    tokens = round(metrics["codegen/tokens_per_program"] * programs)
    return {
        "programs": programs,
        "tokens": tokens,
        "passed": round(metrics["rollout/success_rate"] * programs),
        "sampling_s": tokens / metrics["time/sampled_tokens_per_second"],
        "judging_s": programs / metrics["time/verdicts_per_second"],
    }
