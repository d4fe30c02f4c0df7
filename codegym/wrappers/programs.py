"""Whole programs as actions."""

from typing import Any

import gymnasium as gym
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

from codegym.episode import END_OF_PROGRAM
from codegym.spaces import CodeSpace
from codegym.wrappers.lines import LineSender, LineStep


class ProgramActions(LineSender[str, str]):
    """A program is an action, an episode is one step.

    The action is the text after the prompt; a newline at its end is not a further line. Lines beyond the
    line environment's limits are not written. The reward is the sum over the lines; `info` has them one by
    one in `action_rewards`, the end of the program last.

    Args:
        env: `CodeGen-v0`, perhaps in a reward wrapper.

    Raises:
        TypeError: If `env` does not take lines.
    """

    def __init__(self, env: gym.Env[str, str]) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self.action_space = CodeSpace(is_source=True)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Show a task."""
        return self._restart(seed, options)

    def step(self, action: str) -> LineStep:
        """Write the whole program and have it judged.

        Raises:
            ResetNeeded: Before the first `reset`, and after the end of a program.
            SandboxError: If the judge itself failed; the step may be repeated.
            ValueError: If `action` is no string or holds a NUL.
        """
        if action not in self.action_space:
            raise ValueError(f"an action is the text of a program, without NUL, got {action!r}")
        if self.episode.over:
            raise ResetNeeded("the program has ended; call reset() before the next step()")
        lines = str(action).removesuffix("\n").split("\n") if action else []
        return self._send([*lines, END_OF_PROGRAM])
