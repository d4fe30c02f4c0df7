"""Tables of results as Markdown."""

from collections.abc import Iterable, Sequence


def table_lines(names: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """A table, line by line: the names of its columns, the rule below them, and its rows."""
    return [_line(names), f"|{'---|' * len(names)}", *map(_line, rows)]


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """The same as one text, which ends with a newline."""
    return "".join(f"{line}\n" for line in table_lines(names, rows))


def _line(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"
