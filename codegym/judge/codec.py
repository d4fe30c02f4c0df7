"""Plain data across the trust boundary: canonical JSON text with tags for what JSON lacks.

Never pickle: the bytes come from an untrusted process. A value is one line of JSON (no newline can occur in
it), so messages are split by lines. Equal text means equal value *and* type, which lets the grader accept a
right answer without decoding it. Plain: None, bool, int, float, complex, str (lone surrogates too), bytes,
list, tuple, set, frozenset, dict, range and a few builtin types. Instances of their subclasses are sent as
the plain value, and NumPy's scalars and arrays as what `tolist` makes of them: numbers and nested lists.
Sizes are bounded in bytes, nodes and depth.
"""

import json
import sys
from collections.abc import Callable, Iterable
from typing import Any

MAX_BYTES = 16 * 2**20
MAX_NODES = 2_000_000
MAX_DEPTH = 150

# Longer integers travel in base 16: linear to read, and free of Python's limit on decimal digits.
_DECIMAL_BITS = 10_000
_SCALARS = frozenset({type(None), bool, int, float, str})
_TYPES = {
    kind.__name__: kind
    for kind in (bool, int, float, complex, str, bytes, list, tuple, set, frozenset, dict, range, object)
} | {"NoneType": type(None)}
_BASES: tuple[Any, ...] = (
    int, float, complex, str, bytes, bytearray, list, tuple, set, frozenset, dict,
)  # fmt: skip
_TYPE_NAMES = {kind: name for name, kind in _TYPES.items()}

_to_json = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), check_circular=False).encode


class CodecError(ValueError):
    """Not plain data, too large, or not what `encode` writes."""


class TooLargeError(CodecError):
    """Plain data beyond the bound in bytes, nodes or depth."""


def encode(value: Any) -> bytes:
    """Return the canonical text of plain data.

    Raises:
        CodecError: If the value or a part of it is not plain data, or is too large or too deep.
    """
    try:
        text = _to_json(_plain(value, 0))
    except RecursionError as error:
        raise TooLargeError(f"nested deeper than {MAX_DEPTH} levels") from error
    # A surrogate pair written as two code points must stay two: JSON escapes would merge them.
    return text.encode("utf-8", "surrogatepass")


def decode(data: bytes) -> Any:
    """Return the value of a text written by `encode`, or by somebody who pretends to be it.

    Raises:
        CodecError: If the text is anything else, or beyond the bounds.
    """
    if len(data) > MAX_BYTES:
        raise TooLargeError(f"{len(data)} bytes, more than {MAX_BYTES}")
    if data.count(b",") + data.count(b"[") + data.count(b"{") > MAX_NODES:
        raise TooLargeError(f"more than {MAX_NODES} parts")
    try:
        return _value(json.loads(data.decode("utf-8", "surrogatepass")), 0)
    except CodecError:
        raise
    except RecursionError as error:
        raise TooLargeError(f"nested deeper than {MAX_DEPTH} levels") from error
    except (ValueError, TypeError, OverflowError) as error:
        raise CodecError(f"malformed: {str(error)[:100]}") from error


def _plain(value: Any, depth: int) -> Any:
    """Return what the JSON encoder writes: the value itself where JSON has its type, else a tagged object."""
    kind = type(value)
    if kind is int:
        return value if value.bit_length() < _DECIMAL_BITS else {"int": hex(value)}
    if kind in _SCALARS:
        if kind is str and len(value) > MAX_BYTES:
            raise TooLargeError(f"a text of {len(value)} characters, more than {MAX_BYTES}")
        return value
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        return _plain_items(value, depth)
    if kind is tuple:
        return {"tuple": _plain_items(value, depth)}
    if kind is dict:
        return {"dict": [[_plain(k, depth + 1), _plain(v, depth + 1)] for k, v in value.items()]}
    if kind in (set, frozenset):
        return {kind.__name__: _plain_items(list(value), depth)}
    return _plain_rare(value, kind, depth)


