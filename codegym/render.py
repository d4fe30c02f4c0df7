"""Pictures of an episode: the program line by line, what each action was paid, and the verdict.

A program is hostile text: whatever a terminal would obey or a reader could not see is spelled out, and in
HTML every character is escaped.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from codegym.episode import Episode

FRAME_WIDTH, FRAME_HEIGHT = 960, 540
"""Pixels of an `rgb_array`, the same for every frame of a video; even, as video codecs want them."""

_FONT_SIZE, _LINE_HEIGHT, _MARGIN = 14, 18, 12
_PAPER, _INK, _FAINT = (255, 255, 255), (33, 37, 41), (134, 142, 150)
_GOOD, _BAD = (64, 192, 87), (250, 82, 82)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a picture."""

    text: str  # printable
    number: int | None = None  # of a line of the program, from 1; None for prompt and verdict
    reward: float | None = None  # of the action that wrote it, if it was paid


Renderer: TypeAlias = Callable[[Episode, Sequence[float]], Any]


def printable(line: str) -> str:
    """The line with each control, format and unassigned character as its escape, tabs excepted."""
    return "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)


def rows(episode: Episode, rewards: Sequence[float] = ()) -> list[Row]:
    """The prompt, the lines, and at the end the verdict.

    Args:
        episode: What to show.
        rewards: One per action, or fewer where the newest are not known yet.
    """
    prompt = episode.task.prompt.removesuffix("\n").split("\n")
    shown = [Row(text=f"# {printable(episode.task.task_id)}"), *(Row(text=printable(p)) for p in prompt)]
    paid = [*rewards, *([None] * len(episode.lines))]
    for number, (line, reward) in enumerate(zip(episode.lines, paid, strict=False), start=1):
        shown.append(Row(text=printable(line), number=number, reward=reward))
    if episode.terminated:
        shown.append(Row(text="# end of program", reward=paid[len(episode.lines)] if rewards else None))
    if episode.judgement is not None:
        result = episode.judgement
        earned = f", return {sum(rewards):z.3f}" if rewards else ""
        shown.append(
            Row(text=f"# {result.verdict}: {result.tests_passed} of {result.tests_total} tests{earned}")
        )
    return shown


def draw_ansi(episode: Episode, rewards: Sequence[float] = ()) -> str:
    """Plain text; each line of the program after its number and reward."""
    shown = []
    for row in rows(episode, rewards):
        number = "" if row.number is None else str(row.number)
        reward = "" if row.reward is None else f"{row.reward:+z.3f}"
        margin = f"{number:>4} {reward:>7} | " if number or reward else ""
        shown.append(f"{margin}{row.text}\n")
    return "".join(shown)


def draw_html(episode: Episode, rewards: Sequence[float] = ()) -> str:
    """A whole page without scripts; a line is tinted by its reward, relative to the largest one."""
    largest = max(map(abs, rewards), default=0.0)
    body = []
    for row in rows(episode, rewards):
        red, green, blue = _tint(row.reward, largest)
        number = "" if row.number is None else str(row.number)
        reward = "" if row.reward is None else f"{row.reward:+z.3f}"
        body.append(
            f'<tr style="background:rgb({red},{green},{blue})"><td>{number}</td><td>{reward}</td>'
            f"<td><pre>{escape(row.text)}</pre></td></tr>\n"
        )
    title = escape(printable(episode.task.task_id))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>\n'
        "table{border-collapse:collapse;font:14px monospace}td{padding:0 8px;text-align:right;color:#868e96}"
        "\npre{margin:0;text-align:left;color:#212529}\n</style></head><body><table>\n"
        f"{''.join(body)}</table></body></html>\n"
    )


def draw_rgb_array(episode: Episode, rewards: Sequence[float] = ()) -> NDArray[np.uint8]:
    """A frame of fixed size with the newest lines; long lines are cut. [FRAME_HEIGHT, FRAME_WIDTH, 3]."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (FRAME_WIDTH, FRAME_HEIGHT), _PAPER)
    canvas, font = ImageDraw.Draw(image), _font()
    fitting = (FRAME_HEIGHT - 2 * _MARGIN) // _LINE_HEIGHT
    largest = max(map(abs, rewards), default=0.0)
    for index, row in enumerate(rows(episode, rewards)[-fitting:]):
        top = _MARGIN + index * _LINE_HEIGHT
        number = "" if row.number is None else str(row.number)
        reward = "" if row.reward is None else f"{row.reward:+z.3f}"
        tint = _tint(row.reward, largest)
        canvas.rectangle((0, top - 1, FRAME_WIDTH, top + _LINE_HEIGHT - 2), fill=tint)
        canvas.text((_MARGIN, top), f"{number:>4} {reward:>7}", font=font, fill=_FAINT)
        # The frame shows some hundred columns; the rest of a long line would only cost time.
        text = row.text.expandtabs(4)[:200].encode(errors="backslashreplace").decode()
        canvas.text((_MARGIN + 120, top), text, font=font, fill=_INK)
    return np.asarray(image, dtype=np.uint8).copy()


RENDERERS: dict[str, Renderer] = {"ansi": draw_ansi, "html": draw_html, "rgb_array": draw_rgb_array}
"""What `render()` returns in each render mode."""


def _tint(reward: float | None, largest: float) -> tuple[int, int, int]:
    """White for no reward, up to a pale green or red for the largest one."""
    if not reward or not largest:
        return _PAPER
    share = 0.5 * abs(reward) / largest
    red, green, blue = (
        round(paper + share * (color - paper))
        for paper, color in zip(_PAPER, _GOOD if reward > 0 else _BAD, strict=True)
    )
    return red, green, blue


@cache
def _font() -> Any:
    """A monospaced font with wide coverage; matplotlib brings one along as a file."""
    from PIL import ImageFont

    found = find_spec("matplotlib")
    if found is None or found.origin is None:
        return ImageFont.load_default(_FONT_SIZE)
    return ImageFont.truetype(
        str(Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSansMono.ttf"), _FONT_SIZE
    )
