"""The training loop: iterations, each followed by the callbacks of the actions that it took."""

from abc import abstractmethod
from typing import Self

import gymnasium as gym
import numpy as np
from rich.console import Console
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.utils import configure_logger
from stable_baselines3.common.vec_env import VecEnv

from agents import ranks
from agents.agent import Agent
from agents.callbacks import MaybeCallback, as_callback, replay_steps
from agents.policy_config import PolicyConfig
from agents.progress import progress


class IterativeAgent(Agent):
    """Trains an iteration at a time, as Stable-Baselines3's on-policy agents do.

    Args:
        env: As in `Agent`.
        config: How long a run is.
        tensorboard_log: Folder for TensorBoard, as in Stable-Baselines3.
        verbose: 1 prints the logged values.
    """

    config: PolicyConfig

    def __init__(
        self,
        env: gym.Env[str, str] | VecEnv,
        config: PolicyConfig,
        *,
        tensorboard_log: str | None = None,
        verbose: int = 0,
    ) -> None:
        super().__init__(env)
        self.config = config
        self.tensorboard_log, self.verbose = tensorboard_log, verbose
        self.iteration = 0

    @abstractmethod
    def iterate(self, progress_done: float, callback: BaseCallback | None = None) -> dict[str, float]:
        """Run one iteration, put its rollout into the callback's locals, and return what it measured."""

    def restart(self) -> None:
        """Count timesteps and iterations from 0 again."""
        self.num_timesteps = self.iteration = 0

    def learn(
        self,
        total_timesteps: int | None = None,
        callback: MaybeCallback = None,
        log_interval: int = 1,
        tb_log_name: str | None = None,
        reset_num_timesteps: bool = False,
        progress_bar: bool = False,
    ) -> Self:
        """Train; may be called again, also after `load`, and goes on from where it was.

        Callbacks' `on_step` runs once per action, but only after the iteration that took them all: whatever
        it saves is a whole iteration, and `num_timesteps` rises by an iteration at a time.

        Args:
            total_timesteps: Stop once this many actions were taken in all; None: after
                `config.n_iterations` iterations in all.
            callback: As in Stable-Baselines3; one that returns False ends the training.
            log_interval: Iterations between dumps of the logger.
            tb_log_name: Name of the run in TensorBoard; the agent's if None.
            reset_num_timesteps: Count timesteps and iterations from 0 again.
            progress_bar: Show one with an ETA.
        """
        if reset_num_timesteps:
            self.restart()
        name = tb_log_name or type(self).__name__
        if self._logger is None:
            fresh = reset_num_timesteps or not self.iteration
            if ranks.rank() == 0:
                self.set_logger(configure_logger(self.verbose, self.tensorboard_log, name, fresh))
        shown = progress_bar and ranks.rank() == 0
        called = as_callback(callback)
        called.init_callback(self)
        goal = np.inf if total_timesteps is None else total_timesteps
        called.on_training_start({"self": self, "total_timesteps": goal, "tb_log_name": name}, globals())
        with progress(name.lower(), Console(stderr=True, quiet=not shown)) as report:
            while (done := self._progress(total_timesteps)) < 1.0:
                metrics = self.iterate(done, called)
                for key, value in metrics.items():
                    self.logger.record(key, value)
                if self.iteration % log_interval == 0:
                    self.dump_logs()
                counts = (self.iteration, self.config.n_iterations)
                if total_timesteps is not None:
                    counts = (self.num_timesteps, total_timesteps)
                report(*counts, {"pass": metrics["rollout/success_rate"]})
                if not replay_steps(called, called.locals["rollout"]):
                    break
        called.on_training_end()
        return self

    def _progress(self, total_timesteps: int | None) -> float:
        if total_timesteps is None:
            return self.iteration / self.config.n_iterations
        return 1.0 if self.num_timesteps >= total_timesteps else self.num_timesteps / total_timesteps