def _plain_items(items: Any, depth: int) -> list[Any]:
    """Return the parts of a sequence; one of scalars without long integers is handed over as it is."""
    if len(items) > MAX_NODES:
        raise TooLargeError(f"{len(items)} items, more than {MAX_NODES}")
    kinds = set(map(type, items))
    if kinds <= _SCALARS and (int not in kinds or _short(items)):
        return items if type(items) is list else list(items)
    return [_plain(item, depth + 1) for item in items]


def _short(items: Iterable[Any]) -> bool:
    return all(item.bit_length() < _DECIMAL_BITS for item in items if type(item) is int)


def _plain_rare(value: Any, kind: type, depth: int) -> Any:
    if kind in (bytes, bytearray):
        return {"bytes": value.hex()}
    if kind is complex:
        return {"complex": [value.real, value.imag]}
    if kind is range:
        return {"range": [_plain(part, depth + 1) for part in (value.start, value.stop, value.step)]}
    if kind is type and value in _TYPE_NAMES:
        return {"type": _TYPE_NAMES[value]}
    # A subclass instance (named tuple, Counter, IntEnum) becomes the plain value it holds.
    for base in _BASES:
        if isinstance(value, base):
            return _plain(base(value), depth + 1)
    # Whoever holds such a value has loaded NumPy; this side need not.
    if (numpy := sys.modules.get("numpy")) and isinstance(value, (numpy.ndarray, numpy.generic)):
        # Before it becomes a list: that alone can take seconds.
        if value.size > MAX_NODES:
            raise TooLargeError(f"an array of {value.size} items, more than {MAX_NODES}")
        plain = value.tolist()
        # Types that Python lacks, as long double, stay what they are.
        if type(plain) is not kind:
            return _plain(plain, depth + 1)
    raise CodecError(f"{kind.__name__} is not plain data")


def _value(node: Any, depth: int) -> Any:
    """Return the value of a parsed JSON node."""
    kind = type(node)
    if kind is list:
        return _values(node, depth)
    if kind is not dict:
        return node
    if len(node) != 1:
        raise CodecError(f"expected an object with one tag, got {len(node)} keys")
    [(tag, content)] = node.items()
    if tag not in _READERS:
        raise CodecError(f"unknown tag {tag[:20]!r}")
    return _READERS[tag](content, depth)


def _values(items: Any, depth: int) -> list[Any]:
    if type(items) is not list:
        raise CodecError(f"expected a list, got {type(items).__name__}")
    if depth > MAX_DEPTH:
        raise TooLargeError(f"nested deeper than {MAX_DEPTH} levels")
    if set(map(type, items)) <= _SCALARS:
        return items
    return [_value(item, depth + 1) for item in items]


def _read_dict(items: Any, depth: int) -> dict[Any, Any]:
    result = {}
    # A loop and not one C call: chosen keys can make each insertion slow, and a loop can be interrupted.
    for pair in _values(items, depth):
        if type(pair) is not list or len(pair) != 2:
            raise CodecError("a dict entry is not a pair")
        result[pair[0]] = pair[1]
    return result


def _read_set(items: Any, depth: int) -> set[Any]:
    result = set()
    for item in _values(items, depth):
        result.add(item)
    return result


def _read_int(text: Any, _depth: int) -> int:
    if type(text) is not str:
        raise CodecError("a long integer is not text")
    return int(text, 16)


def _read_complex(parts: Any, _depth: int) -> complex:
    if type(parts) is not list or [type(part) for part in parts] != [float, float]:
        raise CodecError("a complex number is not two floats")
    return complex(*parts)


def _read_range(parts: Any, depth: int) -> range:
    return range(*(part if type(part) is int else _value(part, depth + 1) for part in parts))


def _read_type(name: Any, _depth: int) -> type:
    if type(name) is not str or name not in _TYPES:
        raise CodecError("unknown type name")
    return _TYPES[name]


_READERS: dict[str, Callable[[Any, int], Any]] = {
    "int": _read_int,
    "tuple": lambda items, depth: tuple(_values(items, depth)),
    "dict": _read_dict,
    "set": _read_set,
    "frozenset": lambda items, depth: frozenset(_read_set(items, depth)),
    "bytes": lambda text, _depth: bytes.fromhex(text),
    "complex": _read_complex,
    "range": _read_range,
    "type": _read_type,
}
