"""Workers whose zygote calls in from elsewhere, and what a container for it may do; no engine needed."""

import gc
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import pytest

from codegym import CallTest, MissingExtraError, SandboxError, Task, Verdict, make_judge
from codegym.judge.container import LABEL, SOCKET, container_options, listen
from codegym.judge.jail import Limits
from codegym.judge.pool import LocalJudge
from codegym.judge.protocol import FIXED_ENVIRONMENT, PACKAGE, python_command
from codegym.judge.run import Budget, Stopped, process_cpu_s
from codegym.judge.scratch import make_folder, remove_folder
from codegym.judge.start import ContainedZygote, ZygoteError
from codegym.judge.worker import Worker, WorkerDiedError
from codegym.testing import check_judge

LIMITS = Limits(cpu_s=1.0, memory_bytes=2**30, output_bytes=2**20)
TASK = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(2,), expected=4),))
RIGHT = "def f(n):\n    return n + n\n"


@pytest.fixture
def scratch():
    folder = make_folder()
    yield folder
    remove_folder(folder)


@pytest.fixture
def options():
    return container_options(LIMITS, image="python:3.12-slim", runtime=None, meeting=Path("/meet"))


def call_in(meeting, scratch, **options):
    """The first process of a container, without the container."""
    return subprocess.Popen(
        python_command("codegym.judge.contained", str(meeting / SOCKET), f"{scratch}/program"),
        stdin=subprocess.DEVNULL,
        env=FIXED_ENVIRONMENT,
        cwd="/",
        **options,
    )


class CalledWorker(Worker):
    """A worker whose zygote is nobody's child here: it calls in, as one in a container does."""

    def __init__(self, limits, max_tier):
        scratch = make_folder()
        meeting, listener = listen(scratch)
        with listener:
            super().__init__(limits, max_tier, scratch=scratch, listener=listener)
        # What a container has of its own: the program's folder does not go with the grader's.
        self.inside = make_folder()
        self.zygote = call_in(meeting, self.inside)

    def close(self):
        super().close()
        self.zygote.wait(10)
        remove_folder(self.inside)


class CalledJudge(LocalJudge):
    def _worker_starter(self):
        return partial(CalledWorker, self._limits, self._max_tier)


def test_a_zygote_that_calls_in_serves_like_any_other():
    with CalledJudge(workers=2, time_limit_s=0.5) as judge:
        check_judge(judge)
        assert judge.statistics.restarts == 0


def test_the_cpu_time_of_a_child_of_a_zygote_that_called_in_is_seen():
    spin = "def f(n):\n    while True: pass\n"
    with CalledJudge(workers=1, time_limit_s=0.3) as judge:
        judgement = judge.judge([(TASK, spin)])[0]
        assert judgement.verdict is Verdict.TIME_LIMIT
        assert judgement.message == "used more than 0.3 s of CPU time"
        assert 0.3 <= judgement.cpu_s < 0.6
        # What it computes before it is ended by its own exit is counted too.
        busy = "def f(n):\n    import time\n    while time.process_time() < 0.2: pass\n    return n + n\n"
        assert 0.15 < judge.judge([(TASK, busy)])[0].cpu_s < 0.3


def test_a_killed_zygote_that_called_in_is_replaced_and_costs_no_verdict():
    with CalledJudge(workers=1) as judge:
        judge.judge([(TASK, RIGHT)])
        zygote = judge._crew.idle[0].zygote
        zygote.kill()
        zygote.returncode = 0
        assert judge.judge([(TASK, RIGHT + "# again")])[0].passed
        assert judge.statistics.restarts == 1


def test_a_zygote_ends_with_its_grader():
    with CalledJudge(workers=1) as judge:
        judge.judge([(TASK, RIGHT)])
        worker = judge._crew.idle[0]
        os.kill(worker.pid, signal.SIGKILL)
        worker.zygote.wait(10)


