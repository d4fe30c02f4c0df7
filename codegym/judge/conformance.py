"""What every judge must satisfy, whatever it runs programs in."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

from codegym.errors import SandboxError, TaskError
from codegym.judge import Job, Judge
from codegym.task import AssertionTest, CallTest, StdioTest, Task
from codegym.verdict import Judgement, Verdict

_INPUTS = (0, 3, -5)

DOUBLE = Task(
    task_id="check/double",
    prompt="def double(x):\n",
    entry_point="double",
    tests=tuple(CallTest(args=(x,), expected=2 * x) for x in _INPUTS),
    reference="    y = x + x\n    return y\n",
)
"""The task of the checks: small enough to know every verdict by heart."""

_ECHO = Task(
    task_id="check/echo",
    prompt="",
    entry_point=None,
    tests=(StdioTest(stdin="3\n", stdout="3\n6\n"), StdioTest(stdin="-5\n", stdout="-5\n-10\n")),
)
_ASSERTED = replace(
    DOUBLE,
    task_id="check/asserted",
    tests=(
        AssertionTest(
            code="def check(candidate):\n    assert candidate(2) == 4\n    assert candidate(0) == 0\n"
        ),
        AssertionTest(code="assert double(-5) < 0, 'sign'\nassert not double(3) != 6"),
    ),
)


@dataclass(frozen=True)
class _Case:
    name: str
    task: Task
    completion: str
    verdicts: tuple[Verdict, ...]  # those allowed, where the limits decide which one it is
    results: tuple[bool, ...]

    @property
    def job(self) -> Job:
        return self.task, self.task.assemble(self.completion)


_T, _F = True, False
_NONE, _ALL = (_F, _F, _F), (_T, _T, _T)
_PASSED, _WRONG, _ERROR = (Verdict.PASSED,), (Verdict.WRONG_ANSWER,), (Verdict.RUNTIME_ERROR,)
_LIAR = """    class Liar(int):
        def __eq__(self, other):
            return True
        def __ne__(self, other):
            return False
        __lt__ = __gt__ = __le__ = __ge__ = __eq__
        __hash__ = int.__hash__
    return Liar(1)
