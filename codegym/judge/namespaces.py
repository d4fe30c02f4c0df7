"""Linux namespaces without root: one set per worker, a PID namespace per program."""

import ctypes
import os
import signal
from typing import Any

from codegym.judge import linux

_NOBODY = 65534
_SYS_CLONE = {"x86_64": 56, "aarch64": 220}
_SYS_CLONE3 = 435
_CLONE_INTO_CGROUP = 0x2_0000_0000
# A PyDLL keeps the interpreter lock, so no Python code runs between the system call and the fork hooks.
_libc = ctypes.PyDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def enter() -> None:
    """Move this process to fresh user, network, IPC, UTS and mount namespaces.

    Raises:
        OSError: If the system does not let unprivileged processes do so.
    """
    uid, gid = os.geteuid(), os.getegid()
    linux.unshare(
        linux.CLONE_NEWUSER | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWNS
    )
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{_NOBODY} {uid} 1")
    _write("/proc/self/gid_map", f"{_NOBODY} {gid} 1")
    linux.mount("none", "/", "none", linux.MS_REC | linux.MS_PRIVATE)


def mount_scratch(target: str, size_bytes: int) -> None:
    """Mount an empty memory file system, seen by this worker only."""
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | linux.MS_NOATIME
    linux.mount("scratch", target, "tmpfs", flags, f"size={size_bytes},nr_inodes=4096,mode=0700")


def fork(group: int | None = None) -> int:
    """Fork into a new PID namespace: the child is its first process, and its end is everyone's end there.

    Args:
        group: Open folder of the cgroup v2 group that the child is born into, if not this process's own.

    Returns:
        What `os.fork` returns; the child's number is the one in this process's namespace.

    Raises:
        OSError: If the kernel refuses.
    """
    call = _clone(linux.CLONE_NEWPID | signal.SIGCHLD) if group is None else _clone_into(group)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _libc.syscall(*call)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    code = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(code, f"clone: {os.strerror(code)}")
    return pid


def _clone(flags: int) -> list[Any]:
    """Return the arguments of clone, which every kernel has."""
    return [ctypes.c_long(_SYS_CLONE[os.uname().machine]), ctypes.c_long(flags), *[ctypes.c_long(0)] * 4]


def _clone_into(group: int) -> list[Any]:
    """Return the arguments of clone3 (Linux 5.7+ for the group), the same number on every processor."""
    arguments = (ctypes.c_uint64 * 11)()
    arguments[0] = linux.CLONE_NEWPID | _CLONE_INTO_CGROUP
    arguments[4] = signal.SIGCHLD
    arguments[10] = group
    return [
        ctypes.c_long(_SYS_CLONE3),
        ctypes.byref(arguments),
        ctypes.c_size_t(ctypes.sizeof(arguments)),
    ]


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
