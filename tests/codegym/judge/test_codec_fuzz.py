"""Very many texts that no encoder wrote: a value or a CodecError, in bounded time and memory."""

import random
import time
import tracemalloc

import pytest

from codegym.judge.codec import CodecError, decode, encode
from codegym.judge.outcome import same

# How much memory and CPU time a text may take: some bytes per byte, and a constant for what is imported late.
BYTES_PER_BYTE = 200
BYTES = 100_000
# Generous: a virtual machine's clocks jump; anything quadratic takes minutes here.
SECONDS = 5.0

VALUES = [
    None,
    [True, False, None, 0, -1, 2**64, 0.5, -0.0, 1e300, float("inf"), float("nan")],
    [3**40_000, -(7**20_000)],
    ["", "\n", "\0", "é", "\ud800", "\udfff", "\U0001f600", '"\\'],
    [b"", b"\x00\xff" * 9, 1j, complex("nan+infj")],
    ((), (1,), ((2,), [3])),
    {"a": 1, 2: [3], (4, 5): {6: 7}, None: {}, b"8": {9}},
    [{1, 2, 3}, frozenset({"a", ("b", frozenset())}), set()],
    [range(3), range(0), range(-5, 10**30, 7), int, type(None), object],
    [[[[[[[[[[]]]]]]]]], [1, [2, [3, [4, {"x": (5,)}]]]]],
]
TEXTS = [encode(value) for value in VALUES]
TAGS = ["int", "tuple", "dict", "set", "frozenset", "bytes", "complex", "range", "type", "object", ""]
# What a text of this format is made of; random bytes alone are hardly ever well-formed.
PIECES = [f'{{"{tag}":'.encode() for tag in TAGS]
PIECES += [
    b"[",
    b"]",
    b"{",
    b"}",
    b",",
    b":",
    b'"',
    b"\\",
    b"\\u",
    b"\\ud800",
    b"\xed\xa0\x80",
    b"\xff",
    b"\n",
]
PIECES += [b"0", b"-", b"9" * 40, b"1e999", b"0x", b"NaN", b"Infinity", b"null", b"true", b"[]", b"{}", b" "]


def mutated(text, source):
    """A text with some pieces cut out, put in, exchanged or taken from another text."""
    data = bytearray(text)
    for _ in range(source.choice((1, 1, 1, 2, 4))):
        place = source.randint(0, len(data))
        length = source.choice((0, 1, 1, 2, source.randint(0, 40)))
        kind = source.random()
        if kind < 0.4:
            data[place : place + length] = source.choice(PIECES)
        elif kind < 0.6:
            data[place : place + length] = bytes([source.randrange(256)])
        elif kind < 0.8:
            other = source.choice(TEXTS)
            start = source.randint(0, len(other))
            data[place : place + length] = other[start : start + source.randint(0, 60)]
        else:
            del data[place : place + length]
    return bytes(data)


def check(data):
    """Decode; return whether it was accepted. Nothing but CodecError may come out of it."""
    tracemalloc.reset_peak()
    held = tracemalloc.get_traced_memory()[0]
    started = time.thread_time()
    value = None
    try:
        value = decode(data)
        accepted = True
    except CodecError:
        accepted = False
    seconds = time.thread_time() - started
    peak = tracemalloc.get_traced_memory()[1] - held
    assert seconds < SECONDS, (seconds, data[:200])
    assert peak < BYTES + BYTES_PER_BYTE * len(data), (peak, len(data), data[:200])
    if accepted:
        assert same(decode(encode(value)), value)
    return accepted


@pytest.fixture
def traced_memory():
    tracemalloc.start()
    yield
    tracemalloc.stop()


def fuzz(count, texts, seed):
    source = random.Random(seed)
    return sum(check(mutated(source.choice(texts), source)) for _ in range(count))


def test_mutated_texts_give_a_value_or_a_codec_error(traced_memory):
    accepted = fuzz(2_000, TEXTS, seed=0)
    # The mutants are near enough to the format to get past the first check, and not all of them fall there.
    assert 100 < accepted < 1_900


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_hundred_thousand_mutated_texts_give_a_value_or_a_codec_error(traced_memory):
    assert 5_000 < fuzz(100_000, TEXTS, seed=1) < 95_000


@pytest.mark.slow
def test_long_mutated_texts_take_bounded_time_and_memory(traced_memory):
    long = [
        encode(value)
        for value in (
            list(range(20_000)),
            [[n] for n in range(10_000)],
            {str(n): n for n in range(5_000)},
            [set(range(5_000)), tuple("ab" * 5_000)],
            "é\ud800" * 20_000,
            [3**200_000],
            b"x" * 40_000,
        )
    ]
    fuzz(200, long, seed=2)
