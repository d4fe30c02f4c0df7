"""Text to tokens and back: the seam of `TokenActions`."""

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, runtime_checkable

from codegym.table import check_name, resolve

TOKENIZERS = {
    "bytes": "codegym.wrappers.tokenizers:ByteTokenizer",
    "transformers": "transformers:AutoTokenizer",
}
"""How a tokenizer given by name is made: "bytes" at once, every other name by `from_pretrained(name)`."""


@runtime_checkable
class Tokenizer(Protocol):
    """What `TokenActions` needs; tokenizers of `transformers` have it."""

    @property
    def eos_token_id(self) -> int | None:
        """The token that ends a text."""
        ...

    def encode(self, text: str) -> list[int]:
        """The tokens of a text."""
        ...

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of tokens; never shorter for more tokens, but for a character that is not complete."""
        ...

    def __len__(self) -> int:
        """How many tokens there are; each is less than this."""
        ...


class ByteTokenizer:
    """A token per UTF-8 byte, and 256 for the end of text. Needs no file."""

    eos_token_id = 256

    def encode(self, text: str) -> list[int]:
        """The bytes of the text; what has no UTF-8 form becomes a question mark."""
        return list(text.encode(errors="replace"))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text; bytes that are no UTF-8 become U+FFFD, end-of-text tokens nothing."""
        return bytes(token for token in token_ids if token < 256).decode(errors="replace")

    def __len__(self) -> int:
        return 257


def make_tokenizer(name: str) -> Tokenizer:
    """The tokenizer called "bytes", or the one saved under a path or hub name, through `transformers`.

    Raises:
        FileNotFoundError: If `name` is absolute or starts with "." or "~", and there is no such folder.
        OSError: If there is no such tokenizer.
        UnknownNameError: If `name` is almost "bytes".
    """
    if name == "bytes":
        made: Tokenizer = resolve(TOKENIZERS, name, "tokenizer")()
        return made
    folder = Path(name).expanduser()
    # Whatever is passed on and is no folder is looked for on the hub, which takes long to fail.
    if not folder.exists():
        if folder.is_absolute() or name.startswith("."):
            raise FileNotFoundError(f"there is no folder {folder} to load a tokenizer from")
        if "/" not in name and get_close_matches(name, TOKENIZERS):
            check_name(name, ["bytes"], "tokenizer")
    where = str(folder) if folder.exists() else name
    loaded: Tokenizer = resolve(TOKENIZERS, "transformers", "tokenizer").from_pretrained(where)
    return loaded
