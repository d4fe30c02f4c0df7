"""`CodeGen-v0`: write a program line by line, then have it judged."""

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded

from codegym.episode import CUT_PROGRAM, END_OF_PROGRAM, Episode
from codegym.errors import TaskError, UnknownNameError
from codegym.judge import Judge, make_judge
from codegym.render import RENDERERS, draw_ansi
from codegym.rewards.outcome import PassFail, outcome
from codegym.spaces import CodeSpace
from codegym.table import check_object
from codegym.task import Task
from codegym.tasks import load_tasks


class CodeGenEnv(gym.Env[str, str]):
    """A program is an episode, a line is a step.

    Its rules are the methods `start`, `advance` and `judged`, which take and return `Episode` values;
    `CodeGenVectorEnv` plays many episodes by the same ones.

    ### Action space
    `CodeSpace(one_line=True)`: one line of source without its newline, or `END_OF_PROGRAM`. Anything else
    is a ValueError and leaves the episode as it was.

    ### Observation space
    `CodeSpace()`: the prompt and the lines so far, each ended by a newline.

    ### Reward
    1 on the last action if the program passes every test, else 0. `RewardWrapper` pays other schemes.

    ### Episode end
    `END_OF_PROGRAM` terminates; `max_lines` or `max_chars` truncates. Both judge the program first. A failure
    of the judge itself is raised, and the step can be tried again.

    ### Info
    Fresh on each step and free of clocks. Always `task_id`; at the end also `verdict`, `tests_passed`,
    `tests_total`, `is_success`, `error_line` (1-based line of the judged module, `episode.source`; 0 if
    unknown), `action_rewards` (a tuple, one number per action) and `reward_parts`. Gymnasium's vector
    environments join infos by key, which needs the same type every time and cannot join ragged arrays.

    Args:
        tasks: The tasks to draw from, or the name of a source in `TASK_SOURCES`.
        judge: Judges the programs, or a name in `JUDGES`: that judge starts when it is first needed and stops
            with `close()`.
        max_lines: The program is cut after this many lines.
        max_chars: The program is cut once lines and their newlines reach this many characters.
        render_mode: What `render()` returns: text in "ansi" or "html", or an "rgb_array", of the program and
            each line's reward. "human" draws it on the terminal at every step.
        task_options: Arguments of `load_tasks` for a named source; JSON.
        judge_options: Arguments of `make_judge` for a named judge; JSON.

    Raises:
        TaskError: If there are no tasks, two share an id, or one has no tests.
        TypeError: If the judge is neither a name nor a judge.
        UnknownNameError: If a name is in no table.
        ValueError: If a limit or the render mode is not valid, or options come without a name.

    Attributes:
        rewards: What each action of this episode was paid, for rendering; a reward wrapper knows better.
        has_reward_wrapper: Whether a wrapper calls `pay` in the place of this environment.
    """

    metadata = {"render_modes": [*RENDERERS, "human"], "render_fps": 4}  # noqa: RUF012 - as in the base class

    def __init__(
        self,
        tasks: Sequence[Task] | str = "stepwise",
        judge: Judge | str = "local",
        *,
        max_lines: int = 64,
        max_chars: int = 20_000,
        render_mode: str | None = None,
        task_options: Mapping[str, Any] | None = None,
        judge_options: Mapping[str, Any] | None = None,
    ) -> None:
        if max_lines < 1 or max_chars < 1:
            raise ValueError(f"max_lines and max_chars must be at least 1, got {max_lines=} and {max_chars=}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            modes = ", ".join(self.metadata["render_modes"])
            raise ValueError(f"render_mode must be None or one of {modes}, got {render_mode!r}")
        for name, value, options in (("tasks", tasks, task_options), ("judge", judge, judge_options)):
            if options and not isinstance(value, str):
                raise ValueError(f"options for {name} go with a name, got {name} as {type(value).__name__}")
        if not isinstance(judge, str):
            check_object(judge, Judge, "judge")
        self.tasks = tuple(load_tasks(tasks, **(task_options or {})) if isinstance(tasks, str) else tasks)
        self._tasks_by_id = _index(self.tasks)
        self.max_lines = max_lines
        self.max_chars = max_chars
        self.render_mode = render_mode
        self.action_space = CodeSpace(one_line=True)
        self.observation_space = CodeSpace()
        self._judge = judge
        self._judge_options = dict(judge_options or {})
        self._own_judge: Judge | None = None
        self._episode: Episode | None = None
        self.rewards: tuple[float, ...] = ()
        self.has_reward_wrapper = False

    @property
    def episode(self) -> Episode:
        """The whole state.

        Raises:
            ResetNeeded: Before the first `reset`.
        """
        if self._episode is None:
            raise ResetNeeded("no program is being written yet; call reset() first")
        return self._episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Start an empty program for a task drawn at random, or for `options={"task_id": ...}`.

        Raises:
            UnknownNameError: If there is no such task.
            ValueError: If there is an option other than `task_id`.
        """
        super().reset(seed=seed)
        self._episode = self.start(self.np_random, options)
        if not self.has_reward_wrapper:
            self.pay(())
        return self._episode.text, describe(self._episode)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Write one line, or end the program.

        Raises:
            ResetNeeded: Before the first `reset`, and after the end of a program.
            SandboxError: If the judge itself failed; the episode is as it was, the step may be repeated.
            ValueError: If `action` is neither one line nor END_OF_PROGRAM.
        """
        (episode,) = self.judged([self.advance(self.episode, action)])
        self._episode = episode
        reward = base_reward(episode)
        if not self.has_reward_wrapper:
            self.pay((*self.rewards, reward))
        return episode.text, reward, episode.terminated, episode.truncated, describe(episode)

    def render(self) -> Any:
        """The picture of the episode in this render mode; None in "human", which draws by itself."""
        if self.render_mode is None:
            gym.logger.warn('render() needs a render mode: gym.make("CodeGen-v0", render_mode="ansi")')
            return None
        episode = self.episode
        return None if self.render_mode == "human" else RENDERERS[self.render_mode](episode, self.rewards)

    def pay(self, rewards: Sequence[float]) -> None:
        """Note what the actions so far were paid, one number each; in "human" mode, draw."""
        self.rewards = tuple(rewards)
        if self.render_mode == "human":
            # Codes that clear the screen are for terminals; a log file gets one picture after another.
            clear = "\x1b[H\x1b[2J" if sys.stdout.isatty() else ""
            sys.stdout.write(clear + draw_ansi(self.episode, self.rewards))
            sys.stdout.flush()

    def close(self) -> None:
        """Stop the judge, if this environment started it; closing twice is fine."""
        if self._own_judge is not None:
            self._own_judge.close()
            self._own_judge = None

    def start(self, rng: np.random.Generator, options: Mapping[str, Any] | None = None) -> Episode:
        """An empty program for the task that `options` name, or for one drawn with `rng`.

        Raises:
            UnknownNameError: If there is no such task.
            ValueError: If there is an option other than `task_id`.
        """
        unknown = set(options or {}) - {"task_id"}
        if unknown:
            raise ValueError(f"unknown reset options {sorted(unknown)}; the only one is 'task_id'")
        if options and "task_id" in options:
            return Episode(task=self._task(options["task_id"]))
        return Episode(task=self.tasks[int(rng.integers(len(self.tasks)))])

    def advance(self, episode: Episode, action: str) -> Episode:
        """The episode after one more action, not judged yet.

        Raises:
            ResetNeeded: If the episode is over.
            ValueError: If `action` is neither one line nor END_OF_PROGRAM.
        """
        if episode.over:
            raise ResetNeeded("the program has ended; call reset() before the next step()")
        if not isinstance(action, str):
            raise ValueError(f"an action is a line of source or END_OF_PROGRAM, got {action!r}")
        if action in (END_OF_PROGRAM, CUT_PROGRAM):
            return replace(episode, terminated=action == END_OF_PROGRAM, truncated=action == CUT_PROGRAM)
        if not self.action_space.contains(action):
            raise ValueError(f"an action is one line, without newline or NUL, got {action!r}")
        episode = episode.write(str(action))
        full = len(episode.lines) >= self.max_lines or len(episode.completion) >= self.max_chars
        return replace(episode, truncated=full)

    def judged(self, episodes: Sequence[Episode]) -> list[Episode]:
        """The episodes, those that are over with their judgements: one batch for the judge.

        Raises:
            SandboxError: If the judge itself failed.
        """
        over = [index for index, episode in enumerate(episodes) if episode.over]
        found = list(episodes)
        if over:
            jobs = [(episodes[index].task, episodes[index].source) for index in over]
            for index, judgement in zip(over, self.judge.judge(jobs), strict=True):
                found[index] = replace(episodes[index], judgement=judgement)
        return found

    def _task(self, task_id: str) -> Task:
        if task_id not in self._tasks_by_id:
            close = get_close_matches(str(task_id), list(self._tasks_by_id), n=3)
            raise UnknownNameError(
                f"no task {task_id!r} among {len(self.tasks)}"
                + (f"; the closest are {', '.join(close)}" if close else "")
            )
        return self._tasks_by_id[task_id]

    @property
    def judge(self) -> Judge:
        """The judge; one that was given by name starts here, when it is first needed."""
        if not isinstance(self._judge, str):
            return self._judge
        if self._own_judge is None:
            self._own_judge = make_judge(self._judge, **self._judge_options)
        return self._own_judge


def _index(tasks: Sequence[Task]) -> dict[str, Task]:
    if not tasks:
        raise TaskError("an environment needs at least one task")
    repeated = [task_id for task_id, count in Counter(task.task_id for task in tasks).items() if count > 1]
    if repeated:
        raise TaskError(f"task ids must be unique, but {repeated[0]!r} occurs more than once")
    untested = [task.task_id for task in tasks if not task.tests]
    if untested:
        raise TaskError(f"task {untested[0]!r} has no tests, so no program could be judged")
    return {task.task_id: task for task in tasks}


def base_reward(episode: Episode) -> float:
    """What `CodeGen-v0` pays for an episode's newest action."""
    return outcome(episode) if episode.over else 0.0


def describe(episode: Episode) -> dict[str, Any]:
    """The `info` of an episode."""
    info: dict[str, Any] = {"task_id": episode.task.task_id}
    judgement = episode.judgement
    if judgement is not None:
        info |= {
            "verdict": judgement.verdict,
            "tests_passed": judgement.tests_passed,
            "tests_total": judgement.tests_total,
            "is_success": judgement.passed,
            "error_line": judgement.error_line or 0,
            "action_rewards": tuple(PassFail().credit([episode])[0].tolist()),
            "reward_parts": {"outcome": outcome(episode)},
        }
    return info
