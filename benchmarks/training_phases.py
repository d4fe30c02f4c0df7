"""Where an iteration of PSGPO spends its time: the shares of wall time that the agent logs."""

import copy
import statistics
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import gymnasium as gym

from agents.monitor import LastScores
from agents.psgpo import PSGPO
from agents.psgpo_config import PSGPOConfig
from benchmarks.markdown import table as markdown_table
from codegym.judge import make_judge
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.tasks import load_tasks
from prm.model import ProcessRewardModel

TIMED = 2
"""Iterations that are averaged, after one that warms up."""
SECONDS, WAITED = "seconds", "judging_wait_share"
SHOWN = 0.0005
"""Phases with a smaller share are left out of the table."""


def phase_shares(
    model: Any, tokenizer: Any, config: PSGPOConfig, horizons: tuple[int, int]
) -> dict[str, float]:
    """Time some iterations of training from the model, which stays as it is.

    The bundled tasks, the local judge and, for the pay per line, an untrained reward model as large as the
    policy: what a training run does, without its success.

    Args:
        model: The policy to start from.
        tokenizer: Its tokenizer.
        config: How to train; the policy moves from the first iteration on.
        horizons: Steps that the tasks ask for.

    Returns:
        Means over iterations: share of wall time by phase, `seconds`, and `judging_wait_share`.
    """
    prm = ProcessRewardModel.from_backbone(copy.deepcopy(model), tokenizer)
    tasks = load_tasks("stepwise", split="train", limit=config.rollouts_per_iteration, horizons=horizons)
    config = replace(config, critic_only_iterations=0)
    with make_judge("local") as judge:
        env: Any = gym.make("CodeGen-v0", tasks=tasks, judge=judge, disable_env_checker=True)
        env = RewardWrapper(env, ProcessReward.from_scorer(LastScores(prm)))
        agent = PSGPO(copy.deepcopy(model), env, config, tokenizer=tokenizer, device="cpu")
        logs = []
        for index in range(TIMED + 1):
            logs.append(agent.iterate(index / config.n_iterations))
    keys = {key.removeprefix("time/share_"): key for key in logs[0] if key.startswith("time/share_")}
    keys |= {WAITED: f"time/{WAITED}", SECONDS: "time/iteration_seconds"}
    return {name: statistics.mean(log[key] for log in logs[1:]) for name, key in keys.items()}


def share_table(shares: Mapping[str, float]) -> str:
    """What `phase_shares` returns as Markdown."""
    phases = {
        name: share for name, share in shares.items() if name not in (SECONDS, WAITED) and share >= SHOWN
    }
    names = ("seconds per iteration", *phases, "share of judging waited for")
    numbers = (f"{shares[SECONDS]:.1f}", *(f"{share:.3f}" for share in phases.values()))
    return markdown_table(names, [(*numbers, f"{shares[WAITED]:.2f}")])
