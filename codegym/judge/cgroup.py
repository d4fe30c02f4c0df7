"""A cgroup v2 group per worker: the kernel sums up what programs use, and tells when it killed for memory.

A group can be made where the tree is this user's to divide: in an ancestor of this process's own group that
hands the memory and pids controllers down. Sessions of `systemd --user`, services with `Delegate=` and
`DelegateSubgroup=`, and containers with a writable /sys/fs/cgroup have such a place. The trusted side makes
the group, and removes it; programs are born into it, which costs nothing, while moving them would wait for
every core.
"""

import fcntl
import os
import secrets
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath

_PREFIX = "codegym-"
_CONTROLLERS = {"memory", "pids"}
# What a program copies of its fork server's memory, and what the kernel needs for it: 2 MiB for most.
_INTERPRETER_BYTES = 32 * 2**20
_THREADS = 256
_REMOVE_S = 2.0


class Group:
    """A group that holds the one program of a worker."""

    def __init__(self, path: Path) -> None:
        """Refer to an existing group."""
        self.path = path
        self._kills = 0

    def limit(self, *, memory_bytes: int, threads: bool) -> None:
        """Bound what all processes of the group use together.

        Args:
            memory_bytes: What a program may use on top of the interpreter.
            threads: Whether it may start threads.

        Raises:
            OSError: If the kernel refuses.
        """
        _write(self.path / "memory.max", str(memory_bytes + _INTERPRETER_BYTES))
        _write(self.path / "pids.max", str(_THREADS if threads else 1))
        # All or nothing: half a program would only answer nonsense.
        _write(self.path / "memory.oom.group", "1")
        # Absent where the kernel does not account for swap.
        with suppress(FileNotFoundError):
            _write(self.path / "memory.swap.max", "0")
        self._kills = self._count_kills()

    def out_of_memory(self) -> bool:
        """Whether the kernel killed for memory since this was asked last."""
        before, self._kills = self._kills, self._count_kills()
        return self._kills > before

    def _count_kills(self) -> int:
        events = dict(line.split() for line in (self.path / "memory.events").read_text().splitlines())
        return int(events["oom_kill"])

    def remove(self) -> None:
        """Kill whatever is left in the group, and remove it; a group that is gone is fine.

        Raises:
            OSError: If it cannot be removed.
        """
        # Absent before Linux 5.14, and with the group.
        with suppress(FileNotFoundError):
            _write(self.path / "cgroup.kill", "1")
        stop = time.monotonic() + _REMOVE_S
        while True:
            try:
                os.rmdir(self.path)
            except FileNotFoundError:
                return
            except OSError:
                # Busy as long as the killed are dying.
                if time.monotonic() > stop:
                    raise
                time.sleep(0.002)


class OwnedGroup(Group):
    """A group that this process made; one whose owner is gone is removed by whoever makes the next."""

    def __init__(self, path: Path) -> None:
        """Make the group.

        Raises:
            OSError: If this place is not this user's to divide.
        """
        os.mkdir(path, 0o700)
        super().__init__(path)
        # The lock says that the owner lives, across PID namespaces too.
        self._lock = _lock(path)

    def remove(self) -> None:
        """Kill whatever is left in the group, and remove it."""
        try:
            super().remove()
        finally:
            os.close(self._lock)

    def abandon(self) -> None:
        """Leave the group to the process that this one was forked from."""
        os.close(self._lock)


def make_group(process: Path = Path("/proc/self")) -> OwnedGroup:
    """Make a group for a worker, in the nearest place that allows it.

    Args:
        process: Folder that tells where this process stands: `cgroup` and `mountinfo`.

    Raises:
        OSError: If no place allows it; says why.
    """
    refusals = []
    for place in _places(process):
        try:
            _hand_controllers_down(place)
            _sweep(place)
            return _make_in(place)
        except OSError as error:
            refusals.append(f"{place}: {error.strerror or error}")
    raise OSError("; ".join(refusals))


def _places(process: Path) -> list[Path]:
    """Return this process's own group and its ancestors, nearest first, as far as they are mounted."""
    own = [line[3:] for line in (process / "cgroup").read_text().splitlines() if line.startswith("0::")]
    mounts = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    mounts = [fields for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"]
    if not own or not mounts:
        raise OSError("no cgroup v2 hierarchy is mounted")
    root, target = mounts[0][3:5]
    try:
        inner = PurePosixPath(own[0]).relative_to(root)
    except ValueError:
        raise OSError(f"this process's group {own[0]} lies outside of what is mounted, {root}") from None
    # Spaces are escaped there.
    top = Path(target.encode().decode("unicode_escape"))
    return [top / place for place in (inner, *inner.parents)]


def _hand_controllers_down(place: Path) -> None:
    """See that new groups in this place have the controllers."""
    offered = (place / "cgroup.controllers").read_text().split()
    if not set(offered) >= _CONTROLLERS:
        raise OSError(f"has the controllers {' '.join(offered) or '(none)'}, needs memory and pids")
    if not set((place / "cgroup.subtree_control").read_text().split()) >= _CONTROLLERS:
        # Refused where processes live in this very group.
        _write(place / "cgroup.subtree_control", "+memory +pids")


def _sweep(place: Path) -> None:
    """Remove groups whose owners were killed."""
    for path in place.glob(f"{_PREFIX}*"):
        # Alive, gone meanwhile, or another user's: not ours to insist.
        with suppress(OSError):
            lock = _lock(path)
            try:
                Group(path).remove()
            finally:
                os.close(lock)


def _make_in(place: Path) -> OwnedGroup:
    # Somebody may sweep it up before it is locked, but not twice.
    with suppress(FileNotFoundError, BlockingIOError):
        return OwnedGroup(place / f"{_PREFIX}{secrets.token_hex(6)}")
    return OwnedGroup(place / f"{_PREFIX}{secrets.token_hex(6)}")


def _lock(path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _write(path: Path, text: str) -> None:
    """Write to a control file in one piece; the kernel alone makes such files."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
