"""Judging one program against its tests, on the trusted side."""

import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from codegym.judge.assertions import run_assertions
from codegym.judge.codec import CodecError
from codegym.judge.forkserver import ForkServer
from codegym.judge.jail import Limits
from codegym.judge.outcome import Outcome, grade_answer, read_failure, same_output
from codegym.judge.run import Budget, Run, Stopped, TestsLimit
from codegym.verdict import Verdict

_MESSAGE_CHARACTERS = 300


@dataclass(frozen=True, kw_only=True)
class FunctionTests:
    """Call tests and assertion tests of one task, in the form they travel in."""

    entry: str
    calls: bytes
    expected: Sequence[bytes]
    assertions: Sequence[str]
    prompt: str

    def __len__(self) -> int:
        return len(self.expected) + len(self.assertions)


class Grader:
    """Judges jobs one after the other with one zygote."""

    def __init__(self, server: ForkServer, limits: Limits) -> None:
        self._server = server
        self._limits = limits

    def judge(self, job: Sequence[bytes]) -> dict[str, Any]:
        """Return the judgement of one job as JSON data."""
        started = time.monotonic()
        head, source, calls, expected, assertions, stdio, prompt = job
        header = json.loads(head)
        budget = Budget(self._limits)
        tests = FunctionTests(
            entry=header["entry"],
            calls=calls,
            expected=expected.split(b"\n") if calls else [],
            assertions=json.loads(assertions),
            prompt=prompt.decode("utf-8", "surrogatepass"),
        )
        limit = TestsLimit()
        outcomes = self._judge_functions(budget, limit, source, tests) if len(tests) else []
        outcomes += self._judge_stdio(budget, limit, source, json.loads(stdio))
        # Tests travel by kind and are reported in the task's order.
        results = [outcomes[index] for index in header["order"]]
        first = next((result for result in results if result.verdict is not Verdict.PASSED), None)
        return {
            "id": header["id"],
            "verdict": first.verdict if first else Verdict.PASSED,
            "results": [result.verdict is Verdict.PASSED for result in results],
            "error_line": first.line if first else None,
            "message": _one_line(first.message) if first else "",
            "cpu_s": budget.cpu_s,
            "wall_s": time.monotonic() - started,
            "tier": self._server.tier,
        }

    def _judge_functions(
        self, budget: Budget, limit: TestsLimit, source: bytes, tests: FunctionTests
    ) -> list[Outcome]:
        """Return the outcomes of the call tests, then of the assertion tests."""
        outcomes: list[Outcome] = []
        with _file() as answers:
            run = Run(
                self._server,
                budget,
                {"mode": "functions", "entry": tests.entry},
                source,
                tests.calls,
                [answers],
            )
            try:
                stop = _stopped_by(run.wait_loaded)
                limit.allow(os.fstat(answers).st_size)
                with limit.running():
                    for outcome in self._grade_calls(answers, tests, stop):
                        outcomes.append(outcome)
                    if stop is None and len(outcomes) < len(tests):
                        for outcome in run_assertions(
                            run, limit, tests.prompt, tests.entry, tests.assertions
                        ):
                            outcomes.append(outcome)
            except Stopped as error:
                # Without its frames, which hold the program's values.
                stop = error.with_traceback(None)
            finally:
                run.end()
        if stop is None:
            return outcomes
        # What a program said before it broke the rules counts for nothing. What it said before it ran out of
        # time does, but not all of it: without the end of its answers nothing passes.
        kept = [] if stop.verdict is Verdict.TAMPERED else outcomes[: len(tests) - 1]
        return kept + [Outcome(verdict=stop.verdict, message=stop.message)] * (len(tests) - len(kept))

    def _grade_calls(self, answers: int, tests: FunctionTests, stop: Stopped | None) -> Iterator[Outcome]:
        """Yield the outcomes that the answer file holds; raise what stops the rest."""
        if os.fstat(answers).st_size >= self._limits.output_bytes:
            raise Stopped(Verdict.OUTPUT_LIMIT, "the answers are too large")
        loading, *lines = _read(answers).split(b"\n")[:-1] or [b""]
        if loading[:1] == b"E":
            failure = _load_failure(loading)
            yield from [failure] * len(tests)
            return
        if len(lines) > len(tests.expected) or (stop is None and len(lines) < len(tests.expected)):
            raise Stopped(Verdict.TAMPERED, f"{len(lines)} answers to {len(tests.expected)} calls")
        for line, expected in zip(lines, tests.expected, strict=False):
            yield grade_answer(line, expected)
        if stop is not None:
            raise stop

    def _judge_stdio(
        self, budget: Budget, limit: TestsLimit, source: bytes, tests: Sequence[Sequence[str]]
    ) -> list[Outcome]:
        """Return the outcomes of the stdio tests; each runs in a process of its own, all on one budget."""
        outcomes: list[Outcome] = []
        for test in tests:
            try:
                outcomes.append(self._judge_one_stdio(budget, limit, source, *test))
            except Stopped as error:
                outcome = Outcome(verdict=error.verdict, message=error.message)
                if error.verdict is Verdict.TIME_LIMIT:
                    return outcomes + [outcome] * (len(tests) - len(outcomes))
                outcomes.append(outcome)
        return outcomes

    def _judge_one_stdio(
        self,
        budget: Budget,
        limit: TestsLimit,
        source: bytes,
        standard_in: str,
        expected: str,
        comparison: str,
    ) -> Outcome:
        with _file(standard_in.encode("utf-8", "surrogatepass")) as given, _file() as output:
            run = Run(self._server, budget, {"mode": "stdio"}, source, files=[given, output])
            try:
                ending = run.wait_loaded()
            except Stopped as stop:
                ending = [b"V"]
                if os.fstat(output).st_size >= self._limits.output_bytes:
                    raise Stopped(Verdict.OUTPUT_LIMIT, "too much output") from None
                # An exit without ceremony is as good as any other: only the output counts.
                if stop.exit_status != 0:
                    raise
            finally:
                run.end()
            # Short runs end before anybody looks at the clock.
            budget.spend()
            if os.fstat(output).st_size >= self._limits.output_bytes:
                raise Stopped(Verdict.OUTPUT_LIMIT, "too much output")
            if ending != [b"V"]:
                return _load_failure(ending[0] if ending else b"")
            written, wanted = _read(output), expected.encode("utf-8", "surrogatepass")
            limit.allow(len(written))
            with limit.running():
                right = same_output(written, wanted, comparison)
            if right:
                return Outcome(verdict=Verdict.PASSED)
            return Outcome(verdict=Verdict.WRONG_ANSWER, message="wrong output")


def _stopped_by(action: Any) -> Stopped | None:
    try:
        action()
    except Stopped as stop:
        return stop.with_traceback(None)
    return None


def _load_failure(line: bytes) -> Outcome:
    """Return what a failed import of the module makes of every test."""
    try:
        return read_failure(line).outcome()
    except CodecError as error:
        raise Stopped(Verdict.TAMPERED, f"an answer that is no answer: {error}") from None


def _one_line(text: str) -> str:
    """Return hostile text as one bounded line of printable characters."""
    return "".join(c if c.isprintable() else " " for c in text[:_MESSAGE_CHARACTERS])


@contextmanager
def _file(content: bytes = b"") -> Iterator[int]:
    """Open a nameless file in memory where the system has them."""
    if sys.platform == "linux":
        descriptor = os.memfd_create("judge")
    else:
        with tempfile.TemporaryFile() as temporary:
            descriptor = os.dup(temporary.fileno())
    try:
        if content:
            os.pwrite(descriptor, content, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _read(descriptor: int) -> bytes:
    """Read a whole file without moving its offset, which the child shares."""
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
