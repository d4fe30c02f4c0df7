import json
import math
from collections import Counter, OrderedDict, defaultdict, namedtuple
from enum import IntEnum

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym.judge.codec import MAX_BYTES, MAX_DEPTH, CodecError, TooLargeError, decode, encode
from codegym.judge.outcome import same

EXACT = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    st.text(max_size=8),
    st.text(st.characters(categories=["Cs"]), max_size=4),
    st.binary(max_size=20),
    st.sampled_from([int, str, list, dict, type(None)]),
    st.builds(range, st.integers(-9, 9), st.integers(-9, 9), st.integers(1, 5)),
)
SCALARS = st.one_of(EXACT, st.floats(), st.complex_numbers())


@st.composite
def hashable(draw, depth=2):
    """No NaN: in a set or as a key it is found by identity only, in Python too."""
    if depth == 0 or draw(st.booleans()):
        return draw(EXACT)
    parts = draw(st.lists(hashable(depth - 1), max_size=3))
    return draw(st.sampled_from([tuple, frozenset]))(parts)


@st.composite
def values(draw, depth=3):
    if depth == 0 or draw(st.booleans()):
        return draw(SCALARS)
    kind = draw(st.sampled_from([list, tuple, dict, set]))
    if kind is set:
        return set(draw(st.lists(hashable(), max_size=3)))
    parts = draw(st.lists(values(depth - 1), max_size=4))
    return {draw(hashable()): part for part in parts} if kind is dict else kind(parts)


VALUES = values()
Pair = namedtuple("Pair", "x y")


class Colour(IntEnum):
    RED = 1


class Loud(str):
    def __eq__(self, other):
        return True

    __hash__ = str.__hash__


@settings(max_examples=60)
@given(VALUES)
def test_a_value_survives_the_way_with_its_types(value):
    assert same(decode(encode(value)), value)


@settings(max_examples=60)
@given(VALUES, VALUES)
def test_equal_text_means_equal_values(left, right):
    if encode(left) == encode(right):
        assert same(left, right)


@settings(max_examples=60)
@given(VALUES)
def test_a_text_is_one_line(value):
    assert b"\n" not in encode(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ([1, True, None, 0.5, "a"], b'[1,true,null,0.5,"a"]'),
        ((1, 2), b'{"tuple":[1,2]}'),
        ({"a": [(1,)]}, b'{"dict":[["a",[{"tuple":[1]}]]]}'),
        (b"\x00\xff", b'{"bytes":"00ff"}'),
        (1j, b'{"complex":[0.0,1.0]}'),
        (range(3), b'{"range":[0,3,1]}'),
        (int, b'{"type":"int"}'),
        (math.inf, b"Infinity"),
        ("\n", b'"\\n"'),
    ],
)
def test_texts_by_hand(value, text):
    assert encode(value) == text


def test_long_integers_travel_beyond_the_decimal_limit():
    value = 3**50_000
    assert decode(encode([value, -value])) == [value, -value]


def test_surrogate_pairs_stay_two_code_points():
    assert decode(encode("\ud83d\ude00")) == "\ud83d\ude00" != "\U0001f600"


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (Pair(1, 2), (1, 2)),
        (Counter("aab"), {"a": 2, "b": 1}),
        (OrderedDict(a=1), {"a": 1}),
        (defaultdict(int, {1: 2}), {1: 2}),
        (Colour.RED, 1),
        (Loud("x"), "x"),
        (bytearray(b"x"), b"x"),
    ],
)
def test_subclass_instances_become_what_they_hold(value, plain):
    decoded = decode(encode(value))
    assert type(decoded) is type(plain)
    assert decoded == plain


@pytest.mark.parametrize(
    "value", [object(), len, (x for x in []), [print], Colour, memoryview(b""), {1: object()}]
)
def test_other_objects_are_refused(value):
    with pytest.raises(CodecError, match="plain data"):
        encode(value)


def test_depth_is_bounded_both_ways():
    deep: list[object] = []
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    with pytest.raises(TooLargeError):
        encode(deep)
    cyclic: list[object] = []
    cyclic.append(cyclic)
    with pytest.raises(TooLargeError):
        encode(cyclic)
    with pytest.raises(TooLargeError):
        decode(b"[" * (MAX_DEPTH + 3) + b"]" * (MAX_DEPTH + 3))
    with pytest.raises(TooLargeError):
        decode(b"[" * 100_000 + b"]" * 100_000)


def test_size_is_bounded():
    with pytest.raises(TooLargeError, match="bytes"):
        decode(b" " * (MAX_BYTES + 1))
    with pytest.raises(TooLargeError, match="parts"):
        decode(b"[" + b"1," * 2_500_000 + b"1]")


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"{}",
        b'{"tuple":1}',
        b'{"tuple":{}}',
        b'{"nothing":[]}',
        b'{"tuple":[],"list":[]}',
        b'{"set":[[]]}',
        b'{"dict":[[1]]}',
        b'{"dict":[1]}',
        b'{"dict":[[[],1]]}',
        b'{"bytes":"0"}',
        b'{"bytes":1}',
        b'{"int":1}',
        b'{"int":"xyz"}',
        b'{"complex":[1,2]}',
        b'{"complex":1}',
        b'{"range":[0,1,0]}',
        b'{"range":["a",1,1]}',
        b'{"range":1}',
        b'{"type":"eval"}',
        b'{"type":1}',
        b"\xff\xfe",
        b"9" * 5000,
        b"nul",
        b"1 2",
    ],
)
def test_malformed_texts_are_codec_errors(text):
    with pytest.raises(CodecError):
        decode(text)


TAGS = ["int", "tuple", "dict", "set", "frozenset", "bytes", "complex", "range", "type", "object", ""]
NODES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.sampled_from(TAGS), inner, min_size=1, max_size=2)
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=1000)
@given(st.one_of(st.binary(max_size=200), NODES.map(lambda node: json.dumps(node).encode())))
def test_any_bytes_give_a_value_or_a_codec_error(data):
    decodes_or_refuses(data)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=5_000)
@given(st.one_of(st.binary(max_size=300), NODES.map(lambda node: json.dumps(node).encode())))
def test_any_of_very_many_bytes_give_a_value_or_a_codec_error(data):
    decodes_or_refuses(data)


def decodes_or_refuses(data):
    try:
        value = decode(data)
    except CodecError:
        return
    assert same(decode(encode(value)), value)
