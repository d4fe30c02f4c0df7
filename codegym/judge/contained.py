"""First steps of a zygote inside a container: call the grader, then serve it as any zygote does.

The container ends with its zygote, and the zygote when the grader hangs up: nobody has to remove anything.
"""

import json
import os
import socket
import sys
import sysconfig

from codegym.judge import zygote
from codegym.judge.wire import receive_frame

_SCRATCH = "/tmp/program"


def main() -> None:
    """Serve until the grader hangs up, or not at all if it does not answer. Argument: the socket's path."""
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(sys.argv[1])
    greeting, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    settings = receive_frame(channel) if greeting else None
    if settings is None:
        return
    os.dup2(descriptors[0], 2)
    os.close(descriptors[0])
    os.mkdir(_SCRATCH, 0o700)
    zygote.run(channel.detach(), _at_home(json.loads(settings)))


def _at_home(settings: dict[str, object]) -> dict[str, object]:
    """Return the settings with this container's folders: packages are those of its image."""
    limits = settings["limits"]
    if isinstance(limits, dict) and "import_paths" in limits:
        limits["import_paths"] = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    return settings | {"scratch": _SCRATCH}
