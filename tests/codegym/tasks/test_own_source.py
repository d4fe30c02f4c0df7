"""A task source of one's own, as the README shows it: one file and one line in the table."""

import json

import pytest

from codegym import TASK_SOURCES, TaskSourceError, load_tasks
from codegym.testing import check_task_source

SOURCE = """
from codegym import CallTest, Task
from codegym.tasks.rows import files_of, read_files
from codegym.tasks.selection import select_tasks

def load(*, path, split=None, limit=None, seed=0, on_bad_row="raise"):
    rows = read_files("sums", files_of("sums", path))
    return select_tasks(rows, to_task, split=split, limit=limit, seed=seed, on_bad_row=on_bad_row)

def to_task(row):
    name = row.get("name", str)
    return Task(
        task_id=f"sums/{name}",
        prompt=f"def {name}(xs):\\n",
        entry_point=name,
        tests=tuple(CallTest(args=(xs,), expected=y) for xs, y in row.get("pairs", list)),
        reference=row.get("solution", str),
        metadata=row.metadata(difficulty=row.get("level", int, 0)),
    )
"""


def test_a_source_of_ones_own_has_everything_the_others_have(tmp_path, monkeypatch, judge):
    assert len(SOURCE.strip().splitlines()) <= 20
    (tmp_path / "sums.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(TASK_SOURCES, "sums", "sums:load")
    rows = [
        {"name": "total", "pairs": [[[1, 2], 3], [[], 0]], "solution": "    return sum(xs)\n", "level": 1},
        {"name": "size", "pairs": [[[1, 2], 2]], "solution": "    return len(xs)\n"},
        {"name": 3},
    ]
    path = tmp_path / "sums.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(TaskSourceError) as error:
        load_tasks("sums", path=path)
    assert str(error.value) == f"sums: {path}, row 3, field 'name': expected str, got int 3"
    tasks = load_tasks("sums", path=path, on_bad_row="skip")
    assert [task.task_id for task in tasks] == ["sums/total", "sums/size"]
    assert len(load_tasks("sums", path=path, on_bad_row="skip", limit=1, seed=3)) == 1
    check_task_source(tasks, judge)
