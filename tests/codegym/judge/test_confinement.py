# ruff: noqa: E501
"""The layers of the jail, each by itself; that they hold together is the attack corpus's business."""

import errno
import os
import platform
import struct
import sys

import pytest

from codegym import CallTest, Task
from codegym.judge import landlock, scratch, seccomp, syscalls
from codegym.judge.jobs import pack_task
from codegym.judge.scratch import hold_folder, make_folder, remove_folder

ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, EAGAIN, ENOSYS = (0x50000 | number for number in (errno.EPERM, errno.EAGAIN, errno.ENOSYS))
CLONE_THREAD, CLONE_NEWUSER = 0x10000, 0x10000000


def run_filter(code, number, arguments=(), audit=None, architecture="x86_64"):
    """What the kernel would do: a classic BPF machine with the five instructions that we use."""
    audit = seccomp.ARCHITECTURES[architecture].audit if audit is None else audit
    words = [argument & 0xFFFFFFFF for argument in (*arguments, *[0] * 6)][:6]
    data = struct.pack("=iIQ6Q", number - 2**32 if number >= 2**31 else number, audit, 0, *words)
    program = list(struct.iter_unpack("=HBBI", code))
    accumulator = position = 0
    while True:
        operation, if_true, if_false, operand = program[position]
        position += 1
        if operation == 0x20:
            accumulator = struct.unpack_from("=I", data, operand)[0]
        elif operation == 0x06:
            return operand
        else:
            holds = {
                0x15: accumulator == operand,
                0x35: accumulator >= operand,
                0x45: bool(accumulator & operand),
            }
            position += if_true if holds[operation] else if_false


@pytest.fixture(params=sorted(seccomp.ARCHITECTURES))
def machine(request):
    return request.param


@pytest.fixture
def numbers(machine):
    return seccomp.ARCHITECTURES[machine].numbers


def build(machine, **options):
    code = seccomp.build(
        seccomp.ARCHITECTURES[machine], **{"own_pid_namespace": False, "threads": False, **options}
    )
    return lambda number, *arguments, **other: run_filter(
        code, number, arguments, architecture=machine, **other
    )


def test_exactly_the_listed_calls_are_free(machine, numbers):
    decide = build(machine)
    free = {numbers[name] for name in syscalls.ALLOWED if name in numbers}
    assert {number for number in range(700) if decide(number) == ALLOW} - free <= {
        numbers[name] for name in ("fcntl", "ioctl", "prlimit64", "socketpair")
    }
    assert all(decide(number) == ALLOW for number in free)


@pytest.mark.parametrize(
    ("machine", "forbidden"),
    [
        # socket connect bind execve ptrace mount process_vm_readv bpf io_uring_setup pidfd_open memfd_create
        ("x86_64", [41, 42, 49, 59, 101, 165, 310, 321, 425, 434, 319, 57, 58, 29, 68, 250, 322, 323, 272, 308, 161, 90]),
        ("aarch64", [198, 203, 200, 221, 117, 40, 270, 280, 425, 434, 279, 194, 186, 219, 281, 97, 268, 51, 52]),
    ],
)  # fmt: skip
def test_dangerous_calls_fail(machine, forbidden):
    decide = build(machine, own_pid_namespace=True, threads=True)
    assert {decide(number) for number in forbidden} == {EPERM}


def test_another_architecture_or_abi_kills(machine):
    decide = build(machine)
    assert decide(0, audit=0x40000003) == KILL
    assert decide(0x40000000) == KILL
    assert decide(0xFFFFFFFF) == KILL


@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("fcntl", (3, 3), ALLOW),
        ("fcntl", (3, 8), EPERM),  # F_SETOWN
        ("fcntl", (3, 10), EPERM),  # F_SETSIG
        ("fcntl", (3, 15), EPERM),  # F_SETOWN_EX
        ("ioctl", (0, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("ioctl", (0, 0x8901), EPERM),  # FIOSETOWN
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (1, 7), EPERM),
        ("socketpair", (1, 1), ALLOW),
        ("socketpair", (2, 1), EPERM),
        ("clone", (17,), EAGAIN),
        ("clone", (CLONE_THREAD,), EAGAIN),
        ("clone3", (), ENOSYS),
        ("kill", (1, 9), EPERM),
    ],
)
def test_calls_that_depend_on_an_argument(machine, numbers, name, arguments, answer):
    assert build(machine)(numbers[name], *arguments) == answer