def test_a_zygote_that_nobody_answers_ends_at_once(scratch):
    meeting, listener = listen(scratch)
    listener.close()
    zygote = call_in(meeting, scratch, stderr=subprocess.PIPE)
    assert b"ConnectionRefusedError" in zygote.communicate(timeout=10)[1]
    assert zygote.returncode == 1
    assert not Path(scratch, "program").exists()


def test_a_zygote_whose_grader_hangs_up_before_it_speaks_ends(scratch):
    meeting, listener = listen(scratch)
    with listener:
        zygote = call_in(meeting, scratch, stderr=subprocess.DEVNULL)
        listener.accept()[0].close()
        assert zygote.wait(10) == 0


def test_a_grader_that_nobody_calls_gives_up(scratch, monkeypatch):
    monkeypatch.setattr("codegym.judge.start._CALL_IN_S", 0.05)
    listener = listen(scratch)[1]
    with pytest.raises(ZygoteError, match=r"no container called in within 0\.05 s"):
        ContainedZygote(listener.detach(), {})


def test_a_zygote_that_fails_says_so_in_its_workers_log(scratch):
    """The log's descriptor travels to the container: engines keep nothing of what was in it."""
    inner = make_folder()
    meeting, listener = listen(inner)
    with listener:
        worker = Worker(LIMITS, 1, scratch=inner, listener=listener)
    Path(scratch, "program").mkdir()
    zygote = call_in(meeting, scratch)
    with pytest.raises(WorkerDiedError, match=r"FileExistsError.*hung up"):
        worker.wait_started()
    worker.close()
    assert zygote.wait(10) == 1


def test_after_one_call_nobody_else_can_call(scratch):
    meeting, listener = listen(scratch)
    caller = socket.socket(socket.AF_UNIX)
    caller.connect(str(meeting / SOCKET))
    zygote = ContainedZygote(listener.detach(), {"limits": {}})
    with socket.socket(socket.AF_UNIX) as second, pytest.raises(ConnectionRefusedError):
        second.connect(str(meeting / SOCKET))
    _, descriptors, _, _ = socket.recv_fds(caller, 1, 1)
    assert os.fstat(descriptors[0]) == os.fstat(2)
    os.close(descriptors[0])
    zygote.close()
    caller.close()


