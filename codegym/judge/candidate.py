"""What runs inside the confined child: load the candidate's module, call it, report in plain data.

Nothing here is trusted once the candidate's source has run; nothing here knows what is right.

A job is one message: JSON header, source, calls. The header's mode is "functions" or "stdio".
- functions: line 1 of the result file says how loading went, then one line per call; each starts with `V` and
  a value or `E` and a failure. A file needs no reader, so nothing blocks and nobody is woken; a program that
  is stopped leaves the answers it had. The nonce on the channel says that the file is complete. Then single
  calls are answered over the channel.
- stdio: standard input and output are files; the channel gets the nonce and how the module ended.
"""

import builtins
import io
import json
import os
import random
import socket
import sys
import types
from _sitebuiltins import Quitter as _Quitter
from typing import Any

from codegym.judge.codec import CodecError, TooLargeError, decode, encode
from codegym.judge.wire import frame, join, receive_exactly, receive_frame, split

MODULE_FILE = "solution.py"
_HEAD_BYTES = 4
_MESSAGE_CHARACTERS = 300


def serve(channel: socket.socket) -> None:
    """Take one job and answer it until the grader hangs up."""
    head, descriptors, _, _ = socket.recv_fds(channel, _HEAD_BYTES, 2)
    if not head:
        return
    if len(head) < _HEAD_BYTES:
        head += receive_exactly(channel, _HEAD_BYTES - len(head)) or b""
    body = receive_exactly(channel, int.from_bytes(head, "big")) or b""
    header, source, calls = split(body)
    job = json.loads(header)
    random.seed(0)
    # Of a script without arguments, not the sandbox's own.
    sys.argv[:] = [MODULE_FILE]
    # What `site` would have added.
    builtins.exit = builtins.quit = _Quitter("exit", "end of file")
    if job["mode"] == "functions":
        _serve_functions(channel, job, source, calls, descriptors[0])
    else:
        _serve_stdio(channel, job, source, *descriptors)


def _serve_functions(
    channel: socket.socket, job: dict[str, Any], source: bytes, calls: bytes, file: int
) -> None:
    function, failure = _load(source, job["entry"])
    _write(file, failure or b"V")
    if failure is None:
        for line in calls.split(b"\n") if calls else ():
            _write(file, _answer(function, line))
    channel.sendall(frame(join([job["nonce"].encode()])))
    while (request := receive_frame(channel)) is not None:
        number, line = split(request)
        channel.sendall(frame(join([number, failure or _answer(function, line)])))


def _write(file: int, line: bytes) -> None:
    data = memoryview(line + b"\n")
    while data:
        data = data[os.write(file, data) :]


def _load(source: bytes, entry: str) -> tuple[Any, bytes | None]:
    """Execute the module; return its entry point, or the failure's line."""
    module = types.ModuleType("solution")
    module.__dict__["__builtins__"] = builtins
    sys.modules["solution"] = module
    try:
        code = compile(source.decode("utf-8", "surrogatepass"), MODULE_FILE, "exec", dont_inherit=True)
    except MemoryError as error:
        return None, _failure(error)
    except Exception as error:  # noqa: BLE001 - whatever the compiler says about hostile text
        return None, _failure(error, kind="syntax")
    try:
        exec(code, module.__dict__)  # noqa: S102
        return _entry_point(module.__dict__, entry), None
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures too
        return None, _failure(error)


def _entry_point(names: dict[str, Any], entry: str) -> Any:
    """Return the function; for "Class.method" one that makes an instance for each call, as LeetCode does."""
    name, _, method = entry.partition(".")
    if name not in names:
        raise NameError(f"name {name!r} is not defined")
    owner = names[name]
    return (lambda *args, **kwargs: getattr(owner(), method)(*args, **kwargs)) if method else owner


def _answer(function: Any, line: bytes) -> bytes:
    try:
        arguments, keywords = decode(line)
        value = function(*arguments, **keywords)
    except BaseException as error:  # noqa: BLE001 - SystemExit and KeyboardInterrupt are failures too
        return _failure(error)
    try:
        return b"V" + encode(value)
    except TooLargeError as error:
        return _failure(error, kind="large")
    except CodecError as error:
        return _failure(TypeError(f"the value cannot be compared: {error}"), kind="unplain")
    except BaseException as error:  # noqa: BLE001 - a hostile subclass may raise anything while it is read
        return _failure(error)


def _failure(error: BaseException, kind: str = "raised") -> bytes:
    """Describe an exception: kind, builtin base class, text, line of the module."""
    name = next((base.__name__ for base in type(error).__mro__ if base.__module__ == "builtins"), "Exception")
    try:
        text = f"{type(error).__name__}: {error}"[:_MESSAGE_CHARACTERS]
    except BaseException:  # noqa: BLE001 - the candidate's own __str__
        text = name
    line = getattr(error, "lineno", None) if kind == "syntax" else _line(error)
    return b"E" + encode([kind, str(name), str(text), line if type(line) is int else None])


def _line(error: BaseException) -> int | None:
    """Return the innermost line of the module that the exception passed through."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == MODULE_FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return line


def _serve_stdio(
    channel: socket.socket, job: dict[str, Any], source: bytes, standard_in: int, out: int
) -> None:
    os.dup2(standard_in, 0)
    os.dup2(out, 1)
    stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), "utf-8", "surrogateescape")
    stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), "utf-8", "surrogateescape")
    # As `open` sets it; fast readers of contest programs ask for it.
    stdin.mode, stdout.mode = "r", "w"  # type: ignore[misc]
    sys.stdin = sys.__stdin__ = stdin  # type: ignore[misc]
    sys.stdout = sys.__stdout__ = stdout  # type: ignore[misc]
    failure = _run_main(source)
    try:
        _finish(sys.stdout, stdout)
    except BaseException as error:  # noqa: BLE001 - a full output file, or the candidate's own stream
        failure = failure or _failure(error)
    channel.sendall(frame(join([job["nonce"].encode(), failure or b"V"])))
    receive_frame(channel)


def _finish(*streams: Any) -> None:
    """Do what an interpreter does at its end: wait for threads, run exit functions, flush."""
    import atexit

    if (threading := sys.modules.get("threading")) is not None:
        threading._shutdown()
    atexit._run_exitfuncs()
    for stream in streams:
        try:
            closed = stream.closed
        except ValueError:
            # Taken apart to build another.
            continue
        if not closed:
            stream.flush()


def _run_main(source: bytes) -> bytes | None:
    """Execute the source as the main module; return the failure's line, if it fails."""
    module = types.ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    try:
        code = compile(source.decode("utf-8", "surrogatepass"), MODULE_FILE, "exec", dont_inherit=True)
    except MemoryError as error:
        return _failure(error)
    except Exception as error:  # noqa: BLE001 - whatever the compiler says about hostile text
        return _failure(error, kind="syntax")
    try:
        exec(code, module.__dict__)  # noqa: S102
    except SystemExit as error:
        return None if error.code in (None, 0, False) else _failure(error)
    except BaseException as error:  # noqa: BLE001 - KeyboardInterrupt is a failure too
        return _failure(error)
    return None
