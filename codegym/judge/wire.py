"""Framing for the stream sockets between trainer, grader, zygote and candidate.

A frame is a 32-bit length and its bytes; a message is one frame of several byte strings.
"""

import socket
import struct
from collections.abc import Callable, Sequence

_LENGTH = struct.Struct("!I")
MAX_FRAME = 256 * 2**20


class FrameError(ValueError):
    """The other side broke the framing, or announced more than the reader accepts."""


def join(parts: Sequence[bytes]) -> bytes:
    """Return one byte string from which `split` restores the parts."""
    return b"".join((_LENGTH.pack(len(parts)), *(_LENGTH.pack(len(part)) for part in parts), *parts))


def split(data: bytes) -> list[bytes]:
    """Return the parts that `join` put together.

    Raises:
        FrameError: If the lengths do not add up.
    """
    if len(data) < _LENGTH.size:
        raise FrameError(f"a message of {len(data)} bytes has no part count")
    count = _LENGTH.unpack_from(data)[0]
    start = _LENGTH.size * (1 + count)
    if start > len(data):
        raise FrameError(f"a message of {len(data)} bytes cannot have {count} parts")
    parts = []
    for index in range(count):
        stop = start + _LENGTH.unpack_from(data, _LENGTH.size * (1 + index))[0]
        parts.append(data[start:stop])
        start = stop
    if start != len(data):
        raise FrameError(f"the parts end at byte {start} of {len(data)}")
    return parts


def frame(payload: bytes) -> bytes:
    """Return the payload with its length in front."""
    return _LENGTH.pack(len(payload)) + payload


def receive_exactly(
    channel: socket.socket, size: int, wait: Callable[[], None] = lambda: None
) -> bytes | None:
    """Read `size` bytes; None if the other side closed before the first.

    Args:
        channel: Where from.
        size: How many.
        wait: Called before every read; returns when there is something to read.

    Raises:
        FrameError: If the other side closed in the middle.
    """
    chunks: list[bytes] = []
    missing = size
    while missing:
        wait()
        chunk = channel.recv(min(missing, 2**20))
        if not chunk:
            if missing == size:
                return None
            raise FrameError(f"closed after {size - missing} of {size} bytes")
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)


def receive_frame(
    channel: socket.socket, limit: int = MAX_FRAME, wait: Callable[[], None] = lambda: None
) -> bytes | None:
    """Read one frame; None if the other side closed. `wait` as in `receive_exactly`.

    Raises:
        FrameError: If the frame is cut or longer than `limit` bytes.
    """
    head = receive_exactly(channel, _LENGTH.size, wait)
    if head is None:
        return None
    size = _LENGTH.unpack(head)[0]
    if size > limit:
        raise FrameError(f"a frame of {size} bytes, more than {limit}")
    body = receive_exactly(channel, size, wait)
    if body is None and size:
        raise FrameError("closed before the body of a frame")
    return body or b""
