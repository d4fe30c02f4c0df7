"""Steps per second of `CodeGen-v0`: N single environments stepped in turn against one vector environment.

Both write the same programs line by line with the same judge (the local one, without its cache, so that
every program is really run). The share outside the judge is what the environment itself costs. The machine
may be busy with other work, so the two sides take turns and medians count.
"""

import statistics
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import gymnasium as gym
import numpy as np
import tyro

from benchmarks.markdown import table as markdown_table
from codegym import END_OF_PROGRAM, Episode, Judge, Judgement, Task, load_tasks, make_judge
from codegym.judge import Job
from codegym.storage import append_rows, write_text

STEPS = {"smoke": 10, "small": 60, "full": 300}
REPEATS = {"smoke": 1, "small": 5, "full": 9}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the environment's speed."""

    scale: Literal["smoke", "small", "full"] = "small"  # steps and repeats
    num_envs: int = 64  # single environments, and places of the vector environment
    workers: int = 2  # of the judge
    out: Path = Path("runs/benchmarks/env_speed")  # where rows and report go


@dataclass(frozen=True, kw_only=True)
class Row:
    """One side: medians over the repeats."""

    what: str
    num_envs: int
    steps_per_s: float
    share_outside_judge: float
    us_per_step_outside_judge: float


class TimedJudge:
    """Passes jobs on and adds up the time that takes."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.seconds = 0.0

    def judge(self, jobs: Sequence[Job]) -> list[Judgement]:
        """Judge the jobs, on the clock."""
        start = time.perf_counter()
        try:
            return self._judge.judge(jobs)
        finally:
            self.seconds += time.perf_counter() - start

    def close(self) -> None:
        """Close the judge."""
        self._judge.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class Timing:
    """One measurement: environment steps, and seconds in all and in the judge."""

    steps: int
    seconds: float
    judge_seconds: float


def main() -> None:
    """Run the benchmark and print its table."""
    options = tyro.cli(Options, prog="python -m benchmarks.env_speed")
    with TimedJudge(make_judge("local", workers=options.workers, cache=False)) as judge:
        rows = measure(options, judge)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(options.out / "rows.jsonl", map(asdict, rows))
    text = table(rows)
    write_text(options.out / "report.md", text)
    print(text)


def measure(options: Options, judge: TimedJudge) -> list[Row]:
    """Both sides, in turns; the first round of each warms up."""
    tasks = list(load_tasks("stepwise", limit=options.num_envs, horizons=(2, 12)))
    n_steps = STEPS[options.scale]
    timings: dict[str, list[Timing]] = {"single environments": [], "vector environment": []}
    for _ in range(REPEATS[options.scale] + 1):
        timings["single environments"].append(single(tasks, judge, options.num_envs, n_steps))
        timings["vector environment"].append(vector(tasks, judge, options.num_envs, n_steps))
    return [row(what, options.num_envs, found[1:]) for what, found in timings.items()]


def single(tasks: Sequence[Task], judge: TimedJudge, num_envs: int, n_steps: int) -> Timing:
    """Each environment steps once per round; one that has ended is reset in its turn."""
    envs = [gym.make("CodeGen-v0", tasks=tasks, judge=judge) for _ in range(num_envs)]
    for seed, env in enumerate(envs):
        env.reset(seed=seed)
    before, start, steps = judge.seconds, time.perf_counter(), 0
    over = [False] * num_envs
    for _ in range(n_steps):
        for index, env in enumerate(envs):
            if over[index]:
                env.reset()
                over[index] = False
            else:
                _, _, terminated, truncated, _ = env.step(next_line(env.unwrapped.episode))
                over[index] = terminated or truncated
                steps += 1
    return Timing(steps=steps, seconds=time.perf_counter() - start, judge_seconds=judge.seconds - before)


def vector(tasks: Sequence[Task], judge: TimedJudge, num_envs: int, n_steps: int) -> Timing:
    """The same by `make_vec`, which resets an ended environment on the next step."""
    env = gym.make_vec("CodeGen-v0", num_envs, tasks=tasks, judge=judge)
    env.reset(seed=0)
    before, start, steps = judge.seconds, time.perf_counter(), 0
    over = np.zeros(num_envs, dtype=bool)
    for _ in range(n_steps):
        steps += int((~over).sum())
        _, _, terminated, truncated, _ = env.step([next_line(e) for e in env.unwrapped.episodes])
        over = terminated | truncated
    return Timing(steps=steps, seconds=time.perf_counter() - start, judge_seconds=judge.seconds - before)


def next_line(episode: Episode) -> str:
    """The reference's next line, or the end of the program."""
    lines = (episode.task.reference or "").split("\n")[:-1]
    return lines[len(episode.lines)] if len(episode.lines) < len(lines) else END_OF_PROGRAM


def row(what: str, num_envs: int, timings: Sequence[Timing]) -> Row:
    """Medians of the measurements."""
    outside = [timing.seconds - timing.judge_seconds for timing in timings]
    return Row(
        what=what,
        num_envs=num_envs,
        steps_per_s=statistics.median(t.steps / t.seconds for t in timings),
        share_outside_judge=statistics.median(o / t.seconds for o, t in zip(outside, timings, strict=True)),
        us_per_step_outside_judge=statistics.median(
            1e6 * o / t.steps for o, t in zip(outside, timings, strict=True)
        ),
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    names = ("what", "environments", "steps/s", "share outside the judge", "µs per step outside the judge")
    return markdown_table(
        names,
        [
            (r.what, r.num_envs, f"{r.steps_per_s:,.0f}", f"{r.share_outside_judge:.1%}",
             f"{r.us_per_step_outside_judge:.0f}")
            for r in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
