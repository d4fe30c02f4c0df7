"""Which labelled programs a process reward model is trained on, and what their labels look like."""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from statistics import fmean, median
from typing import Any

from codegym.table import check_name
from prm.program import LabeledProgram

N_BINS = 10


class SampleClass(StrEnum):
    """PSGPO's classes of sampled programs (arXiv:2410.17621)."""

    CORRECT = "correct"
    REVISED = "revised"
    WRONG = "wrong"


STRATEGIES = {
    "full": "every program",
    "revised_only": "programs that pass, and those that fail after some right line",
    "remove_hard": "programs of tasks that are not hard",
    "medium_only": "programs of tasks that are neither hard nor easy",
}
"""Ways to select programs."""


@dataclass(frozen=True, kw_only=True)
class SelectionConfig:
    """Which labelled programs to train on. The paper gives no thresholds; these are ours."""

    strategy: str = "full"  # one of STRATEGIES
    hard_pass_rate: float = 0.0  # a task is hard if at most this share of its programs pass
    easy_pass_rate: float = 1.0  # a task is easy if at least this share of its programs pass

    def __post_init__(self) -> None:
        check_name(self.strategy, STRATEGIES, "selection strategy")
        if not 0 <= self.hard_pass_rate < self.easy_pass_rate <= 1:
            raise ValueError(
                "0 <= hard_pass_rate < easy_pass_rate <= 1 must hold, got "
                f"{self.hard_pass_rate} and {self.easy_pass_rate}"
            )


def classify(labeled: LabeledProgram) -> SampleClass:
    """Correct if the program passes, revised if it fails after some right line, else wrong."""
    if labeled.program.passed:
        return SampleClass.CORRECT
    if any(label > 0 for label in labeled.labels):
        return SampleClass.REVISED
    return SampleClass.WRONG


def pass_rates(programs: Sequence[LabeledProgram]) -> dict[str, float]:
    """Share of each task's programs that pass."""
    passed = defaultdict(list)
    for labeled in programs:
        passed[labeled.program.task_id].append(labeled.program.passed)
    return {task_id: fmean(flags) for task_id, flags in passed.items()}


def select(
    programs: Sequence[LabeledProgram],
    selection: SelectionConfig | Callable[[LabeledProgram], bool] | None = None,
) -> list[LabeledProgram]:
    """The programs to train on, in order.

    Args:
        programs: Labelled programs; how hard a task is, is judged by them.
        selection: A strategy, or a function that says of each program whether to keep it; None keeps all.
    """
    if selection is None or isinstance(selection, SelectionConfig):
        selection = _strategy(selection or SelectionConfig(), pass_rates(programs))
    return [labeled for labeled in programs if selection(labeled)]


def _strategy(config: SelectionConfig, rates: Mapping[str, float]) -> Callable[[LabeledProgram], bool]:
    def keep(labeled: LabeledProgram) -> bool:
        rate = rates[labeled.program.task_id]
        if config.strategy == "revised_only":
            return classify(labeled) is not SampleClass.WRONG
        if config.strategy == "remove_hard":
            return rate > config.hard_pass_rate
        if config.strategy == "medium_only":
            return config.hard_pass_rate < rate < config.easy_pass_rate
        return True

    return keep


def strategy_statistics(
    programs: Sequence[LabeledProgram], config: SelectionConfig | None = None
) -> dict[str, dict[str, Any]]:
    """`label_statistics` of what each strategy would keep; thresholds are those of `config`."""
    config = config or SelectionConfig()
    return {
        strategy: label_statistics(select(programs, replace(config, strategy=strategy)))
        for strategy in STRATEGIES
    }


def label_statistics(programs: Sequence[LabeledProgram]) -> dict[str, Any]:
    """What a set of labels looks like, as JSON.

    Returns:
        `programs` and how many are `correct`, `revised` and `wrong`; `lines` and the shares of them that are
        `positive`, `negative` and `neutral`; `lines_per_program` (mean, median, most); `first_wrong_line`:
        where the labels of failing programs turn negative, as counts by line number; `first_wrong_position`:
        the same as counts in tenths of the program; `no_wrong_line`: failing programs without such a line;
        `sources`: programs by who labelled them; `cost`: the sum of the programs' costs and seconds.
    """
    labels = [label for labeled in programs for label in labeled.labels]
    lengths = [len(labeled.labels) for labeled in programs]
    failing = [labeled for labeled in programs if not labeled.program.passed]
    turns = [
        (turn, len(labeled.labels))
        for labeled in failing
        if (turn := _first_wrong(labeled.labels)) is not None
    ]
    classes = Counter(classify(labeled) for labeled in programs)
    positions = Counter(min(N_BINS * turn // length, N_BINS - 1) for turn, length in turns)
    cost: Counter[str] = Counter()
    for labeled in programs:
        cost.update(labeled.cost)
    return {
        "programs": len(programs),
        **{str(kind): classes[kind] for kind in SampleClass},
        "lines": len(labels),
        "positive": _share(sum(label > 0 for label in labels), len(labels)),
        "negative": _share(sum(label < 0 for label in labels), len(labels)),
        "neutral": _share(sum(label == 0 for label in labels), len(labels)),
        "lines_per_program": {
            "mean": fmean(lengths) if lengths else 0.0,
            "median": float(median(lengths)) if lengths else 0.0,
            "most": max(lengths, default=0),
        },
        "first_wrong_line": {
            str(line): n for line, n in sorted(Counter(turn + 1 for turn, _ in turns).items())
        },
        "first_wrong_position": [positions[bin_] for bin_ in range(N_BINS)],
        "no_wrong_line": len(failing) - len(turns),
        "sources": dict(Counter(labeled.source for labeled in programs)),
        "cost": {**cost, "seconds": sum(labeled.seconds for labeled in programs)},
    }


def _first_wrong(labels: Sequence[float]) -> int | None:
    return next((index for index, label in enumerate(labels) if label < 0), None)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
