"""Which rows become tasks, alike for every source: bad rows, ids, splits and draws."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from heapq import nsmallest

from codegym.errors import TaskError, TaskSourceError
from codegym.table import check_name
from codegym.task import Task
from codegym.tasks.rows import SPLITS, Row

ON_BAD_ROW = ("raise", "skip")

_log = logging.getLogger(__name__)
_REASONS_SHOWN = 3


def select_tasks(
    rows: Iterable[Row],
    to_task: Callable[[Row], Task | None],
    *,
    splits: Sequence[str] = SPLITS,
    split: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    on_bad_row: str = "raise",
) -> tuple[Task, ...]:
    """Make tasks of rows.

    Args:
        rows: The rows; only the tasks that are returned are held in memory.
        to_task: Makes a task of a row; None for a row that was not asked for. A ValueError, TypeError or
            LookupError of it is an error of the row.
        splits: The splits that the source has.
        split: Only tasks of this split.
        limit: At most this many, drawn by `seed` and returned in the file's order. Who is drawn depends on
            the task's id alone: the draw of 10 is part of the draw of 20.
        seed: Seed of that draw.
        on_bad_row: "raise", or "skip": bad rows are left out, and a warning says how many and why.

    Raises:
        TaskSourceError: If a row is not a valid task, or has the id of an earlier one.
        TaskError: If no task is left.
        ValueError: If an option has a value that is not known.
    """
    if split is not None:
        check_name(split, list(splits), "split")
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, got {limit}")
    check_name(on_bad_row, ON_BAD_ROW, "on_bad_row")
    stream = _Stream(rows, to_task, skip=on_bad_row == "skip")
    wanted = ((place, task) for place, task in enumerate(stream) if split in (None, task.split))
    if limit is None:
        drawn = list(wanted)
    else:
        drawn = sorted(nsmallest(limit, wanted, key=lambda entry: _lot(seed, entry[1])), key=_place)
    stream.warn()
    if not drawn:
        asked = f" in split {split!r}" if split else ""
        raise TaskError(f"no tasks{asked} in {stream.n_rows} rows, {len(stream.bad)} of them bad")
    return tuple(task for _, task in drawn)


class _Stream:
    """The tasks of rows, one at a time, with a tally of the bad ones."""

    def __init__(self, rows: Iterable[Row], to_task: Callable[[Row], Task | None], *, skip: bool) -> None:
        self._rows = rows
        self._to_task = to_task
        self._skip = skip
        self._ids: set[str] = set()
        self.bad: list[TaskSourceError] = []
        self.n_rows = 0

    def __iter__(self) -> Iterator[Task]:
        for row in self._rows:
            self.n_rows += 1
            try:
                task = self._checked(row)
            except TaskSourceError as error:
                if not self._skip:
                    raise
                self.bad.append(error)
                continue
            if task is not None:
                yield task

    def _checked(self, row: Row) -> Task | None:
        try:
            task = self._to_task(row)
        except TaskSourceError:
            raise
        except (ValueError, TypeError, LookupError) as error:
            raise row.error(None, f"{type(error).__name__}: {error}") from error
        if task is None:
            return None
        if not task.tests:
            raise row.error(None, f"task {task.task_id!r} has no tests")
        if task.task_id in self._ids:
            raise row.error(None, f"the task id {task.task_id!r} occurs a second time")
        self._ids.add(task.task_id)
        return task

    def warn(self) -> None:
        """Log how many rows were skipped, and the first reasons."""
        if self.bad:
            reasons = "; ".join(map(str, self.bad[:_REASONS_SHOWN]))
            more = "; ..." if len(self.bad) > _REASONS_SHOWN else ""
            _log.warning("skipped %d of %d rows: %s%s", len(self.bad), self.n_rows, reasons, more)


def _lot(seed: int, task: Task) -> bytes:
    return blake2b(f"{seed}/{task.task_id}".encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _place(entry: tuple[int, Task]) -> int:
    return entry[0]
