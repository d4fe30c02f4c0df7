"""Spaces of text that any program fits in."""

from typing import Any

import gymnasium
import numpy as np

from codegym.episode import CUT_PROGRAM, END_OF_PROGRAM

_SAMPLE_ALPHABET = "abcxyz_0189 =+-*/%<>()[]{}:,.'\"#\téλ→文😀"
_SAMPLE_MAX_LENGTH = 24


class CodeSpace(gymnasium.Space[str]):
    """Unicode strings: whole texts, whole programs, or single lines and END_OF_PROGRAM.

    Not a `gymnasium.spaces.Text`: that one lists its characters, and with shared memory
    `AsyncVectorEnv` silently replaces such observations by filler. With this space it refuses at once;
    pass `shared_memory=False`.

    Args:
        one_line: Whether members are actions: a line without newline or NUL, END_OF_PROGRAM, or the
            CUT_PROGRAM of wrappers with limits of their own.
        is_source: Whether members are programs: text without NUL, which Python source cannot hold.
        seed: Seeds `sample`, which draws short strings for checks and demonstrations.
    """

    def __init__(self, *, one_line: bool = False, is_source: bool = False, seed: int | None = None) -> None:
        # One Python string: vector environments that fill arrays, as Stable-Baselines3's do, keep it whole.
        super().__init__(shape=(), dtype=np.dtype(object), seed=seed)
        self.one_line = one_line
        self.is_source = is_source

    @property
    def is_np_flattenable(self) -> bool:
        """Text of any length has no fixed-size array form."""
        return False

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string, and of the kind that this space holds."""
        if not isinstance(x, str):
            return False
        if self.one_line:
            return x in (END_OF_PROGRAM, CUT_PROGRAM) or not {"\n", "\0"} & set(x)
        return not self.is_source or "\0" not in x

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Draw a short line; never END_OF_PROGRAM.

        Raises:
            ValueError: If a mask or a probability is given: text has no finite list of choices.
        """
        if mask is not None or probability is not None:
            raise ValueError("CodeSpace.sample takes neither mask nor probability")
        length = int(self.np_random.integers(_SAMPLE_MAX_LENGTH + 1))
        return "".join(
            _SAMPLE_ALPHABET[index] for index in self.np_random.integers(len(_SAMPLE_ALPHABET), size=length)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CodeSpace) and self._kind == other._kind

    def __hash__(self) -> int:
        return hash((CodeSpace, self._kind))

    def __repr__(self) -> str:
        return f"CodeSpace({', '.join(f'{name}=True' for name in self._kind)})"

    @property
    def _kind(self) -> tuple[str, ...]:
        return tuple(name for name in ("one_line", "is_source") if getattr(self, name))
