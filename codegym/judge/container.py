"""A worker's container, as options of Docker's API, and the socket on which its zygote calls in."""

import os
import socket
from pathlib import Path
from typing import Any

from codegym.judge.jail import Limits
from codegym.judge.protocol import FIXED_ENVIRONMENT, PACKAGE, python_command

LABEL = "codegym.judge"
"""Label of every container; its value is the process number of the judge's process."""

SOCKET = "zygote"
"""Name of the socket in the folder from `listen`."""

_NOBODY = 65534
_FOLDER, _MEETING = "/codegym", "/meeting"
# Folders that podman makes writable even where the root is read-only.
_UNUSED = ("/dev/shm", "/run", "/var/tmp")
# On top of one program's memory: the zygote, and what programs keep in scratch files.
_OWN_MEMORY_BYTES = 256 * 2**20
_SCRATCH_MIB = 32
# Zygote, program and its threads.
_TASKS = 64
_OPEN_FILES = 4096


def container_options(limits: Limits, *, image: str, runtime: str | None, meeting: Path) -> dict[str, Any]:
    """Return what `docker run` is to be told: only computing is allowed, and only into a small /tmp.

    Args:
        limits: What one program may use.
        image: Any image with a `python3` in its path, 3.11 or newer.
        runtime: What runs the container; the engine's default if None.
        meeting: The folder from `listen`.
    """
    memory = limits.memory_bytes + _OWN_MEMORY_BYTES
    arguments = (f"{_MEETING}/{SOCKET}", "/tmp/program")
    command = python_command("codegym.judge.contained", *arguments, python="python3", folder=_FOLDER)
    return {
        "image": image,
        "runtime": runtime,
        # Not `command`: an image may have an entry point of its own.
        "entrypoint": command,
        "environment": FIXED_ENVIRONMENT,
        "working_dir": "/",
        "user": f"{_NOBODY}:{_NOBODY}",
        "network_mode": "none",
        "ipc_mode": "none",
        "read_only": True,
        "tmpfs": {"/tmp": f"rw,nosuid,nodev,noexec,mode=1777,size={_SCRATCH_MIB}m"}
        | dict.fromkeys(_UNUSED, "ro,nosuid,nodev,noexec,size=4k"),
        "mounts": [_mount(PACKAGE, f"{_FOLDER}/judge"), _mount(meeting, _MEETING)],
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": memory,
        # The sum of memory and swap: no swap.
        "memswap_limit": memory,
        "pids_limit": _TASKS,
        # Explicit, since an engine may not be allowed to set its own defaults.
        "ulimits": [_limit("nofile", _OPEN_FILES), _limit("nproc", _OPEN_FILES), _limit("core", 0)],
        "log_config": {"Type": "none"},
        # The zygote must be the first process, so that its end is everyone's.
        "init": False,
        "auto_remove": True,
        "labels": {LABEL: str(os.getpid())},
    }


def _mount(source: Path, target: str) -> dict[str, Any]:
    return {"Type": "bind", "Source": str(source), "Target": target, "ReadOnly": True}


def _limit(name: str, value: int) -> dict[str, Any]:
    return {"Name": name, "Soft": value, "Hard": value}


def listen(scratch: str) -> tuple[Path, socket.socket]:
    """Make a folder with a socket that any user may call, but only whoever has the folder itself.

    Args:
        scratch: A folder that no other user may enter.

    Returns:
        The folder, to be mounted in a container, and the listening socket.
    """
    meeting = Path(scratch, "meeting")
    meeting.mkdir()
    meeting.chmod(0o711)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(meeting / SOCKET))
    (meeting / SOCKET).chmod(0o666)
    listener.listen(1)
    return meeting, listener
