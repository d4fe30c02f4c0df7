"""A task source of one's own, as the README shows it: one file and one line in the table."""

import json
import re
from pathlib import Path

import pytest

from codegym import TASK_SOURCES, TaskSourceError, load_tasks
from codegym.testing import check_task_source

README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
SOURCE = next(block for block in BLOCKS if block.startswith("# sums.py"))


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
