"""A seccomp filter as raw BPF: what a program needs to compute is allowed, everything else is refused.

Refused calls fail with an error instead of killing, so that an honest program sees an ordinary OSError.
Numbers are per architecture; on any other architecture there is no filter and the tier says so.
"""

import ctypes
import errno
import platform
import struct
from dataclasses import dataclass

from codegym.judge import linux, syscalls

# Where the syscall number, the architecture and the low word of argument n lie in struct seccomp_data.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_FILTER_MODE = 2
_X32_BIT = 0x40000000
_CLONE_THREAD = 0x00010000

# Allowed only where the low word of an argument is one of these values: (argument, values).
_CONDITIONAL = {
    # Copying and flags of descriptors; not F_SETOWN and F_SETSIG, which send signals to anybody.
    "fcntl": (1, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),
    # Terminal queries and descriptor flags.
    "ioctl": (1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)),
    # Own limits only: at tier 1 the zygote has the same user.
    "prlimit64": (0, (0,)),
    # AF_UNIX pairs, for event loops.
    "socketpair": (0, (1,)),
}
# Only to itself, where it is the first process of its own PID namespace.
_SIGNALS = {"kill": (0, (1,)), "tkill": (0, (1,)), "tgkill": (0, (1,))}


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What the filter must know about a processor: its audit identity and its system call numbers."""

    audit: int
    numbers: dict[str, int]


ARCHITECTURES = {
    "x86_64": Architecture(audit=0xC000003E, numbers=syscalls.X86_64),
    "aarch64": Architecture(audit=0xC00000B7, numbers=syscalls.AARCH64),
}


def _statement(code: int, value: int, jump_true: int = 0, jump_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, jump_true, jump_false, value)


def build(architecture: Architecture, *, own_pid_namespace: bool, threads: bool) -> bytes:
    """Return the filter as an array of struct sock_filter."""
    numbers = architecture.numbers
    code = [
        _statement(_LOAD, _ARCHITECTURE),
        _statement(_EQUAL, architecture.audit, 1, 0),
        _statement(_RETURN, _KILL),
        _statement(_LOAD, _NUMBER),
        _statement(_AT_LEAST, _X32_BIT, 0, 1),
        _statement(_RETURN, _KILL),
    ]
    for name, (argument, values) in (_CONDITIONAL | (_SIGNALS if own_pid_namespace else {})).items():
        code.append(_statement(_EQUAL, numbers[name], 0, 2 * len(values) + 2))
        code.append(_statement(_LOAD, _ARGUMENTS + 8 * argument))
        for value in values:
            code += [_statement(_EQUAL, value, 0, 1), _statement(_RETURN, _ALLOW)]
        code.append(_statement(_RETURN, _ERRNO | errno.EPERM))
    if threads:
        code.append(_statement(_EQUAL, numbers["clone"], 0, 3))
        code += [_statement(_LOAD, _ARGUMENTS), _statement(_ANY_BIT, _CLONE_THREAD, 0, 1)]
        code += [_statement(_RETURN, _ALLOW), _statement(_LOAD, _NUMBER)]
    # As if the process limit were reached, and as if the kernel were old: both have honest fallbacks.
    code += [_statement(_EQUAL, numbers["clone"], 0, 1), _statement(_RETURN, _ERRNO | errno.EAGAIN)]
    code += [_statement(_EQUAL, numbers["clone3"], 0, 1), _statement(_RETURN, _ERRNO | errno.ENOSYS)]
    code += _search(_steps({numbers[name] for name in syscalls.ALLOWED if name in numbers}))
    return b"".join(code)


def _steps(allowed: set[int]) -> list[tuple[int, int]]:
    """Return where the answer changes along the numbers: (first number, answer)."""
    steps = [(0, _ERRNO | errno.EPERM)]
    for number in range(max(allowed) + 2):
        answer = _ALLOW if number in allowed else _ERRNO | errno.EPERM
        if answer != steps[-1][1]:
            steps.append((number, answer))
    return steps


def _search(steps: list[tuple[int, int]]) -> list[bytes]:
    """Return a binary search: the kernel tries a new filter on every number, so its depth is the cost."""
    if len(steps) == 1:
        return [_statement(_RETURN, steps[0][1])]
    middle = len(steps) // 2
    below, above = _search(steps[:middle]), _search(steps[middle:])
    return [_statement(_AT_LEAST, steps[middle][0], len(below), 0), *below, *above]


def is_available() -> bool:
    """Whether the kernel takes filters: it then looks for one where there is none."""
    try:
        linux.prctl(linux.PR_SET_SECCOMP, _FILTER_MODE)
    except OSError as error:
        return error.errno == errno.EFAULT
    return False


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def install(code: bytes) -> None:
    """Put this process under the filter for good.

    Raises:
        OSError: If the kernel refuses.
    """
    program = _Program(len(code) // 8, code)
    linux.prctl(linux.PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(program))


def architecture() -> Architecture | None:
    """Return this machine's entry, or None where the numbers are unknown."""
    return ARCHITECTURES.get(platform.machine())