def test_the_callers_only_child_is_seen_whatever_it_calls_it(scratch):
    meeting, listener = listen(scratch)
    program = f"""
import os, socket, time
caller = socket.socket(socket.AF_UNIX)
caller.connect({str(meeting / SOCKET)!r})
greeting = caller.recv(1) + caller.recv(6)
children = []
for _ in range(2):
    caller.recv(1)
    children.append(os.fork())
    if children[-1] == 0:
        time.sleep(100)
    print(children[-1], flush=True)
caller.recv(1)
for child in children:
    os.kill(child, 9)
    os.wait()
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as caller:
        zygote = ContainedZygote(listener.detach(), {})
        assert zygote.visible_pid(17) == 0
        zygote.control.sendall(b"1")
        child = int(caller.stdout.readline())
        assert zygote.visible_pid(17) == child
        zygote.control.sendall(b"2")
        caller.stdout.readline()
        # Two children: nobody knows whose time would be counted.
        assert zygote.visible_pid(17) == 0
        zygote.close()
    assert zygote.visible_pid(17) == 0


def test_of_a_process_that_cannot_be_seen_only_wall_time_counts():
    while time.process_time() < 0.05:
        pass
    assert process_cpu_s(0) == 0.0
    budget = Budget(Limits(cpu_s=0.1, memory_bytes=1, output_bytes=1))
    budget.begin(0)
    assert budget.spend(0.1) > 0
    with pytest.raises(Stopped, match=r"idle for more than 0\.1 s"):
        budget.spend(0.3)


def test_a_container_may_only_compute(options):
    assert options["network_mode"] == "none"
    assert options["ipc_mode"] == "none"
    assert options["read_only"] is True
    assert options["cap_drop"] == ["ALL"]
    assert options["security_opt"] == ["no-new-privileges"]
    assert options["user"] == "65534:65534"
    assert not {"privileged", "cap_add", "devices", "volumes", "ports", "pid_mode", "userns_mode"} & set(
        options
    )


def test_a_container_writes_only_to_a_small_tmp(options):
    writable = [folder for folder, how in options["tmpfs"].items() if "rw" in how.split(",")]
    assert writable == ["/tmp"]
    assert "size=32m" in options["tmpfs"]["/tmp"]
    assert {"nosuid", "nodev", "noexec"} <= set(options["tmpfs"]["/tmp"].split(","))
    assert all(mount["ReadOnly"] for mount in options["mounts"])


def test_a_container_holds_the_judges_code_and_a_socket_and_nothing_else_from_outside(options):
    assert [(mount["Source"], mount["Target"]) for mount in options["mounts"]] == [
        (str(PACKAGE), "/codegym/judge"),
        ("/meet", "/meeting"),
    ]
    assert options["environment"] == FIXED_ENVIRONMENT
    assert not any("SECRET" in text or str(PACKAGE) in text for text in options["entrypoint"])


def test_a_containers_memory_is_one_programs_and_a_bit_without_swap():
    small, large = (
        container_options(
            Limits(cpu_s=1, memory_bytes=size, output_bytes=1), image="x", runtime=None, meeting=Path("/m")
        )
        for size in (2**20, 2**30)
    )
    assert large["mem_limit"] - small["mem_limit"] == 2**30 - 2**20
    assert small["mem_limit"] == small["memswap_limit"] == 2**20 + 256 * 2**20
    assert small["pids_limit"] == 64


def test_a_container_has_explicit_limits_and_removes_itself(options):
    assert {(limit["Name"], limit["Soft"], limit["Hard"]) for limit in options["ulimits"]} == {
        ("nofile", 4096, 4096),
        ("nproc", 4096, 4096),
        ("core", 0, 0),
    }
    assert options["auto_remove"] is True
    assert options["init"] is False
    assert options["labels"] == {LABEL: str(os.getpid())}


def test_image_and_runtime_are_the_callers_choice():
    options = container_options(LIMITS, image="mine:1", runtime="runsc", meeting=Path("/m"))
    assert (options["image"], options["runtime"]) == ("mine:1", "runsc")


def test_options_are_plain_data(options):
    assert json.loads(json.dumps(options)) == options


def test_only_the_owner_of_the_folder_reaches_the_socket_and_any_user_in_the_container(scratch):
    meeting, listener = listen(scratch)
    with listener:
        modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (scratch, meeting, meeting / SOCKET)]
    assert modes == [0o700, 0o711, 0o666]


def test_the_modes_do_not_depend_on_the_umask(scratch):
    before = os.umask(0o077)
    try:
        meeting, listener = listen(scratch)
    finally:
        os.umask(before)
    with listener:
        assert [stat.S_IMODE(os.stat(path).st_mode) for path in (meeting, meeting / SOCKET)] == [0o711, 0o666]


def test_without_its_package_the_docker_judge_names_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "docker", None)
    monkeypatch.delitem(sys.modules, "codegym.judge.docker", raising=False)
    with pytest.raises(MissingExtraError, match="judge 'docker' needs the package 'docker'"):
        make_judge("docker")


# The client forgets to close the socket with which it could not connect.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_without_an_engine_there_is_an_error_at_once_that_names_its_address(monkeypatch):
    pytest.importorskip("docker")
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix://{folder}/none.sock"
        with pytest.raises(SandboxError, match=f"no Docker engine answers at {address}"):
            make_judge("docker", base_url=address)
        monkeypatch.setenv("DOCKER_HOST", address)
        with pytest.raises(SandboxError, match=f"no Docker engine answers at {address}"):
            make_judge("docker")
    gc.collect()


def test_judging_without_containers_does_not_import_docker():
    code = "import sys, codegym.judge.pool; sys.exit('docker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
