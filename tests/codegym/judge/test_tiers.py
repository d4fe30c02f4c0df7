"""Each layer really taken away, by an outer sandbox around the judge: it says so and claims no more."""

import errno
import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest

from codegym import CallTest, Task, Verdict
from codegym.judge import landlock, linux, seccomp
from codegym.judge.pool import LocalJudge

pytestmark = pytest.mark.skipif(
    platform.machine() not in seccomp.ARCHITECTURES or not landlock.abi_version(),
    reason="nothing to take away",
)

ROOT = Path(__file__).parents[3]
CALLS = {
    "x86_64": {"prctl": 157, "unshare": 272, "mount": 165, "landlock": 444},
    "aarch64": {"prctl": 167, "unshare": 97, "mount": 40, "landlock": 444},
}.get(platform.machine(), {})
SET_SECCOMP, LINUX32 = 22, 8
SCRATCH_FLAGS = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC | linux.MS_NOATIME

# Loads no more than the judge needs, takes something away for good, and tells what a judge makes of the rest.
HARNESS = """
import ctypes, json, struct, sys, types
root, number, position, argument, code, personality = sys.argv[1], *map(int, sys.argv[2:])
package = types.ModuleType("codegym")
package.__path__ = [f"{root}/codegym"]
sys.modules["codegym"] = package
from codegym.errors import SandboxError
from codegym.judge import linux, seccomp
from codegym.judge.pool import LocalJudge
from codegym.task import CallTest, Task

if personality:
    ctypes.CDLL(None).personality(personality)
if number >= 0:
    def line(code, value, yes=0, no=0): return struct.pack("=HBBI", code, yes, no, value)
    lines = [line(0x20, 0), line(0x15, number, 0, 3 if argument >= 0 else 1)]
    if argument >= 0:
        lines += [line(0x20, 16 + 8 * position), line(0x15, argument, 0, 1)]
    lines += [line(0x06, 0x50000 | code), line(0x06, 0x7FFF0000)]
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(b"".join(lines))

LISTING = '''
import os
def f(x):
    try:
        return 9 if os.listdir("/tmp") == [] else 0
    except OSError:
        return 9
'''
task = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(3,), expected=9),))
programs = ["def f(x): return x * x", "def f(x): return x", "import os\\ndef f(x): os._exit(0)", LISTING]
with LocalJudge(workers=1) as judge:
    judgements = judge.judge([(task, program) for program in programs])
refusal = ""
try:
    LocalJudge(workers=1, min_tier=judge.tier + 1 if judge.tier < 3 else 3).close()
except SandboxError as error:
    refusal = str(error)
print(json.dumps([judgements[0].tier, [judgement.verdict.value for judgement in judgements], refusal]))
"""


def judged_without(*, call="", position=0, argument=-1, code=0, personality=0):
    """Return tier, verdicts, refusal of the next higher tier.

    The programs: a right, a wrong, a leaving one, and one that is right if it cannot see into /tmp.
    """
    arguments = [CALLS.get(call, -1), position, argument, code, personality]
    command = [sys.executable, "-c", HARNESS, str(ROOT), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("taken", "tier", "reason"),
    [
        (
            {"call": "prctl", "argument": SET_SECCOMP, "code": errno.EPERM},
            0,
            "tier 1 needs seccomp filters, which this kernel",
        ),
        (
            {"call": "prctl", "argument": SET_SECCOMP, "code": errno.EINVAL},
            0,
            "tier 1 needs seccomp filters, which this kernel",
        ),
        ({"call": "landlock", "code": errno.ENOSYS}, 0, "tier 1 needs Landlock"),
        ({"call": "landlock", "code": errno.EOPNOTSUPP}, 0, "tier 1 needs Landlock"),
        ({"personality": LINUX32}, 0, "tier 1 has no system call table for "),
        ({"call": "unshare", "code": errno.EPERM}, 1, "tier 2 needs unprivileged user namespaces: .*unshare"),
        # Ubuntu 24.04: a namespace, but no power in it.
        ({"call": "mount", "code": errno.EACCES}, 1, "tier 2 needs unprivileged user namespaces: .*mount"),
        (
            {"call": "mount", "position": 3, "argument": SCRATCH_FLAGS, "code": errno.EPERM},
            1,
            "tier 2 needs unprivileged user namespaces: .*mount",
        ),
    ],
    ids=[
        "seccomp denied",
        "no seccomp",
        "old kernel",
        "Landlock off",
        "processor",
        "unshare",
        "mount",
        "scratch",
    ],
)
def test_what_is_taken_away_is_missing_by_name_and_refused(taken, tier, reason):
    found, verdicts, refusal = judged_without(**taken)
    assert found == tier
    assert verdicts == ["passed", "wrong_answer", "runtime_error", "passed" if tier else verdicts[3]]
    assert re.match(f"tier {tier + 1} wanted, {tier} found: {reason}", refusal)


def test_with_nothing_taken_away_no_tier_below_is_refused():
    found, verdicts, refusal = judged_without()
    assert found >= 1
    assert verdicts == ["passed", "wrong_answer", "runtime_error", "passed"]
    assert bool(refusal) is (found < 3)


# Landlock's ABI: (rights over files, rights over the network, scopes, bytes of the structure).
BY_ABI = {
    1: (0x1FFF, 0, 0, 8),
    2: (0x3FFF, 0, 0, 8),
    3: (0x7FFF, 0, 0, 8),
    4: (0x7FFF, 3, 0, 16),
    5: (0xFFFF, 3, 0, 16),
    6: (0xFFFF, 3, 3, 24),
    7: (0xFFFF, 3, 3, 24),
    # One that does not exist yet gets what we know.
    9: (0xFFFF, 3, 3, 24),
}


