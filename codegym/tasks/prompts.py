"""How a problem in prose becomes the beginning of a Python module, and checks of a row's code."""

import ast
import warnings
from keyword import iskeyword

from codegym.tasks.rows import Row

SOLUTION_CLASS = "Solution"

IMPORTS = """\
import bisect, collections, copy, datetime, functools, heapq, itertools, math, random, re, string, sys
from bisect import *
from collections import *
from functools import *
from heapq import *
from itertools import *
from math import *
from typing import *
from builtins import *

sys.setrecursionlimit(50_000)
"""
"""What LeetCode provides, so that a solution written for it runs; `builtins` last, for its own `pow`."""


def docstring(text: str) -> str:
    """Prose as a module's docstring, valid whatever it holds, ended by a newline."""
    text = text.encode("utf-8", "replace").decode().replace("\0", "")
    text = one_newline(text).replace('"""', "'''").strip("\n")
    prefix = "r" if "\\" in text else ""
    return f'{prefix}"""\n{text}\n"""\n'


def problem_prompt(statement: str, starter_code: str = "", *, imports: bool = False) -> str:
    """A problem as the beginning of a module; the agent writes the whole program after it.

    The starter code is shown, not begun: a published solution, or a model's whole program, can follow.
    """
    text = one_newline(statement).strip("\n")
    if starter_code.strip():
        text += "\n\nStarter code:\n\n" + one_newline(starter_code).strip("\n")
    return docstring(text) + (IMPORTS if imports else "")


def entry_point(row: Row, field: str, function: object, code: str) -> str:
    """The name to call: a method of the class Solution if `code` defines one, else the function.

    Raises:
        TaskSourceError: If `function` cannot be a function's name.
    """
    if not isinstance(function, str) or not function.isidentifier() or iskeyword(function):
        raise row.error(field, f"expected the name of a function, got {function!r}")
    return f"{SOLUTION_CLASS}.{function}" if f"class {SOLUTION_CLASS}" in code else function


def one_newline(text: str) -> str:
    r"""The text with every line end as \n."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def whole_lines(code: str) -> str:
    """Code as lines that an agent can write, each ended by a newline."""
    code = one_newline(code)
    return code if code.endswith("\n") else code + "\n"


def check_python(row: Row, field: str, code: str) -> ast.Module:
    """Parse a row's code.

    Raises:
        TaskSourceError: If it is not Python.
    """
    try:
        return parse(code)
    except SyntaxError as error:
        raise row.error(field, f"not Python: {error}") from error


def parse(code: str) -> ast.Module:
    """Parse code without warnings: data sets are full of invalid escape sequences.

    Raises:
        SyntaxError: If it is not Python, whatever Python's own parser raises.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(code)
    except (ValueError, RecursionError, MemoryError) as error:
        raise SyntaxError(str(error) or type(error).__name__) from error


def is_python(code: str) -> bool:
    """Whether some code parses."""
    try:
        parse(code)
    except SyntaxError:
        return False
    return True
