"""Confinement of candidate programs: the best tier that this machine offers, probed when a worker starts.

| tier | on top of the tier below |
|---|---|
| 0 | resource limits and a session of its own: portable, no defence against hostile code |
| 1 | no_new_privs, seccomp, Landlock, no capabilities: no processes, signals, sockets or foreign files |
| 2 | user, network, IPC, UTS and mount namespaces per worker, a PID namespace per program, private /tmp |
| 3 | a cgroup v2 group per worker: memory and tasks summed over all that a program does |
"""

import math
import os
import resource
import signal
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from codegym.judge.scratch import remove_folder

HIGHEST_TIER = 3
_OPEN_FILES = 128
_SCRATCH_BYTES = 32 * 2**20


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one program may use.

    Attributes:
        cpu_s: CPU seconds; the grader measures them, the kernel's own limit lies a little above.
        memory_bytes: Address space on top of what the bare interpreter has.
        output_bytes: Size of any file it writes, its captured output included.
        threads: Whether it may start threads.
        imports: Modules that are not in the standard library but loaded for it.
        import_paths: Where to find them.
    """

    cpu_s: float
    memory_bytes: int
    output_bytes: int
    threads: bool = False
    imports: Sequence[str] = ()
    import_paths: Sequence[str] = ()


class Jail:
    """Prepared once by the zygote, entered by every child."""

    def __init__(
        self,
        limits: Limits,
        max_tier: int,
        scratch: str | None = None,
        group: str | None = None,
        packages: Sequence[Path] = (),
    ) -> None:
        """Prepare the best tier up to `max_tier`.

        Args:
            limits: What one program may use.
            max_tier: Use no higher tier.
            scratch: An empty folder for the program, used where there is no private /tmp.
            group: The cgroup v2 group for programs, where there is one.
            packages: What may be read beside the standard library.
        """
        self.limits = limits
        self.tier = 0
        self.missing = ""
        self._scratch = scratch
        self._private_scratch = False
        self._packages = packages
        self._group: int | None = None
        if max_tier >= 1:
            self._prepare_linux(max_tier, group)
        self._enter_scratch()
        self._limit_resources()

    def _prepare_linux(self, max_tier: int, group: str | None) -> None:
        if sys.platform != "linux":
            self.missing = f"tier 1 needs Linux, this is {sys.platform}"
            return
        from codegym.judge import landlock, linux, seccomp

        if (architecture := seccomp.architecture()) is None:
            self.missing = f"tier 1 has no system call table for {os.uname().machine}"
            return
        if not seccomp.is_available():
            self.missing = "tier 1 needs seccomp filters, which this kernel or an outer sandbox refuses"
            return
        if not landlock.abi_version():
            self.missing = "tier 1 needs Landlock (Linux 5.13, not disabled at boot or by an outer sandbox)"
            return
        linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
        self._readable = landlock.open_paths([*landlock.readable_paths(), *self._packages])
        namespaces = max_tier >= 2 and self._enter_namespaces()
        if not namespaces:
            linux.drop_capabilities()
        self._ruleset = landlock.Ruleset(self._readable, self._scratch)
        self._filter = seccomp.build(architecture, own_pid_namespace=namespaces, threads=self.limits.threads)
        self.tier = 2 if namespaces else 1
        if namespaces and group is not None and self._join_group(group):
            self.tier = 3

    def _enter_namespaces(self) -> bool:
        from codegym.judge import namespaces

        try:
            namespaces.enter()
            place = self._scratch if _needed_below_tmp(self._packages) else "/tmp"
            if place is None:
                raise OSError("Python lies below /tmp, and there is no other scratch folder")
            namespaces.mount_scratch(place, _SCRATCH_BYTES)
        except OSError as error:
            self.missing = f"tier 2 needs unprivileged user namespaces: {error}"
            return False
        self._scratch = place
        self._private_scratch = True
        return True

    def _join_group(self, group: str) -> bool:
        """Let children be born into a group; whether the kernel agrees is tried once."""
        from codegym.judge import namespaces

        self._group = os.open(group, os.O_PATH | os.O_CLOEXEC)
        try:
            if (child := namespaces.fork(self._group)) == 0:
                os._exit(0)
        except OSError as error:
            self.missing = f"tier 3 needs programs born into a cgroup v2 group: {error}"
            os.close(self._group)
            self._group = None
            return False
        os.waitpid(child, 0)
        return True

    def _enter_scratch(self) -> None:
        """Make the scratch folder the current, temporary and home folder of every child to come."""
        os.environ.clear()
        os.environ["LANG"] = "C.UTF-8"
        if self._scratch is not None:
            os.chdir(self._scratch)
            os.environ.update(TMPDIR=self._scratch, HOME=self._scratch)
        self._untouched = self._scratch_state()

    def _limit_resources(self) -> None:
        """Lower what children inherit; CPU time and open files are limited in each of them."""
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_FSIZE, self.limits.output_bytes)
        if sys.platform == "linux":
            from codegym.judge import linux  # noqa: F401 - so that children find it loaded

            pages = int(Path("/proc/self/statm").read_text().split()[0])
            _lower(resource.RLIMIT_AS, self.limits.memory_bytes + pages * resource.getpagesize())
            _lower(resource.RLIMIT_MSGQUEUE, 0)

    def fork(self) -> int:
        """Fork a child that is to call `enter` before anything else; returns what `os.fork` returns."""
        if self.tier < 2:
            return os.fork()
        from codegym.judge import namespaces

        return namespaces.fork(self._group)

    def enter(self) -> None:
        """Confine this process, a fresh child, for good.

        Raises:
            OSError: If a layer fails; the child must then end.
        """
        os.setsid()
        _lower(resource.RLIMIT_NOFILE, _OPEN_FILES)
        _lower(resource.RLIMIT_CPU, math.ceil(self.limits.cpu_s) + 1)
        if sys.platform == "linux":
            from codegym.judge import linux

            linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if self.tier >= 1:
            from codegym.judge import linux, seccomp

            linux.drop_capabilities()
            self._ruleset.enter()
            self._ruleset.close()
            seccomp.install(self._filter)

    def reset_scratch(self) -> None:
        """Give the next program an untouched scratch folder, after the last one's processes are gone."""
        if self._scratch is None or self._scratch_state() == self._untouched:
            return
        if self._private_scratch:
            from codegym.judge import linux, namespaces

            linux.unmount(self._scratch)
            namespaces.mount_scratch(self._scratch, _SCRATCH_BYTES)
        else:
            # Not only emptied: sizes and times of the old one could carry a message.
            remove_folder(self._scratch)
            os.mkdir(self._scratch, 0o700)
        if self.tier >= 1:
            from codegym.judge import landlock

            self._ruleset.close()
            self._ruleset = landlock.Ruleset(self._readable, self._scratch)
        self._enter_scratch()

    def _scratch_state(self) -> tuple[int, ...] | None:
        """Return what changes with any use of the scratch folder: entries, mode, times, attributes."""
        if self._scratch is None:
            return None
        status = os.stat(self._scratch)
        times = (status.st_atime_ns, status.st_ctime_ns)
        return status.st_ino, status.st_mode, status.st_size, status.st_nlink, *times


def _lower(kind: int, value: int) -> None:
    """Set both ends of a resource limit, or the hard end that is already lower."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))


def _needed_below_tmp(packages: Sequence[Path]) -> bool:
    """Whether a private /tmp would hide what programs import."""
    python = [sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"), sys.base_prefix]
    return any(root.resolve().is_relative_to("/tmp") for root in [*map(Path, python), *packages])