@pytest.mark.parametrize("abi", BY_ABI)
def test_each_landlock_abi_is_asked_for_exactly_what_it_knows(abi, monkeypatch, tmp_path):
    asked = []

    def syscall(number, first, *others):
        if number == 444:
            asked.append((first._obj, others[0]))
        return os.open("/dev/null", os.O_RDONLY)

    monkeypatch.setattr(landlock, "abi_version", lambda: abi)
    monkeypatch.setattr(linux, "syscall", syscall)
    landlock.Ruleset([], str(tmp_path)).close()
    [(rules, size)] = asked
    assert (rules.files, rules.network, rules.scopes, size) == BY_ABI[abi]


CONFINED = """
import os, sys, types
root, abi, scratch = sys.argv[1], int(sys.argv[2]), sys.argv[3]
for name, folder in (("codegym", f"{root}/codegym"), ("codegym.judge", f"{root}/codegym/judge")):
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [folder]
from codegym.judge import landlock, linux
landlock.abi_version = lambda: abi
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
landlock.Ruleset(landlock.open_paths(landlock.readable_paths()), scratch).enter()
open(f"{scratch}/mine", "w").write("x")
os.mkdir(f"{scratch}/folder")
import sqlite3.dump
open("/dev/null", "w").write("x")
outside = os.path.dirname(scratch)
for attempt in (
    lambda: open("/etc/passwd"),
    lambda: os.listdir("/"),
    lambda: os.listdir(outside),
    lambda: open(f"{outside}/other", "w"),
    lambda: os.mkdir(f"{outside}/other"),
    lambda: os.symlink("/", f"{outside}/other"),
    lambda: os.rename(f"{scratch}/mine", f"{outside}/other"),
    lambda: os.unlink(f"{outside}/canary"),
    lambda: open("/dev/null", "rb") and os.execv("/bin/true", ["true"]),
    lambda: os.mkfifo(f"{scratch}/pipe") or os.mknod(f"{scratch}/device", 0o60666, os.makedev(7, 0)),
):
    try:
        attempt()
    except OSError:
        continue
    sys.exit("one attempt succeeded")
print("confined")
"""


@pytest.mark.parametrize("abi", range(1, landlock.abi_version() + 1))
def test_every_abi_up_to_this_kernel_s_confines(abi, tmp_path):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "canary").write_text("alive")
    command = [sys.executable, "-c", CONFINED, str(ROOT), str(abi), str(tmp_path / "scratch")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("confined\n", "")
    assert (tmp_path / "canary").read_text() == "alive"
    assert not (tmp_path / "other").exists()


POOLED = """
from concurrent.futures import ThreadPoolExecutor
def f(x):
    with ThreadPoolExecutor(3) as pool:
        return sum(pool.map(lambda y: y * y, range(x)))
"""
FORKING = """
import os, threading
def f(x):
    answers = []
    def fork():
        try:
            pid = os.fork()
        except OSError as error:
            answers.append(type(error).__name__)
        else:
            os._exit(0) if pid == 0 else answers.append("forked")
    for thread in [threading.Thread(target=fork) for _ in range(2)]:
        thread.start()
        thread.join()
    fork()
    return 14 if answers == ["BlockingIOError"] * 3 else answers
"""
SPAWNING = """
import subprocess
def f(x):
    try:
        subprocess.run(["/bin/true"])
    except OSError:
        return 14
"""
THREAD_BOMB = """
import threading, time
def f(x):
    while True:
        threading.Thread(target=time.sleep, args=(100,), daemon=True).start()
"""
SPINNING_THREADS = """
import threading
def spin():
    while True: pass
def f(x):
    for _ in range(4): threading.Thread(target=spin).start()
    return 14
"""
SQUARES = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(4,), expected=14),))


@pytest.fixture(params=[1, 2])
def tier(request):
    with LocalJudge(workers=1, max_tier=request.param) as judge:
        judge.judge([(SQUARES, POOLED)])
    if judge.tier < request.param:
        pytest.skip(f"this machine offers tier {judge.tier} only")
    return request.param


@pytest.mark.parametrize("threads", [True, False])
def test_a_thread_pool_works_only_where_threads_are_allowed(tier, threads):
    with LocalJudge(workers=1, max_tier=tier, threads=threads) as judge:
        judgement = judge.judge([(SQUARES, POOLED)])[0]
    assert judgement.passed is threads
    if not threads:
        assert judgement.verdict is Verdict.RUNTIME_ERROR
        assert "can't start new thread" in judgement.message


@pytest.mark.parametrize("program", [FORKING, SPAWNING], ids=["fork", "subprocess"])
def test_threads_do_not_bring_processes(tier, program):
    with LocalJudge(workers=1, max_tier=tier, threads=True) as judge:
        assert judge.judge([(SQUARES, program)])[0].passed


def test_threads_end_with_their_program_and_share_its_limits(tier):
    with LocalJudge(workers=1, max_tier=tier, threads=True, time_limit_s=0.5, cache=False) as judge:
        bomb, spinning, pooled = judge.judge(
            [(SQUARES, text) for text in (THREAD_BOMB, SPINNING_THREADS, POOLED)]
        )
        after = judge.judge([(SQUARES, POOLED)] * 2)
    assert bomb.verdict in (Verdict.RUNTIME_ERROR, Verdict.MEMORY_LIMIT, Verdict.TIME_LIMIT)
    # The answer was there in time; its threads end when the judge is done with it.
    assert spinning.verdict in (Verdict.PASSED, Verdict.TIME_LIMIT)
    assert spinning.cpu_s < 1.0
    assert all(judgement.passed for judgement in (pooled, *after))
