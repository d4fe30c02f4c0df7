"""The untrusted side's fork server: knows no tests, holds no secrets, runs no candidate code itself.

Started by the grader with a clean environment. Each command carries one end of a program's channel: the
zygote ends the previous child, cleans up after it, forks the next one and reports both in one frame. The
child confines itself and only then waits for its job, so starting it overlaps with grading.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import Any

from codegym.judge import candidate
from codegym.judge.jail import Jail, Limits
from codegym.judge.packages import PackageError, load
from codegym.judge.protocol import HUNG_UP, NEXT, READY
from codegym.judge.wire import frame

# What programs usually import; each costs memory, and every anonymous MB costs a fork about 0.1 ms.
WARM_MODULES = """
math cmath re string collections itertools functools operator heapq bisect random copy typing dataclasses enum
datetime fractions decimal statistics json hashlib time abc contextlib array textwrap
"""


_CHANNEL = 3
_GRACE_S = 0.2
# More than this process ever has open: the paths that Python may read are some hundreds.
_DESCRIPTORS = 4096


def main() -> None:
    """Serve until the grader hangs up. Arguments: control descriptor, JSON configuration."""
    run(int(sys.argv[1]), json.loads(sys.argv[2]))


def run(descriptor: int, config: dict[str, Any]) -> None:
    """Serve until the grader hangs up.

    Args:
        descriptor: The grader's channel.
        config: Limits, highest tier and scratch folder of the jail.
    """
    # On number 3, where a child puts its own channel in its place.
    if descriptor != _CHANNEL:
        os.dup2(descriptor, _CHANNEL, inheritable=False)
        os.close(descriptor)
    control = socket.socket(fileno=_CHANNEL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for name in WARM_MODULES.split():
        importlib.import_module(name)
    limits = Limits(**config["limits"])
    try:
        packages = load(limits.imports, limits.import_paths)
    except PackageError as error:
        _report(control, {"error": str(error)})
        return
    jail = Jail(limits, config["max_tier"], config["scratch"], config.get("group"), packages)
    _protect()
    gc.collect()
    gc.freeze()
    _report(control, {"tier": jail.tier, "missing": jail.missing})
    _serve(control, jail)


def _protect() -> None:
    """Die with the grader, and let no process of the same user look inside."""
    if sys.platform == "linux":
        from codegym.judge import linux

        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)


def _report(control: socket.socket, content: object) -> None:
    control.sendall(frame(json.dumps(content).encode()))


def _serve(control: socket.socket, jail: Jail) -> None:
    child = 0
    while True:
        command, descriptors, _, _ = socket.recv_fds(control, 1, 1)
        if child:
            ending = _end(child, _GRACE_S if command == HUNG_UP else 0.0)
            child = 0
            jail.reset_scratch()
            if command == HUNG_UP:
                _report(control, ending)
        if not command:
            return
        if command == NEXT:
            child = jail.fork()
            if child == 0:
                _become_candidate(jail, descriptors[0])
            os.close(descriptors[0])
            _report(control, {"pid": child})


def _end(child: int, grace_s: float) -> dict[str, float]:
    """Kill a child and whatever it left behind.

    Args:
        child: Its process number.
        grace_s: How long it may take to end by itself, if its channel says that it is about to.

    Returns:
        Its wait status, CPU seconds, peak memory, and whether it was still there after the grace time.
    """
    deadline = time.monotonic() + grace_s
    while lingered := os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None:
        if time.monotonic() >= deadline:
            break
        time.sleep(0.002)
    for kill in (os.killpg, os.kill):
        try:
            kill(child, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            continue
    _, status, usage = os.wait4(child, 0)
    if os.getpid() == 1:
        _end_orphans()
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "status": status,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_bytes": peak,
        "lingered": lingered,
    }


def _end_orphans() -> None:
    """End whoever else is in a container of which this is the first process."""
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(-1, signal.SIGKILL)
        while True:
            os.wait()


def _become_candidate(jail: Jail, descriptor: int) -> None:
    """Confine this child, then let it answer one job. Never returns."""
    try:
        os.dup2(descriptor, _CHANNEL)
        # Opened anew: the flags of a shared description would outlive the program.
        null = os.open(os.devnull, os.O_RDWR)
        jail.enter()
        # Errors up to here are ours and go to the worker's log; from now on they are the candidate's.
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        os.closerange(_CHANNEL + 1, _DESCRIPTORS)
        channel = socket.socket(fileno=_CHANNEL)
        channel.sendall(READY)
        candidate.serve(channel)
    except BaseException:  # noqa: BLE001 - whatever happened, the fork server's loop is not for this process
        traceback.print_exc()
        os._exit(1)
    os._exit(0)
