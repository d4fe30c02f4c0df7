"""Pages that hold everything they show. Model output is hostile text: everything is escaped."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from codegym.render import printable
from codegym.storage import write_text


@dataclass(frozen=True, kw_only=True)
class Table:
    """A titled table of text cells."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A titled figure.

    Attributes:
        title: For people.
        name: Stem of its file.
        svg: The image.
    """

    title: str
    name: str
    svg: str

    @property
    def data(self) -> str:
        """A URI that holds the image, which can neither run scripts nor clash with the page's ids."""
        return Markup("data:image/svg+xml;base64,") + base64.b64encode(self.svg.encode()).decode()


def write_pages(folder: Path, package: str, context: Mapping[str, Any]) -> Path:
    """Write `report.html`, `report.md` and `plots/*.svg`; returns the HTML's path.

    Args:
        folder: Where to.
        package: Whose templates `report.html.j2` and `report.md.j2` are used; those of this package can be
            extended and imported.
        context: What the templates show; its "pictures" are those that are written.
    """
    for picture in context["pictures"]:
        write_text(folder / "plots" / f"{picture.name}.svg", picture.svg)
    for name, is_html in (("report.html", True), ("report.md", False)):
        environment = Environment(
            loader=ChoiceLoader([PackageLoader(package), PackageLoader("prm.report")]),
            autoescape=is_html,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["cell"] = markdown_cell
        write_text(folder / name, environment.get_template(f"{name}.j2").render(**context))
    return folder / "report.html"


def as_text(table: Table) -> str:
    """The table for a terminal, which obeys nothing in it."""
    cells = [[printable(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([printable(table.title), *(f"  {line}" for line in lines)]) + "\n"


def number(value: Any) -> str:
    """A number for a table's cell, a dash for None, anything else as it is."""
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.3f}"


def markdown_cell(text: object) -> str:
    """Text that stays in its cell, and text, whatever it is."""
    return escape(printable(str(text)), quote=False).replace("|", "\\|")


def heat_map(
    lines: Iterable[str], scores: Iterable[float], labels: Iterable[float | None]
) -> list[dict[str, Any]]:
    """A program's lines as templates show them: text, score, label and background."""
    return [
        {"text": printable(text), "score": float(score), "label": label, "color": score_color(score)}
        for text, score, label in zip(lines, scores, labels, strict=True)
    ]


def score_color(score: float) -> str:
    """Background of a line scored in [-1, 1]: red over white to green."""
    strength = min(1.0, abs(score))
    red, green, blue = (34, 160, 80) if score >= 0 else (215, 60, 45)
    return f"rgba({red}, {green}, {blue}, {0.08 + 0.42 * strength:.2f})"
