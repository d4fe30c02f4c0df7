"""Tokens as actions, token ids as observation."""

from typing import Any, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from codegym.episode import CUT_PROGRAM, END_OF_PROGRAM
from codegym.table import check_object
from codegym.wrappers.lines import LineSender
from codegym.wrappers.tokenizers import Tokenizer, make_tokenizer

TokenObservation: TypeAlias = dict[str, NDArray[np.int64]]


class TokenActions(LineSender[dict[str, Any], np.int64]):
    """A token is an action; a line is written when a token completes it.

    Tokens in are tokens out: what is observed are the prompt's tokens and those chosen, never encoded anew.
    A token that holds a newline completes a line, whatever else it holds; the rest of it starts the next.

    ### Action space
    `Discrete(len(tokenizer))`.

    ### Observation space
    `Dict`: `input_ids`, the newest `context` tokens, and `attention_mask`, 1 where there is one. Shorter
    texts are padded on the left with the end-of-text token, so the newest token always stands last.

    ### Reward
    A line's reward on the token that completes it, 0 on the others.

    ### Episode end
    The end-of-text token writes the line that is being written, if any, and ends the program. So does token
    number `max_tokens`, as a truncation; and the line environment's limits cut as ever.

    ### Info
    That of the line environment's newest step; its `action_rewards` are per line. A NUL that is decoded is
    written as U+FFFD, since source cannot hold it.

    Args:
        env: `CodeGen-v0`, perhaps in a reward wrapper.
        tokenizer: "bytes", a path or hub name for `transformers`, or an object. Only a name survives the
            `EnvSpec`'s JSON.
        max_tokens: The program is cut after this many tokens.
        context: How many tokens are observed.

    Raises:
        TypeError: If `env` does not take lines, or the tokenizer is neither a name nor a tokenizer.
        ValueError: If a number is less than 1, or the tokenizer has no end-of-text token.
    """

    def __init__(
        self,
        env: gym.Env[str, str],
        tokenizer: Tokenizer | str = "bytes",
        *,
        max_tokens: int = 512,
        context: int = 256,
    ) -> None:
        if max_tokens < 1 or context < 1:
            raise ValueError(f"max_tokens and context must be at least 1, got {max_tokens=} and {context=}")
        if not isinstance(tokenizer, str):
            check_object(tokenizer, Tokenizer, "tokenizer")
        RecordConstructorArgs.__init__(
            self, tokenizer=tokenizer, max_tokens=max_tokens, context=context, _disable_deepcopy=True
        )
        super().__init__(env)
        self.tokenizer = make_tokenizer(tokenizer) if isinstance(tokenizer, str) else tokenizer
        if self.tokenizer.eos_token_id is None:
            raise ValueError(f"TokenActions needs a tokenizer with an end-of-text token, got {tokenizer!r}")
        self._eos = int(self.tokenizer.eos_token_id)
        self.max_tokens = max_tokens
        self.context = context
        n_tokens = len(self.tokenizer)
        self.action_space = gym.spaces.Discrete(n_tokens)
        self.observation_space = gym.spaces.Dict(
            {
                "input_ids": gym.spaces.Box(0, n_tokens - 1, (context,), np.int64),
                "attention_mask": gym.spaces.Box(0, 1, (context,), np.int64),
            }
        )
        self.prompt_ids: tuple[int, ...] = ()
        self.token_ids: tuple[int, ...] = ()
        # The line being written is what the tail decodes to, less its first characters, written already.
        self._tail: tuple[int, ...] = ()
        self._written = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[TokenObservation, dict[str, Any]]:
        """Start a program; the observation is its prompt."""
        text, info = self._restart(seed, options)
        self.prompt_ids = tuple(self.tokenizer.encode(text))
        self.token_ids = ()
        # Some tokenizers decode the start of a text in another way, so the first line goes with the prompt.
        self._tail = self.prompt_ids
        self._written = len(self._decode(self._tail))
        return self._observation(), info

    def step(self, action: int | np.int64) -> tuple[TokenObservation, float, bool, bool, dict[str, Any]]:
        """Write a token.

        Raises:
            ResetNeeded: Before the first `reset`, and after the end of a program.
            SandboxError: If the judge itself failed; the step may be repeated.
            ValueError: If `action` is not a token.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"an action is a token, 0 to {len(self.tokenizer) - 1}, got {action!r}")
        if self.episode.over:
            raise ResetNeeded("the program has ended; call reset() before the next step()")
        token = int(action)
        tail = self._tail if token == self._eos else (*self._tail, token)
        text = self._decode(tail)
        *lines, rest = text[self._written :].split("\n")
        is_whole = bool(lines)
        is_last = len(self.token_ids) + 1 >= self.max_tokens
        ends = [END_OF_PROGRAM] if token == self._eos else [CUT_PROGRAM] if is_last else []
        # A cut program has one line at least, so that there is an action to pay for.
        if ends and (rest or (ends == [CUT_PROGRAM] and not lines and not self.episode.lines)):
            lines.append(rest)
        _, reward, terminated, truncated, info = self._send([*lines, *ends])
        self.token_ids = (*self.token_ids, token)
        self._tail = tail
        if is_whole:
            # The token alone will do for what follows its newline, and keeps decoding cheap.
            alone = self._decode((token,))
            self._tail, text = ((token,), alone) if "\n" in alone else (tail, text)
            self._written = text.rindex("\n") + 1
        return self._observation(), reward, terminated, truncated, info

    def _decode(self, token_ids: tuple[int, ...]) -> str:
        return self.tokenizer.decode(list(token_ids)).replace("\0", "\ufffd")

    def _observation(self) -> TokenObservation:
        newest = (*self.prompt_ids, *self.token_ids)[-self.context :]
        padding = self.context - len(newest)
        return {
            "input_ids": np.array([self._eos] * padding + list(newest), dtype=np.int64),
            "attention_mask": np.array([0] * padding + [1] * len(newest), dtype=np.int64),
        }
