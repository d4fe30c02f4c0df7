"""What programs do, told apart without knowing what is right: fingerprints of their outputs.

The judge runs a program on the inputs of its task's tests, and never says what comes out. So a program is
run inside a probe that keeps a digest of all its outputs and is then asked for the digest's bits, one test
each. Expected values are not part of the probe.
"""

import ast
from collections.abc import Sequence
from typing import Any

from codegym.judge import Job, Judge
from codegym.task import AssertionTest, CallTest, StdioTest, Task

N_BITS = 64

# Runs untrusted, as the program does: a program can at most lie about its own outputs.
_PROBE = """
import contextlib, hashlib, io, re, sys, types

_digest = 0


def _canonical(value):
    kind = type(value)
    if isinstance(value, dict):
        items = sorted(f"{_canonical(key)}:{_canonical(item)}" for key, item in value.items())
    elif isinstance(value, (set, frozenset)):
        items = sorted(map(_canonical, value))
    elif isinstance(value, (list, tuple)):
        items = list(map(_canonical, value))
    else:
        text = repr(value)
        if not isinstance(value, (str, bytes)):
            text = re.sub(" at 0x[0-9a-fA-F]+", "", text)  # an address is another one in every process
        return f"{kind.__name__} {text}"
    return f"{kind.__name__}({','.join(items)})"


def _calls(source, entry_point):
    module = types.ModuleType("solution")
    sys.modules["solution"] = module
    exec(compile(source, "solution.py", "exec"), module.__dict__)
    owner, _, name = entry_point.rpartition(".")

    def call(args):
        return _canonical(getattr(module.__dict__[owner]() if owner else module, name)(*args))

    return call


def _runs(source, entry_point):
    code = compile(source, "solution.py", "exec")

    def run(stdin):
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8", "surrogatepass")))
        printed = io.TextIOWrapper(io.BytesIO(), "utf-8", "surrogatepass")
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            exec(code, {"__name__": "__main__"})
        printed.flush()
        return " ".join(printed.buffer.getvalue().decode("utf-8", "replace").split())

    return run


def observe(*question):
    global _digest
    if len(question) == 1:
        return _digest >> question[0] & 1
    kind, source, entry_point, inputs = question
    outputs, answered = [], False
    try:
        program = globals()[kind](source, entry_point)
        for given in inputs:
            try:
                outputs.append(program(given))
                answered = True
            except BaseException as error:
                outputs.append(f"raised {type(error).__name__}")
    except BaseException:
        return False
    digest = hashlib.sha256(repr(outputs).encode("utf-8", "backslashreplace")).digest()
    _digest = int.from_bytes(digest, "big")
    return answered
"""


def observe(judge: Judge, programs: Sequence[tuple[Task, str]]) -> list[int | None]:
    """A fingerprint of what each program returns or prints on the inputs of its task's tests.

    Programs of a task have the same fingerprint if they give equal values of equal types, or print the same
    words, and raise the same on the same inputs. An input of an assertion is a call of the entry point with
    literal arguments.

    Args:
        judge: Runs all programs in one batch.
        programs: Tasks and completions.

    Returns:
        `N_BITS` bits each; None for a program that gives no output on any input, is stopped, or whose task
        tells no inputs.
    """
    jobs = [_job(task, completion) for task, completion in programs]
    judgements = iter(judge.judge([job for job in jobs if job is not None]))
    fingerprints: list[int | None] = []
    for job in jobs:
        answered, *bits = next(judgements).results if job is not None else (False,)
        fingerprints.append(sum(bit << place for place, bit in enumerate(bits)) if answered else None)
    return fingerprints


def inputs_of(task: Task) -> list[Any]:
    """What the tests of a task give to a program: arguments of calls, or texts on standard input."""
    inputs: list[Any] = []
    for test in task.tests:
        match test:
            case CallTest():
                inputs.append(test.args)
            case StdioTest():
                inputs.append(test.stdin)
            case AssertionTest():
                inputs += _calls_in(test.code, task.entry_point)
    return inputs


def _job(task: Task, completion: str) -> Job | None:
    inputs = inputs_of(task)
    if not inputs:
        return None
    kind = "_runs" if task.entry_point is None else "_calls"
    question = (kind, task.assemble(completion), task.entry_point, inputs)
    tests = (
        CallTest(args=question, expected=True),
        *(CallTest(args=(place,), expected=1) for place in range(N_BITS)),
    )
    probe = Task(
        task_id=f"{task.task_id}#outputs", prompt="", entry_point="observe", tests=tests, prompt_is_code=False
    )
    return probe, _PROBE


def _calls_in(code: str, entry_point: str | None) -> list[tuple[Any, ...]]:
    """Arguments of the calls that a test's source makes of the candidate, where they are literals."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call) or node.keywords or not isinstance(node.func, ast.Name):
            continue
        if node.func.id in ("candidate", entry_point):
            try:
                found.append(tuple(ast.literal_eval(argument) for argument in node.args))
            except ValueError:
                continue
    return found
