"""Assertion tests: trusted test source, run unmodified here against a proxy of the candidate."""

import builtins
from collections.abc import Iterator, Sequence
from functools import lru_cache
from types import CodeType
from typing import Any

from codegym.judge.codec import CodecError, decode, encode
from codegym.judge.outcome import Outcome, read_failure
from codegym.judge.run import Run, Stopped, TestsLimit
from codegym.verdict import Verdict

# What data sets' assertions use without importing it.
_PRELUDE = """
import collections, copy, functools, heapq, itertools, math, random, re, string, sys
from typing import *
"""


class CandidateError(Exception):
    """An exception in the candidate that is no builtin one."""


class Proxy:
    """Stands for the candidate's function; its answers are plain values, decoded here."""

    def __init__(self, run: Run, limit: TestsLimit, name: str) -> None:
        self._run = run
        self._limit = limit
        self.__name__ = name
        self.stopped: Stopped | None = None
        self.raised: Exception | None = None
        self.outcome: Outcome | None = None

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Call the candidate.

        Raises:
            Stopped: If the program cannot go on.
            Exception: What the candidate raised, rebuilt from its type's name and its text.
        """
        try:
            line = self._run.call(encode([list(arguments), keywords]))
            self._limit.allow(len(line))
            if line[:1] == b"V":
                return decode(line[1:])
            failure = read_failure(line)
        except CodecError as error:
            self.stopped = Stopped(Verdict.TAMPERED, f"an answer that is no answer: {error}")
            raise self.stopped from None
        except Stopped as stop:
            self.stopped = stop
            raise
        self.raised = _rebuild(failure.type_name, failure.text)
        self.outcome = failure.outcome()
        raise self.raised


def _rebuild(type_name: str, text: str) -> Exception:
    kind = getattr(builtins, type_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Exception)):
        return CandidateError(text)
    try:
        return kind(text)
    except TypeError:
        return CandidateError(text)


def run_assertions(
    run: Run, limit: TestsLimit, prompt: str, entry: str, tests: Sequence[str]
) -> Iterator[Outcome]:
    """Run each test in a namespace of its own, in order; a failing one does not keep the next from running.

    Args:
        run: The loaded candidate.
        limit: Of the tests' own time, running.
        prompt: Trusted text whose helper functions the tests may use.
        entry: The name that the tests call.
        tests: Trusted sources.

    Raises:
        Stopped: If the program cannot go on.
    """
    for source in tests:
        proxy = Proxy(run, limit, entry)
        outcome = _run_test(proxy, _namespace(prompt), entry, _compile(source))
        # A test's bare `except` does not get the program past its end.
        if (stopped := proxy.stopped or limit.stopped) is not None:
            raise stopped
        yield outcome


def _run_test(proxy: Proxy, namespace: dict[str, Any], entry: str, code: CodeType) -> Outcome:
    namespace[entry] = proxy
    namespace["candidate"] = proxy
    try:
        exec(code, namespace)  # noqa: S102
        if callable(check := namespace.get("check")) and check is not proxy:
            check(proxy)
    except AssertionError:
        return Outcome(verdict=Verdict.WRONG_ANSWER, message="an assertion failed")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - test code meets hostile values
        if error is proxy.raised and proxy.outcome is not None:
            return proxy.outcome
        # The test choked on a value that the right program would not have returned.
        text = f"the test raised {type(error).__name__} on the program's value"
        return Outcome(verdict=Verdict.WRONG_ANSWER, message=text)
    return Outcome(verdict=Verdict.PASSED)


@lru_cache(maxsize=1)
def _prelude() -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": "tests"}
    exec(_PRELUDE, namespace)  # noqa: S102
    return namespace


@lru_cache(maxsize=1024)
def _compile(source: str) -> CodeType:
    return compile(source, "<tests>", "exec", dont_inherit=True)


def _namespace(prompt: str) -> dict[str, Any]:
    namespace = dict(_prelude())
    if (helpers := _compile_prompt(prompt)) is not None:
        exec(helpers, namespace)  # noqa: S102
    return namespace


@lru_cache(maxsize=256)
def _compile_prompt(prompt: str) -> CodeType | None:
    """Return the prompt as code, if need be with its last function's body filled in; None if it is prose."""
    for text in (prompt, prompt + "\n    pass\n"):
        try:
            return compile(text, "<prompt>", "exec", dont_inherit=True)
        except SyntaxError:
            continue
    return None
