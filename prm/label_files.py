"""Labels from files that a user names: their formats, and whether a model can read their tokens."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from codegym.storage import read_rows
from prm.dataset import read_parquet, read_stepwise
from prm.labeling import read_labels
from prm.program import LabeledProgram, SampledProgram

PARQUET = ".parquet"
N_DECODED = 20
"""Programs that are decoded to find out whether a tokenizer wrote them."""


def read_label_files(paths: Sequence[Path], tokenizer: Any) -> list[LabeledProgram]:
    """Labelled programs of several files, one after the other.

    A file is Parquet by its ending, otherwise JSON Lines; rows of `prompt`, `completions` and `labels` are
    tokenised with `tokenizer`, others have their tokens.

    Raises:
        FileNotFoundError: If a file is not there.
        MissingExtraError: If pyarrow is needed and not installed.
        ValueError: If a row is not a labelled program; names file, row and field. Or if a file has none.
    """
    labeled: list[LabeledProgram] = []
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"no file of labels at {path}")
        found = _read(path, tokenizer)
        if not found:
            raise ValueError(f"{path} holds no labelled program")
        labeled += found
    return labeled


def check_tokens(programs: Sequence[SampledProgram], tokenizer: Any) -> None:
    """Check that `tokenizer` wrote the programs: a model of another one would read nonsense.

    Text that its tokens do not spell exactly may come from a tokenizer that changes spaces; but if that holds
    for every program looked at, the tokens are another tokenizer's.

    Raises:
        ValueError: If a token is not in the vocabulary, or no program is what its tokens say.
    """
    for program in programs:
        ids = (*program.prompt_ids, *program.token_ids)
        if ids and not 0 <= min(ids) <= max(ids) < len(tokenizer):
            raise ValueError(
                f"program {program.program_id!r} has token {max(ids)}, but the model's tokenizer has "
                f"{len(tokenizer)} tokens: it was written with another tokenizer"
            )
    looked_at = list(islice((program for program in programs if program.completion), N_DECODED))
    spelled = [_spelled(program.written_ids, tokenizer) for program in looked_at]
    if looked_at and all(
        text != program.completion for text, program in zip(spelled, looked_at, strict=True)
    ):
        raise ValueError(
            f"program {looked_at[0].program_id!r} is {looked_at[0].completion!r:.60}, but its tokens spell "
            f"{spelled[0]!r:.60} to the model's tokenizer: it was written with another tokenizer"
        )


def _read(path: Path, tokenizer: Any) -> list[LabeledProgram]:
    if path.suffix == PARQUET:
        return read_parquet(path)
    first = next(read_rows(path), {})
    return read_stepwise(path, tokenizer) if "completions" in first else read_labels(path)


def _spelled(token_ids: Sequence[int], tokenizer: Any) -> str:
    text: str = tokenizer.decode(
        list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text
