"""A study's report: what was found, plots, tables, and how to make it again."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.stages.evaluate import versions
from codegym.render import printable
from codegym.storage import write_text
from prm.report.page import Picture, Table, as_text, write_pages


def write_study(
    folder: Path,
    *,
    title: str,
    summary: Sequence[str],
    pictures: Sequence[Picture],
    tables: Sequence[Table],
    rows: Sequence[Mapping[str, Any]],
    command: str,
    settings: Mapping[str, Any],
) -> str:
    """Write `rows.jsonl`, `report.html`, `report.md` and `plots/`; returns the tables for a terminal.

    Args:
        folder: Where to.
        title: The study's.
        summary: Paragraphs that stand first: what was asked, what was found.
        pictures: Plots.
        tables: Tables, which come after the plots; those without rows are left out.
        rows: The numbers, one measurement each.
        command: What makes the study again.
        settings: What the study was run with.
    """
    write_text(folder / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    shown = [table for table in tables if table.rows]
    context = {
        "title": title,
        "summary": summary,
        "pictures": pictures,
        "tables": shown,
        "command": command,
        "settings": settings,
        "versions": versions(),
        "platform": sys.platform,
    }
    page = write_pages(folder, "benchmarks.study", context)
    return "\n".join([*(as_text(table) for table in shown), *map(printable, summary), f"report: {page}"])
