"""A pick among proposed lines as action, numbers as observation: where classic libraries can learn."""

from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from codegym.table import check_object
from codegym.wrappers.features import crossed
from codegym.wrappers.lines import LineSender
from codegym.wrappers.proposers import Proposal, Proposer, make_proposer


class LineChoices(LineSender[NDArray[np.float32], np.int64]):
    """An action picks one of at most k proposed lines.

    ### Action space
    `Discrete(k)`. Where fewer than k lines are proposed, action a stands for line `a % n`; `action_masks()`
    allows the first n only, for sb3-contrib's `MaskablePPO`. A candidate of several lines is written whole.

    ### Observation space
    `Box(-1, 1, [k * (n_features + 1) + 1])`: for each candidate `n_features` hashed crosses of the request's
    words and the candidate's tokens (see `codegym.wrappers.features.crossed`) and 1 if there is one; last,
    the share of `max_lines` that is written.

    ### Reward and info
    The sum over the lines written. `info` also has `candidates` and `request`, except at the end.

    Args:
        env: `CodeGen-v0`, perhaps in a reward wrapper.
        proposer: A name from `PROPOSERS` or an object; only a name survives the `EnvSpec`'s JSON.
        k: Most candidates at a time.
        n_features: Numbers per candidate; more of them mix up fewer pairs.
        proposer_options: Constructor arguments of the named proposer; JSON.

    Raises:
        TypeError: If `env` does not take lines, options come with an object, or the proposer is none.
        UnknownNameError: If no proposer has that name.
        ValueError: If `k` or `n_features` is less than 1.
    """

    def __init__(
        self,
        env: gym.Env[str, str],
        proposer: str | Proposer,
        k: int = 4,
        *,
        n_features: int = 1024,
        proposer_options: Mapping[str, Any] | None = None,
    ) -> None:
        if k < 1 or n_features < 1:
            raise ValueError(f"k and n_features must be at least 1, got {k=} and {n_features=}")
        if proposer_options and not isinstance(proposer, str):
            raise TypeError(f"options {sorted(proposer_options)} go with a proposer's name, not an object")
        if not isinstance(proposer, str):
            check_object(proposer, Proposer, "proposer")
        # A proposer may hold a model; recording must not copy its weights.
        RecordConstructorArgs.__init__(
            self,
            proposer=proposer,
            k=k,
            n_features=n_features,
            proposer_options=proposer_options,
            _disable_deepcopy=True,
        )
        super().__init__(env)
        self.proposer = (
            make_proposer(proposer, **(proposer_options or {})) if isinstance(proposer, str) else proposer
        )
        self.k = k
        self.n_features = n_features
        self.action_space = gym.spaces.Discrete(k)
        self.observation_space = gym.spaces.Box(-1.0, 1.0, (k * (n_features + 1) + 1,), np.float32)
        # Chance of its own, so that the tasks drawn are those of the line environment with the same seed.
        self._rng = np.random.default_rng()
        self._proposal: Proposal | None = None

    @property
    def proposal(self) -> Proposal:
        """What can be picked now.

        Raises:
            ResetNeeded: Before the first `reset` and after the end of a program.
        """
        if self._proposal is None:
            raise ResetNeeded("there is nothing to choose from; call reset() first")
        return self._proposal

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions stand for a candidate of their own. [k]."""
        n = self.k if self._proposal is None else len(self._proposal.candidates)
        return np.arange(self.k) < n

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start a program and propose its first line."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        _, info = self._restart(seed, options)
        return self._proposed(info)

    def step(self, action: int | np.int64) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """Write a candidate.

        Raises:
            ResetNeeded: Before the first `reset`, and after the end of a program.
            SandboxError: If the judge itself failed; the step may be repeated.
            ValueError: If `action` is not a number from 0 to k - 1, or the proposer breaks its contract.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"an action is a number from 0 to {self.k - 1}, got {action!r}")
        candidates = self.proposal.candidates
        lines = candidates[int(action) % len(candidates)].split("\n")
        _, reward, terminated, truncated, info = self._send(lines)
        observation, info = self._proposed(info)
        return observation, reward, terminated, truncated, info

    def _proposed(self, info: dict[str, Any]) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """The observation of the next proposal; zeros but for the position at the end."""
        episode = self.episode
        blocks = np.zeros((self.k, self.n_features + 1), dtype=np.float32)
        self._proposal = None
        if not episode.over:
            self._proposal = self._checked(self.proposer.propose(episode, self.k, self._rng))
            for block, candidate in zip(blocks, self._proposal.candidates, strict=False):
                block[:-1] = crossed(self._proposal.request, candidate, self.n_features)
                block[-1] = 1.0
            info = {**info, "candidates": self._proposal.candidates, "request": self._proposal.request}
        position = np.float32(min(1.0, len(episode.lines) / self._base.max_lines))
        return np.append(blocks.ravel(), position), info

    def _checked(self, proposal: Proposal) -> Proposal:
        if not 1 <= len(proposal.candidates) <= self.k:
            raise ValueError(
                f"{type(self.proposer).__name__} must propose 1 to {self.k} candidates, "
                f"got {proposal.candidates!r}"
            )
        return proposal
