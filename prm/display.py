"""Labels as text for people: beside their tokens, and in sum."""

from collections.abc import Mapping
from typing import Any

from prm.alignment import Decoder, line_of_token, newlines_per_token
from prm.program import LabeledProgram


def show_labels(labeled: LabeledProgram, tokenizer: Decoder) -> str:
    """A program line by line: number, label, passes of the probed prefix that ends there, and its tokens.

    Tokens are quoted, so that hostile text stays on its line and sends nothing to a terminal; a bar stands
    between two of them. A token that covers a newline belongs to the line it ends.
    """
    program = labeled.program
    written = program.token_ids[:-1] if program.finished else program.token_ids
    tokens: list[list[str]] = [[] for _ in labeled.labels]
    for token, line in zip(
        written, line_of_token(written, newlines_per_token(tokenizer)).tolist(), strict=True
    ):
        text = tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        # what follows the last line's newline is no line's, as indentation is that nothing follows
        if line < len(tokens):
            tokens[line].append(ascii(text)[1:-1])
    rows = [
        f"{number:>4}  {label:>+5.2f}  {_probe(labeled, number):>7}  {'|'.join(pieces)}\n"
        for number, (label, pieces) in enumerate(zip(labeled.labels, tokens, strict=True), start=1)
    ]
    completer = f" by {labeled.completer}" if labeled.completer else ""
    return (
        f"{program.program_id}  {program.verdict}  {labeled.source}{completer}\n"
        f"{'line':>4}  {'label':>5}  {'passes':>7}  tokens\n{''.join(rows)}"
    )


def show_statistics(statistics: Mapping[str, Mapping[str, Any]]) -> str:
    """Label statistics of every selection strategy, where labels flip, and the cost, as text for people."""
    columns = ("programs", "correct", "revised", "wrong", "lines", "positive", "negative", "neutral")
    rows = [["strategy", *columns, "lines/program"]]
    for strategy, values in statistics.items():
        cells = [f"{values[name]:.3f}" if name in columns[5:] else str(values[name]) for name in columns]
        rows.append([strategy, *cells, f"{values['lines_per_program']['mean']:.1f}"])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    full = statistics["full"]
    flips = " ".join(map(str, full["first_wrong_position"]))
    cost = ", ".join(f"{amount:,.6g} {what}" for what, amount in full["cost"].items())
    lines += [f"first wrong line, by tenths of the program: {flips}", f"cost: {cost}"]
    return "\n".join(lines) + "\n"


def _probe(labeled: LabeledProgram, n_lines: int) -> str:
    if n_lines not in labeled.probes:
        return ""
    passed, tried = labeled.probes[n_lines]
    return f"{passed}/{tried}"
