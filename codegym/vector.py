"""Many `CodeGen-v0` episodes side by side: what `gym.make_vec("CodeGen-v0", num_envs=N)` makes."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from codegym.env import CodeGenEnv, base_reward, describe
from codegym.episode import Episode
from codegym.judge import Judge
from codegym.render import RENDERERS
from codegym.task import Task

Texts: TypeAlias = tuple[str, ...]
Step: TypeAlias = tuple[Texts, NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]


class CodeGenVectorEnv(VectorEnv[Texts, Sequence[str], NDArray[Any]]):
    """`num_envs` programs written at the same time, a line each per step.

    Observations, rewards and infos are those of as many `CodeGenEnv`, batched as Gymnasium's vector
    environments do; but all programs that end in a step are judged in one call, which the judge runs in
    parallel. A step either succeeds for all environments or, with a bad action or a failing judge, changes
    none, so that it can be repeated.

    `reset` takes a seed for all (environment i gets `seed + i`) or one per environment, and the options
    `task_id` (one id for all, or one per environment) and `reset_mask` (reset these environments only).

    Args:
        num_envs: How many programs.
        tasks: As in `CodeGenEnv`, and so for the arguments not named here.
        judge: As in `CodeGenEnv`; one judge for all.
        autoreset_mode: What happens after an episode's end, as in Gymnasium: "NextStep" (the next step
            resets, its action is ignored), "SameStep" (the same step resets, the last observation and info
            are in `final_obs` and `final_info`) or "Disabled" (call `reset` with a `reset_mask`).

    Raises:
        TaskError: If there are no tasks, two share an id, or one has no tests.
        UnknownNameError: If a name is in no table.
        ValueError: If a number, the render mode or the autoreset mode is not valid.

    Attributes:
        stepped: The episodes as the last `reset` or `step` left them, before any reset in the same step:
            without actions where the environment was reset, over where the program has just ended.
        rewards: What each action of `stepped` was paid, for rendering.
    """

    def __init__(
        self,
        num_envs: int = 1,
        tasks: Sequence[Task] | str = "stepwise",
        judge: Judge | str = "local",
        *,
        max_lines: int = 64,
        max_chars: int = 20_000,
        render_mode: str | None = None,
        task_options: Mapping[str, Any] | None = None,
        judge_options: Mapping[str, Any] | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}")
        if render_mode not in (None, *RENDERERS):
            raise ValueError(
                f"render_mode must be None or one of {', '.join(RENDERERS)}, got {render_mode!r}"
            )
        self._line_env = CodeGenEnv(
            tasks,
            judge,
            max_lines=max_lines,
            max_chars=max_chars,
            task_options=task_options,
            judge_options=judge_options,
        )
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = {
            "render_modes": [*RENDERERS],
            "render_fps": CodeGenEnv.metadata["render_fps"],
            "autoreset_mode": self.autoreset_mode,
        }
        self.render_mode = render_mode
        self.single_observation_space = self._line_env.observation_space
        self.single_action_space = self._line_env.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._rngs = [seeding.np_random() for _ in range(num_envs)]
        self._episodes: tuple[Episode, ...] = ()
        self.stepped: tuple[Episode, ...] = ()
        self.rewards: list[tuple[float, ...]] = [()] * num_envs

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The tasks to draw from."""
        return self._line_env.tasks

    @property
    def judge(self) -> Judge:
        """The one judge; if given by name it starts when first needed."""
        return self._line_env.judge

    @property
    def episodes(self) -> tuple[Episode, ...]:
        """The whole state: each environment's episode.

        Raises:
            ResetNeeded: Before the first `reset`.
        """
        if not self._episodes:
            raise ResetNeeded("no programs are being written yet; call reset() first")
        return self._episodes

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Each environment's generator, as in Gymnasium's `SyncVectorEnv`."""
        return tuple(rng for rng, _ in self._rngs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """Each environment's seed, as in Gymnasium's `SyncVectorEnv`."""
        return tuple(seed for _, seed in self._rngs)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Texts, dict[str, Any]]:
        """Start an empty program everywhere, or where `options["reset_mask"]` says so.

        Raises:
            ResetNeeded: If the first reset has a mask that leaves an environment out.
            TypeError: If the mask is no array of booleans.
            UnknownNameError: If there is no such task.
            ValueError: If seeds, ids or mask are not one per environment, or an option is unknown.
        """
        choices = dict(options or {})
        mask = self._mask(choices.pop("reset_mask", None))
        if not self._episodes and not mask.all():
            raise ResetNeeded("the first reset() must reset every environment")
        chosen = self._choices(choices)
        rngs = [
            self._rngs[index] if each is None or not mask[index] else seeding.np_random(each)
            for index, each in enumerate(self._seeds(seed))
        ]
        started = {
            index: self._line_env.start(rngs[index][0], chosen[index])
            for index in np.flatnonzero(mask).tolist()
        }
        self._rngs = rngs
        self._episodes = self.stepped = tuple(
            started[index] if index in started else self._episodes[index] for index in range(self.num_envs)
        )
        infos: dict[str, Any] = {}
        for index, episode in started.items():
            self.rewards[index] = ()
            infos = self._add_info(infos, describe(episode), index)
        return self._texts(), infos

    def step(self, actions: Sequence[str]) -> Step:
        """Write one line, or end the program, in every environment.

        Raises:
            ResetNeeded: Before the first `reset`; if autoreset is disabled, also after the end of a program.
            SandboxError: If the judge itself failed; the step may be repeated.
            ValueError: If an action is not valid, or there is not one per environment.
        """
        if len(actions) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} actions, one per environment, got {len(actions)}")
        next_step = self.autoreset_mode is AutoresetMode.NEXT_STEP
        running = [i for i, episode in enumerate(self.episodes) if not (next_step and episode.over)]
        advanced = [self._line_env.advance(self.episodes[i], actions[i]) for i in running]
        judged = dict(zip(running, self._line_env.judged(advanced), strict=True))
        # From here on nothing fails: the step is taken everywhere.
        self.stepped = tuple(judged.get(i) or self._start(i) for i in range(self.num_envs))
        rewards = np.array([base_reward(episode) for episode in self.stepped], dtype=np.float64)
        for index, (episode, reward) in enumerate(zip(self.stepped, rewards.tolist(), strict=True)):
            before = self.rewards[index] if episode.n_actions > 1 else ()
            self.rewards[index] = (*before, reward) if index in judged else ()
        infos: dict[str, Any] = {}
        self._episodes = tuple(self._settled(index, infos) for index in range(self.num_envs))
        terminated = np.array([episode.terminated for episode in self.stepped], dtype=np.bool_)
        truncated = np.array([episode.truncated for episode in self.stepped], dtype=np.bool_)
        return self._texts(), rewards, terminated, truncated, infos

    def render(self) -> tuple[Any, ...] | None:
        """A picture of each of the `stepped` episodes, as in `CodeGenEnv`."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a render mode: gym.make_vec("CodeGen-v0", render_mode="ansi")')
            return None
        if not self.stepped:
            raise ResetNeeded("no programs are being written yet; call reset() first")
        draw = RENDERERS[self.render_mode]
        return tuple(draw(*shown) for shown in zip(self.stepped, self.rewards, strict=True))

    def close_extras(self, **kwargs: Any) -> None:
        """Stop the judge, if this environment started it."""
        del kwargs
        self._line_env.close()

    def _start(self, index: int) -> Episode:
        return self._line_env.start(self._rngs[index][0])

    def _settled(self, index: int, infos: dict[str, Any]) -> Episode:
        """The episode that goes on after a step; adds to `infos`, of a new episode too."""
        episode = self.stepped[index]
        info = describe(episode)
        if self.autoreset_mode is AutoresetMode.SAME_STEP and episode.over:
            self._add_info(infos, {"final_obs": episode.text, "final_info": info}, index)
            episode = self._start(index)
            info = describe(episode)
        self._add_info(infos, info, index)
        return episode

    def _texts(self) -> Texts:
        return tuple(episode.text for episode in self._episodes)

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int):
            return [seed + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"expected {self.num_envs} seeds, one per environment, got {len(seed)}")
        return seed

    def _choices(self, options: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The reset options of each environment."""
        ids = options.get("task_id")
        if ids is None or isinstance(ids, str):
            return [options] * self.num_envs
        if len(ids) != self.num_envs:
            raise ValueError(f"expected one task_id or {self.num_envs}, one per environment, got {len(ids)}")
        return [{**options, "task_id": task_id} for task_id in ids]

    def _mask(self, mask: Any) -> NDArray[np.bool_]:
        if mask is None:
            return np.ones(self.num_envs, dtype=np.bool_)
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise TypeError(f"reset_mask must be an array of booleans, got {mask!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must have shape ({self.num_envs},) and a True value, got {mask}")
        return mask
