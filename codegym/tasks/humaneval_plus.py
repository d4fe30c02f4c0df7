"""HumanEval+ (EvalPlus, arXiv:2305.01210): HumanEval's functions with about 80 times as many inputs.

Apache 2.0; reads EvalPlus' `HumanEvalPlus.jsonl`, gzipped or not: task_id, prompt, entry_point,
canonical_solution, base_input, plus_input, atol. A task has two tests, "base" and "plus", as EvalPlus reports
both. The expected values are computed from the canonical solution, on the judge's trusted side, each time: a
verdict takes longer than HumanEval's, so give the judge a `time_limit_s` of some seconds. Values agree as in
EvalPlus: equal by ==, or numbers of the same type and shape within atol (1e-6 where it is 0 and floats are
expected) plus 1e-7 of the value; for `find_zero` the polynomial's value must be within atol.
"""

import json
import os
from pathlib import Path

from codegym.errors import TaskError
from codegym.task import AssertionTest, Task
from codegym.tasks.prompts import check_python
from codegym.tasks.rows import Row, files_of, read_files
from codegym.tasks.selection import select_tasks

LICENCE = "Apache-2.0"

_CHECK = """
import copy, json

def _floats(value):
    is_list = isinstance(value, (list, tuple)) and value
    return all(isinstance(item, float) for item in value) if is_list else isinstance(value, float)

def _close(given, wanted, atol):
    if isinstance(wanted, (list, tuple)):
        same_shape = isinstance(given, (list, tuple)) and len(given) == len(wanted)
        return same_shape and all(_close(a, b, atol) for a, b in zip(given, wanted))
    if not (isinstance(given, (int, float)) and isinstance(wanted, (int, float))):
        return False
    return abs(given - wanted) <= atol + 1e-7 * abs(wanted)

def _agree(given, wanted, atol):
    if given == wanted:
        return True
    if atol == 0 and _floats(wanted):
        atol = 1e-6
    return atol != 0 and type(given) is type(wanted) and _close(given, wanted, atol)

def check(candidate):
    for arguments in json.loads(_INPUTS):
        given = candidate(*copy.deepcopy(arguments))
        if _NAME == "find_zero":
            assert abs(poly(*arguments, given)) <= _ATOL
        else:
            assert _agree(given, _reference(*arguments), _ATOL)
"""


def load(
    *,
    path: str | Path | None = None,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Load HumanEval+.

    Args:
        path: `HumanEvalPlus.jsonl`, gzipped or not; by default the newest one in EvalPlus' cache.
        split: "test", the only one.
        limit: At most this many tasks.
        seed: Which ones are drawn then.
        on_bad_row: "raise" or "skip".

    Raises:
        TaskError: If there is no path and nothing in the cache.
        TaskSourceError: If a row is not a valid task.
    """
    rows = read_files("humaneval_plus", files_of("humaneval_plus", path or _cached()))
    return select_tasks(
        rows, to_task, splits=("test",), split=split, limit=limit, seed=seed, on_bad_row=on_bad_row
    )


def to_task(row: Row) -> Task:
    """Make a task of a row in EvalPlus' schema.

    Raises:
        TaskSourceError: If a field is missing or wrong.
    """
    original, name = row.get("task_id", str), row.get("entry_point", str)
    prompt, reference = row.get("prompt", str), row.get("canonical_solution", str)
    check_python(row, "canonical_solution", prompt + reference)
    if f"def {name}(" not in prompt:
        raise row.error("entry_point", f"the prompt defines no function {name!r}")
    atol = row.fields.get("atol", 0)
    if isinstance(atol, bool) or not isinstance(atol, int | float) or atol < 0:
        raise row.error("atol", f"expected a tolerance, got {atol!r}")
    parts = {part: row.get(f"{part}_input", list) for part in ("base", "plus")}
    for part, inputs in parts.items():
        if not all(isinstance(arguments, list) for arguments in inputs):
            raise row.error(f"{part}_input", "expected a list of lists of arguments")
    if not any(parts.values()):
        raise row.error("base_input", "there are no inputs")
    tests = [
        AssertionTest(code=_test(prompt + reference, name, inputs, atol))
        for inputs in parts.values()
        if inputs
    ]
    return Task(
        task_id=f"humaneval_plus/{original.rpartition('/')[2]}",
        prompt=prompt,
        entry_point=name,
        tests=tuple(tests),
        split="test",
        reference=reference,
        metadata=row.metadata(
            licence=LICENCE, original_id=original, parts=[part for part in parts if parts[part]]
        ),
    )


def _test(solution: str, name: str, inputs: list[list[object]], atol: float) -> str:
    head = f"{solution}\n_reference = {name}\n_NAME, _ATOL = {name!r}, {atol!r}\n"
    # As text: Python needs much longer to compile a large list than to parse one.
    return f"{head}_INPUTS = {json.dumps(inputs)!r}\n{_CHECK}"


def _cached() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "evalplus"
    found = list(folder.glob("HumanEvalPlus-v*.jsonl"))
    if not found:
        raise TaskError(
            "humaneval_plus needs path= to HumanEvalPlus.jsonl (https://github.com/evalplus/evalplus), or its"
            f" copy in {folder}, where EvalPlus puts it when it first runs"
        )
    return max(
        found, key=lambda file: [int(n) for n in file.stem.rpartition("v")[2].split(".") if n.isdigit()]
    )
