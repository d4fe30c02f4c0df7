"""The trusted process of a worker: holds the tests, calls the candidate, decides.

Started by the pool; runs no candidate code. A job is one message: JSON header, source, calls, expected values
(one line per call test each), assertion tests, stdio tests (JSON) and the prompt. It ends when the pool hangs
up, and then its zygote and every child end too.
"""

import json
import resource
import signal
import socket
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from codegym.judge.cgroup import Group
from codegym.judge.forkserver import ForkServer
from codegym.judge.grading import Grader
from codegym.judge.jail import Limits
from codegym.judge.run import PoolGoneError
from codegym.judge.scratch import hold_folder, remove_folder
from codegym.judge.start import ContainedZygote, LocalZygote, Zygote
from codegym.judge.wire import frame, receive_frame, split

_MEMORY_BYTES = 2 * 2**30


def main() -> None:
    """Serve until the pool hangs up. Arguments: control descriptor, JSON configuration."""
    control = socket.socket(fileno=int(sys.argv[1]))
    config = json.loads(sys.argv[2])
    # Ctrl-C goes to the whole terminal; the pool alone decides when a worker ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    hold_folder(config["scratch"])
    limits = Limits(**config["limits"])
    group = Group(Path(config["group"])) if config["group"] else None
    try:
        server = ForkServer(_start_zygote(config), control, group)
        _protect()
        control.sendall(frame(json.dumps({"tier": server.tier, "missing": server.missing}).encode()))
        grader = Grader(server, limits)
        while (data := receive_frame(control)) is not None:
            control.sendall(frame(json.dumps(grader.judge(split(data))).encode()))
        server.close()
    except (BrokenPipeError, ConnectionResetError, PoolGoneError):
        traceback.print_exc()
    finally:
        # The pool cleans up too, unless it is the one that was killed.
        with suppress(FileNotFoundError):
            remove_folder(config["scratch"])
        if group:
            with suppress(OSError):
                group.remove()


def _start_zygote(config: dict[str, Any]) -> Zygote:
    settings = {"limits": config["limits"], "max_tier": config["max_tier"]}
    if config["listener"] is not None:
        return ContainedZygote(config["listener"], settings)
    scratch = Path(config["scratch"], "program")
    scratch.mkdir(mode=0o700)
    return LocalZygote(settings | {"scratch": str(scratch), "group": config["group"]})


def _protect() -> None:
    """Bound what hostile values can make the tests use, and let no process of the same user look inside."""
    if sys.platform == "linux":
        from codegym.judge import linux

        linux.prctl(linux.PR_SET_DUMPABLE, 0)
        hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        memory = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(hard, _MEMORY_BYTES)
        resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
