"""Examines a task set and a reward scheme before anyone trains on them.

| check | finds | severity |
|---|---|---|
| tests | tests that are no plain data or beyond the codec's bounds, without running them | error |
| reference | reference solutions that fail, whatever the repetition | error |
| trivial | an empty program, a stub or one that only raises, and passes | error |
| flaky | reference solutions whose results differ between repetitions | error |
| head_room | reference solutions that use more than half of the CPU limit | warning |
| duplicates | equal prompts, tests or references within a split; ids that occur twice | warning |
| leaks | the same between splits | error |
| benchmarks | the same between what is trained on and the test tasks of a benchmark | error |
| probes | hack probes that raise what a failing program earns; above a passing one | warning; error |

A check of your own is a function from an `Examination` to findings, and one line in `CHECKS`.
"""

from collections.abc import Callable, Mapping, Sequence

from codegym.doctor.diagnosis import Diagnosis, Finding, Severity
from codegym.doctor.examination import Examination, Progress, Watch
from codegym.judge import Judge
from codegym.rewards import RewardScheme
from codegym.table import check_name, resolve
from codegym.task import Task

__all__ = ["CHECKS", "Diagnosis", "Examination", "Finding", "Severity", "examine"]

CHECKS = {
    "tests": "codegym.doctor.running:tests_can_run",
    "reference": "codegym.doctor.running:references_pass",
    "trivial": "codegym.doctor.running:trivial_programs_fail",
    "flaky": "codegym.doctor.running:results_repeat",
    "head_room": "codegym.doctor.running:references_have_time",
    "duplicates": "codegym.doctor.overlap:no_duplicates",
    "leaks": "codegym.doctor.overlap:no_leaks",
    "benchmarks": "codegym.doctor.overlap:no_benchmark_tasks",
    "probes": "codegym.doctor.paying:probes_gain_nothing",
}


def examine(
    tasks: Sequence[Task],
    *,
    judge: Judge,
    scheme: RewardScheme | None = None,
    benchmarks: Mapping[str, Sequence[Task]] | None = None,
    checks: Sequence[str] = tuple(CHECKS),
    time_limit_s: float = 1.0,
    repeats: int = 5,
    n_probed: int = 64,
    progress: Progress | None = None,
) -> Diagnosis:
    """Run checks over a task set; programs of all tasks are judged in one batch per check.

    Args:
        tasks: The tasks, of any source and split.
        judge: Judges the programs.
        scheme: The reward scheme whose hack probes are paid; without one there are none.
        benchmarks: Tasks by name of benchmark, which must not be trained on.
        checks: Names in `CHECKS`, in the order of the diagnosis.
        time_limit_s: The judge's limit on CPU seconds per program.
        repeats: How often each reference is judged.
        n_probed: On how many tasks, evenly spread, hack probes are tried.
        progress: Called as (checks done, checks in all, {"programs": programs judged so far}).

    Raises:
        UnknownNameError: If a check is not in `CHECKS`.
        TaskError: If there are no tasks, or the scheme cannot pay one of them.
        SandboxError: If the judge itself failed.
        ValueError: If an option is out of range.
    """
    for name in checks:
        check_name(name, CHECKS, "check")
    names = tuple(dict.fromkeys(checks))
    examination = Examination(
        tasks=tuple(tasks),
        judge=judge,
        scheme=scheme,
        benchmarks=benchmarks or {},
        time_limit_s=time_limit_s,
        repeats=repeats,
        n_probed=n_probed,
        watch=Watch(total=len(names), progress=progress),
    )
    findings: dict[str, tuple[Finding, ...]] = {}
    for name in names:
        check: Callable[[Examination], Sequence[Finding]] = resolve(CHECKS, name, "check")
        findings[name] = _worst_first(check(examination))
        examination.watch.done += 1
        examination.watch.tell()
    hacks = examination.hacks if "probes" in findings else None
    return Diagnosis(
        n_tasks=len(examination.tasks),
        n_references=sum(task.reference is not None for task in tasks),
        findings=findings,
        gains=hacks.gains if hacks else {},
    )


def _worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors before warnings; otherwise in the order of the check, which puts its worst first."""
    return tuple(sorted(findings, key=lambda finding: finding.severity is not Severity.ERROR))
