"""Tokens and lines: which token ends which line. Pure functions; nothing is ever re-tokenised.

A newline is often not a token of its own: it merges with the indentation that follows. A line's reward
therefore belongs to the token that *covers* its newline, and a token may cover several newlines.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Decoder(Protocol):
    """The part of a Hugging Face tokenizer that alignment needs."""

    def __len__(self) -> int: ...

    def decode(
        self,
        token_ids: list[int],
        *,
        skip_special_tokens: bool = ...,
        clean_up_tokenization_spaces: bool = ...,
    ) -> str:
        """Text of the tokens."""
        ...


def split_lines(completion: str) -> list[str]:
    """Lines of a completion as an episode has them: split at newlines only, no empty last line."""
    lines = completion.split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def newlines_per_token(tokenizer: Decoder) -> NDArray[np.int64]:
    """How many newlines each token's text holds; 0 for special tokens. [vocabulary]."""
    return np.array(
        [
            tokenizer.decode([token], skip_special_tokens=True, clean_up_tokenization_spaces=False).count(
                "\n"
            )
            for token in range(len(tokenizer))
        ],
        dtype=np.int64,
    )


def line_of_token(token_ids: Sequence[int], newlines: NDArray[np.int64]) -> NDArray[np.int64]:
    """Line that each token belongs to: a token covering a newline belongs to the line it ends. [T].

    A token covering several newlines belongs to the first line it ends.
    """
    counts = newlines[np.asarray(token_ids, dtype=np.int64)]
    return np.asarray(np.cumsum(counts) - counts, dtype=np.int64)


def line_end_tokens(token_ids: Sequence[int], n_lines: int, newlines: NDArray[np.int64]) -> NDArray[np.int64]:
    """Index of the token that ends each line. [n_lines].

    That is the token covering the line's newline; for a last line without one, the last token.

    Args:
        token_ids: A completion's tokens without the end-of-text token.
        n_lines: Number of lines of the completion's text.
        newlines: From `newlines_per_token`.

    Raises:
        ValueError: If tokens and lines do not belong together.
    """
    seen = np.cumsum(newlines[np.asarray(token_ids, dtype=np.int64)])
    total = int(seen[-1]) if len(seen) else 0
    if not total <= n_lines <= total + 1 or (n_lines and not len(seen)):
        raise ValueError(f"{len(token_ids)} tokens cover {total} newlines, which cannot be {n_lines} lines")
    ends = np.searchsorted(seen, np.arange(1, n_lines + 1), side="left")
    return np.minimum(ends, len(seen) - 1).astype(np.int64)
