"""Programs worth a look: what the reward model finds, and where it is most wrong."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from codegym.render import printable
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram
from prm.report.page import heat_map


class _Judged(NamedTuple):
    """A program with the scores of its lines that are right or wrong, in order."""

    item: LabeledProgram
    scores: NDArray[np.float64]
    right: NDArray[np.float64]
    wrong: NDArray[np.float64]

    @property
    def found(self) -> bool:
        """Whether the first line scored below 0 is the first wrong one."""
        labels = np.array(self.item.labels)
        rejected = np.flatnonzero((self.scores < 0) & (labels != 0))
        wrong = np.flatnonzero(labels < 0)
        return bool(len(rejected) and len(wrong) and rejected[0] == wrong[0])


def choose_samples(model: ProcessRewardModel, labeled: Sequence[LabeledProgram]) -> list[dict[str, Any]]:
    """Up to four programs as the report's templates show them, with a score and a label per line.

    The longest program without a wrong line; the longest whose first wrong line is found; the one with the
    highest score on a wrong line; and the one with the lowest on a right line. Each program is shown once.
    """
    scores = model.score_programs([item.program for item in labeled])
    judged = []
    for item, lines in zip(labeled, scores, strict=True):
        labels = np.array(item.labels)
        judged.append(_Judged(item, lines, lines[labels > 0], lines[labels < 0]))
    wanted = {
        "No wrong line": [
            (len(one.item.labels), one) for one in judged if len(one.right) and not len(one.wrong)
        ],
        "First wrong line found": [(len(one.item.labels), one) for one in judged if one.found],
        "Highest score on a wrong line": [(one.wrong.max(), one) for one in judged if len(one.wrong)],
        "Lowest score on a right line": [(-one.right.min(), one) for one in judged if len(one.right)],
    }
    chosen: dict[int, tuple[str, _Judged]] = {}
    for title, candidates in wanted.items():
        fresh = [(key, one) for key, one in candidates if id(one.item) not in chosen]
        if fresh:
            _, best = max(fresh, key=lambda candidate: candidate[0])
            chosen[id(best.item)] = (title, best)
    return [_shown(model, title, one) for title, one in chosen.values()]


def _shown(model: ProcessRewardModel, title: str, one: _Judged) -> dict[str, Any]:
    program = one.item.program
    prompt = model.tokenizer.decode(
        list(program.prompt_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return {
        "title": title,
        "task_id": program.task_id,
        "verdict": str(program.verdict),
        "prompt": [printable(line) for line in prompt.removesuffix("\n").split("\n")],
        "lines": heat_map(program.lines, one.scores, one.item.labels),
    }