"""
_STRANGER = _LIAR.replace("Liar(int)", "Liar").replace("int.__hash__", "None").replace("Liar(1)", "Liar()")

_CASES = (
    _Case("right", DOUBLE, "    return x + x\n", _PASSED, _ALL),
    _Case("wrong", DOUBLE, "    return x * x\n", _WRONG, (_T, _F, _F)),
    _Case("raising", DOUBLE, "    return 6 // (x - x)\n", _ERROR, _NONE),
    _Case("endless", DOUBLE, "    while True:\n        pass\n", (Verdict.TIME_LIMIT,), _NONE),
    _Case("unparsable", DOUBLE, "    return (x +\n", (Verdict.SYNTAX_ERROR,), _NONE),
    _Case("empty", DOUBLE, "", (Verdict.SYNTAX_ERROR,), _NONE),
    _Case("exiting", DOUBLE, "    raise SystemExit(0)\n", _ERROR, _NONE),
    _Case("lying", DOUBLE, _LIAR, _WRONG, _NONE),
    _Case("strange", DOUBLE, _STRANGER, _WRONG, _NONE),
    _Case("printing", DOUBLE, "    print(2 * x)\n", _WRONG, _NONE),
    _Case(
        "hoarding", DOUBLE, "    return bytes(10**13)\n", (Verdict.MEMORY_LIMIT, Verdict.RUNTIME_ERROR), _NONE
    ),
    _Case("right echo", _ECHO, "x = int(input())\nprint(x)\nprint(2 * x)\n", _PASSED, (_T, _T)),
    _Case("half right echo", _ECHO, "x = int(input())\nprint(x)\nprint(x + 3)\n", _WRONG, (_T, _F)),
    _Case("short echo", _ECHO, "print(input())\n", _WRONG, (_F, _F)),
    _Case("long echo", _ECHO, "x = int(input())\nprint(x, 2 * x, 0, sep='\\n')\n", _WRONG, (_F, _F)),
    _Case("raising echo", _ECHO, "x = int(input())\nprint(x)\nprint(2 * x)\nx[0]\n", _ERROR, (_F, _F)),
    _Case(
        "flooding echo",
        _ECHO,
        "while True:\n    print('3' * 10**6)\n",
        (Verdict.OUTPUT_LIMIT, Verdict.TIME_LIMIT),
        (_F, _F),
    ),
    _Case("right asserted", _ASSERTED, "    return x + x\n", _PASSED, (_T, _T)),
    _Case("half right asserted", _ASSERTED, "    return x * x\n", _WRONG, (_T, _F)),
    _Case("lying asserted", _ASSERTED, _LIAR, _WRONG, (_F, _F)),
    _Case("raising asserted", _ASSERTED, "    raise KeyError(x)\n", _ERROR, (_F, _F)),
    _Case("right again", DOUBLE, "    return 2 * x\n", _PASSED, _ALL),
)


def check_judge(judge: Judge, *, close: bool = False) -> None:
    """Check that a judge keeps the protocol.

    Right, wrong, raising, endless, unparsable, lying, flooding and hoarding programs are told apart, over
    call, stdio and assertion tests; a batch keeps its order and may hold equal programs; two threads may
    judge at once; a task without tests is refused.

    Args:
        judge: A judge with its default limits, or tighter ones.
        close: Whether to close it, twice, and check that it then refuses to judge.

    Raises:
        AssertionError: If it does not; the message names the program and what came back.
    """
    _check_batch(judge, _CASES, "")
    require(judge.judge([]) == [], "an empty batch must give an empty list")
    series = [_partly_right(number) for number in range(40)]
    _check_batch(judge, series, " in a batch of 40")
    wrong, right = _partly_right(302), _partly_right(303)
    _check_batch(judge, [wrong, wrong, right, wrong, right], " among equal ones")
    _check_threads(judge)
    _check_refusal(judge, replace(DOUBLE, tests=()), TaskError, "a task without tests must raise TaskError")
    if close:
        judge.close()
        judge.close()
        _check_refusal(judge, DOUBLE, SandboxError, "a judge that is closed must raise SandboxError")


def require(condition: Any, message: str) -> None:
    """Raise AssertionError with a message unless a condition holds."""
    if not condition:
        raise AssertionError(message)


def _partly_right(number: int) -> _Case:
    """A program that passes the first `number % 4` tests, like no other of its batch."""
    n_passed = number % 4
    return _Case(
        f"{number}-th",
        DOUBLE,
        f"    return x + x if x in {_INPUTS[:n_passed]} else 'not {number}'\n",
        _PASSED if n_passed == 3 else _WRONG,
        tuple(index < n_passed for index in range(3)),
    )


def _check_batch(judge: Judge, cases: Sequence[_Case], where: str) -> None:
    found: list[Judgement] = judge.judge([case.job for case in cases])
    require(len(found) == len(cases), f"{len(cases)} jobs gave {len(found)} judgements")
    for case, result in zip(cases, found, strict=True):
        require(
            result.verdict in case.verdicts and result.results == case.results,
            f"the {case.name} program must be {' or '.join(case.verdicts)} {case.results}{where}, "
            f"got {result.verdict} {result.results} {result.message!r}",
        )


def _check_threads(judge: Judge) -> None:
    batches = [[_partly_right(number) for number in range(start, start + 10)] for start in (100, 201)]
    with ThreadPoolExecutor(len(batches)) as threads:
        running = [threads.submit(_check_batch, judge, batch, " beside another thread") for batch in batches]
        for batch in running:
            batch.result()


def _check_refusal(judge: Judge, task: Task, kind: type[Exception], message: str) -> None:
    try:
        # Like no program before: an answer from a cache would be no answer.
        judge.judge([(task, DOUBLE.assemble("    return x + x + 0\n"))])
    except kind:
        return
    raise AssertionError(message)
