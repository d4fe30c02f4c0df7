"""The labelers by name."""

import inspect
from typing import Any

from codegym.judge import Judge
from codegym.table import resolve
from prm.alignment import Decoder
from prm.completion import Completer
from prm.labeling import Labeler

LABELERS = {
    "binary_search": "prm.labeling:BinarySearchLabeler",
    "full_scan": "prm.full_scan:FullScanLabeler",
    "reference": "prm.reference:ReferenceLabeler",
    "mutation": "prm.mutation:MutationLabeler",
}
"""Ways to label lines. A constructor names those of completer, judge and tokenizer that it needs."""


def make_labeler(
    name: str,
    *,
    judge: Judge | None = None,
    completer: Completer | None = None,
    tokenizer: Decoder | None = None,
    **options: Any,
) -> Labeler:
    """Build a labeler by name.

    Args:
        name: An entry of `LABELERS`.
        judge: Judges programs, for labelers that need it.
        completer: Completes prefixes, for labelers that need it.
        tokenizer: The completer's and the programs' common tokenizer, for labelers that need it.
        options: What the labeler's constructor documents.

    Raises:
        UnknownNameError: If `name` is not in `LABELERS`.
        TypeError: If the labeler has no such option.
        ValueError: If a part that the labeler needs is not given; names it.
    """
    labeler_class = resolve(LABELERS, name, "labeler")
    parts = {"judge": judge, "completer": completer, "tokenizer": tokenizer}
    needed = {part: parts[part] for part in needs(name)}
    if missing := [part for part, value in needed.items() if value is None]:
        raise ValueError(f"labeler {name!r} needs a {' and a '.join(missing)}")
    labeler: Labeler = labeler_class(**needed, **options)
    return labeler


def needs(name: str) -> list[str]:
    """Which of completer, judge and tokenizer a labeler needs.

    Raises:
        UnknownNameError: If `name` is not in `LABELERS`.
    """
    parameters = inspect.signature(resolve(LABELERS, name, "labeler")).parameters
    return [part for part in ("completer", "judge", "tokenizer") if part in parameters]


def options_of(name: str) -> list[str]:
    """The options that a labeler's constructor takes beside its parts.

    Raises:
        UnknownNameError: If `name` is not in `LABELERS`.
    """
    parameters = inspect.signature(resolve(LABELERS, name, "labeler")).parameters
    return [option for option in parameters if option not in needs(name)]
