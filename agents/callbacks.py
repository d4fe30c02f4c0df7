"""Stable-Baselines3's callbacks over agents that write an iteration's programs in one batch."""

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, ConvertCallback

from agents.rollout import Rollout
from codegym.env import describe

MaybeCallback: TypeAlias = BaseCallback | Callable[..., bool] | list[BaseCallback] | None


def as_callback(callback: MaybeCallback) -> BaseCallback:
    """What `learn` was given, as one callback."""
    if isinstance(callback, BaseCallback):
        return callback
    if callback is None or isinstance(callback, list):
        return CallbackList(callback or [])
    return ConvertCallback(callback)


def replay_steps(callback: BaseCallback, rollout: Rollout) -> bool:
    """Tell a callback about every action of a rollout, as if one environment had taken them in turn.

    Args:
        callback: Its `on_step` is called once per action; its `locals` then hold Stable-Baselines3's `dones`,
            `rewards` and `infos`, for that one environment.
        rollout: Programs that were judged, and paid for.

    Returns:
        False as soon as the callback does: the training ends.
    """
    for step in _steps(rollout):
        callback.update_locals(step)
        if not callback.on_step():
            return False
    return True


def _steps(rollout: Rollout) -> Iterator[dict[str, Any]]:
    for episode, credit in zip(rollout.episodes, rollout.credits, strict=True):
        summary = {"r": float(credit.sum()), "l": len(credit)}
        for place, reward in enumerate(credit.tolist()):
            done = place + 1 == len(credit)
            info: dict[str, Any] = {"task_id": episode.task.task_id}
            if done:
                info = {**describe(episode), "episode": summary}
            yield {"dones": np.array([done]), "rewards": np.array([reward]), "infos": [info]}
