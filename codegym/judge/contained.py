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


def main() -> None:
    """Serve until the grader hangs up. Arguments: the socket's path, the scratch folder to make."""
    path, scratch = sys.argv[1:]
    channel = socket.socket(socket.AF_UNIX)
    channel.connect(path)
    greeting, descriptors, _, _ = socket.recv_fds(channel, 1, 1)
    settings = receive_frame(channel) if greeting else None
    if settings is None:
        return
    # The worker's log, as a local zygote inherits it.
    os.dup2(descriptors[0], 2)
    os.close(descriptors[0])
    os.mkdir(scratch, 0o700)
    config = json.loads(settings) | {"scratch": scratch}
    if config["limits"].get("import_paths"):
        # The grader's folders are not here; the image has its own.
        config["limits"]["import_paths"] = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    zygote.run(channel.detach(), config)