def test_signals_reach_only_the_program_itself_in_its_namespace(machine, numbers):
    decide = build(machine, own_pid_namespace=True)
    for name in ("kill", "tkill", "tgkill"):
        assert decide(numbers[name], 1, 9) == ALLOW
        assert [decide(numbers[name], target, 9) for target in (0, 2, -1, -2)] == [EPERM] * 4


def test_threads_can_be_allowed_but_processes_cannot(machine, numbers):
    decide = build(machine, threads=True)
    assert decide(numbers["clone"], CLONE_THREAD | 0x100) == ALLOW
    assert decide(numbers["clone"], 17) == EAGAIN
    assert decide(numbers["clone"], CLONE_NEWUSER) == EAGAIN


def test_the_tables_agree_with_the_kernel_headers(machine):
    if platform.machine() != machine or machine != "x86_64":
        pytest.skip("the headers are this machine's")
    header = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
    if not os.path.exists(header):
        pytest.skip(f"no {header}")
    with open(header) as file:
        words = [line.split() for line in file if line.startswith("#define __NR_")]
    official = {name.removeprefix("__NR_"): int(number) for _, name, number in words}
    assert {name: official[name] for name in syscalls.X86_64} == syscalls.X86_64


def test_the_table_of_arm_agrees_with_the_kernel_s_generic_header():
    header = "/usr/include/asm-generic/unistd.h"
    if not os.path.exists(header):
        pytest.skip(f"no {header}")
    with open(header) as file:
        words = [line.split()[1:3] for line in file if line.startswith("#define __NR")]
    official = {name: value for name, value in words if name != "__NR_syscalls"}
    for name, number in syscalls.AARCH64.items():
        value = official[f"__NR_{name}"]
        # Some names stand for a call that has another one on 32 bits.
        assert int(official.get(value, value)) == number, name


@pytest.mark.skipif(sys.platform != "linux", reason="Landlock is Linux")
def test_readable_paths_hold_the_standard_library_and_no_installed_packages():
    paths = [str(path) for path in landlock.readable_paths()]
    assert os.path.dirname(os.__file__) + "/json" in paths
    assert not any("-packages" in path for path in paths)
    assert not {"/", "/usr", "/usr/lib", "/lib", "/etc", "/home", sys.base_prefix} & set(paths)


def test_a_folder_is_removed_however_deep_and_whatever_its_modes():
    folder = make_folder()
    here = os.open(folder, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)
    os.makedirs(f"{folder}/locked/inside")
    with open(f"{folder}/locked/file", "w") as file:
        file.write("x")
    os.symlink("/", f"{folder}/root")
    os.symlink(folder, f"{folder}/locked/loop")
    os.chmod(f"{folder}/locked", 0)
    remove_folder(folder)
    assert not os.path.exists(folder)
    assert os.path.exists("/")


def test_folders_of_killed_workers_go_and_those_in_use_stay(monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "_MEMORY", str(tmp_path))
    left, held, fresh = make_folder(), make_folder(), make_folder()
    os.makedirs(f"{left}/program/deep")
    aside = tmp_path / "aside"
    aside.mkdir()
    (tmp_path / "codegym-link").symlink_to(aside)
    (tmp_path / "codegym-file").write_text("x")
    for folder in (left, held, aside):
        os.utime(folder, (0, 0))
    hold_folder(held)
    new = make_folder()
    names = {"aside", "codegym-link", "codegym-file", *map(os.path.basename, (held, fresh, new))}
    assert {path.name for path in tmp_path.iterdir()} == names


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave another user's folder")
def test_another_user_s_folder_is_left_alone(monkeypatch, tmp_path):
    monkeypatch.setattr(scratch, "_MEMORY", str(tmp_path))
    theirs = make_folder()
    os.chown(theirs, 12345, 12345)
    os.utime(theirs, (0, 0))
    make_folder()
    assert os.path.exists(theirs)


def test_tests_travel_by_kind_and_remember_their_order():
    tests = (CallTest(args=(1, [2]), expected=(3,)), CallTest(args=(), expected=None))
    packed = pack_task(Task(task_id="t", prompt="p", entry_point="f", tests=tests))
    assert packed.parts[0] == b'[[1,[2]],{"dict":[]}]\n[[],{"dict":[]}]'
    assert packed.parts[1] == b'{"tuple":[3]}\nnull'
    assert packed.order == (0, 1)
