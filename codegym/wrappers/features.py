"""Numbers for a classic policy: how the words of a request and the tokens of a candidate go together."""

import re
from collections.abc import Iterable
from functools import lru_cache
from itertools import pairwise
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

_ODD = np.uint64(0x9E3779B97F4A7C15)
_TOKEN = re.compile(r"[^\W\d]\w*|\d+|\S|\n")


@lru_cache(maxsize=2**14)
def crossed(request: str, candidate: str, size: int) -> NDArray[np.float32]:
    """Hashed crosses of a request and a candidate line. [size], of length 1 or 0.

    A feature is a pair of a word of the request and one or two neighbouring tokens of the candidate; each
    adds 1 or -1 to the place that its hash says (the hashing trick, arXiv:0902.2206; crosses as in Vowpal
    Wabbit's `-q`). Tokens with a number are told apart only by whether the request has the very same token.
    So "keep the last 7" and `v1 = v0[-7:]` share the pair (last, [-), from which a linear function can
    learn what goes with what; nothing here knows which candidate is right.

    Args:
        request: Text in words.
        candidate: Code.
        size: How many numbers.
    """
    said = set(_TOKEN.findall(request.lower()))
    words = {re.sub(r"\d+", "#", token) for token in said} | {""}
    tokens = ["^", *(_normal(token, said) for token in _TOKEN.findall(candidate)), "$"]
    grams = {*tokens, *(f"{a} {b}" for a, b in pairwise(tokens))}
    # Knuth's multiplicative hash of both halves, in 64 bits: every pair gets a place and a sign of its own.
    codes = (_hashes(words)[:, None] * _ODD ^ _hashes(grams)) * _ODD >> np.uint64(32)
    signs = np.where(codes & np.uint64(2**31), 1.0, -1.0)
    places = (codes % np.uint64(size)).astype(np.int64)
    features = np.bincount(places.ravel(), weights=signs.ravel(), minlength=size).astype(np.float32)
    features /= max(float(np.linalg.norm(features)), 1e-6)
    features.flags.writeable = False  # the cache hands out the same array every time
    return features


def _hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    return np.array([crc32(text.encode(errors="backslashreplace")) for text in texts], dtype=np.uint64)


def _normal(token: str, said: set[str]) -> str:
    """A token with a number in it as a pattern: its name, and whether the request says just that."""
    name = re.sub(r"\d+", "", token)
    return token if name == token else f"{name}{'=' if token.lower() in said else '#'}"
