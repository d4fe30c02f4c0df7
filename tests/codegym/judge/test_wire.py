import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym.judge.wire import FrameError, frame, join, receive_exactly, receive_frame, split


@pytest.fixture
def pair():
    left, right = socket.socketpair()
    with left, right:
        yield left, right


@given(st.lists(st.binary(max_size=50), max_size=6))
def test_split_restores_what_join_put_together(parts):
    assert split(join(parts)) == parts


@given(st.binary(max_size=60))
def test_split_of_anything_is_parts_or_a_frame_error(data):
    try:
        parts = split(data)
    except FrameError:
        return
    assert join(parts) == data


def test_a_frame_arrives_whole_however_it_is_cut(pair):
    left, right = pair
    payload = bytes(range(256)) * 5000
    sender = threading.Thread(target=left.sendall, args=(frame(payload),))
    sender.start()
    assert receive_frame(right) == payload
    sender.join()


def test_a_closed_channel_between_frames_is_no_error(pair):
    left, right = pair
    left.sendall(frame(b""))
    left.close()
    assert receive_frame(right) == b""
    assert receive_frame(right) is None
    assert receive_exactly(right, 3) is None


@pytest.mark.parametrize("cut", [b"\0\0", b"\0\0\0\5", b"\0\0\0\5abc"])
def test_a_cut_frame_is_an_error(pair, cut):
    left, right = pair
    left.sendall(cut)
    left.close()
    with pytest.raises(FrameError, match="closed"):
        receive_frame(right)


def test_an_announced_length_beyond_the_limit_is_refused_before_reading(pair):
    left, right = pair
    left.sendall(b"\xff\xff\xff\xff")
    with pytest.raises(FrameError, match="more than 100"):
        receive_frame(right, limit=100)
