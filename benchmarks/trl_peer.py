"""TRL's GRPOTrainer and RLOOTrainer against our agents: same policy, tasks, judge and seconds of training.

Every arm starts from the SFT policy of a main job's run folder and trains on the same stepwise tasks, for
the same wall seconds, in a process of its own, one after the other. Loading, saving and evaluating are
outside of the clock; the kept policies are evaluated afterwards, all by one sampler, on held-out tasks. TRL's
learning rates are chosen by a short sweep on validation tasks, ours are the defaults. The verdict alone
teaches only where the starting policy passes now and then, hence tasks of 2 to 4 steps; `--horizons 9 12`
shows what the dense reward is for. Killed, the same command goes on; further arms and seeds may join a
finished folder.

TRL is not a dependency: `--trl-python` names the interpreter of an environment that has it.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from agents.evaluation import EvaluationRow, evaluate_to_file, read_evaluation
from agents.psgpo_config import PSGPOConfig
from agents.run_folder import RunFolder, open_run
from agents.samplers import make_sampler
from benchmarks.peer.arm import ARMS, ASSIGNMENT, PEERS, RESULT, Assignment
from benchmarks.peer.clock import CHECKPOINTS, CURVE, MARK
from benchmarks.peer.report import preparation, read_json, report, write_figures
from codegym.judge import Judge, make_judge
from codegym.storage import append_rows, read_rows, write_json, write_text
from codegym.table import check_name
from codegym.task import Task
from codegym.tasks import load_tasks

CHECKOUT = Path(__file__).parents[1]
EVALUATION = "evaluation.jsonl"
MISSING = """{python} cannot run TRL's arms:
  {error}
Make an environment that can, and name its interpreter:
  python -m venv ~/trl && ~/trl/bin/pip install -e {checkout} 'trl==1.16.*'
  python -m benchmarks.trl_peer --trl-python ~/trl/bin/python
or leave TRL out: --arms ppo psgpo grpo rloo"""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How long the arms train, and how closely they are looked at."""

    seconds: float  # each arm's budget
    checkpoints: int  # policies evaluated per arm
    held_out: int  # tasks that each of them is evaluated on
    sweep_seconds: float  # budget per learning rate of the sweep; 0 for no sweep


SCALES = {
    "smoke": Scale(seconds=12, checkpoints=2, held_out=64, sweep_seconds=0),
    "small": Scale(seconds=120, checkpoints=6, held_out=256, sweep_seconds=30),
    "full": Scale(seconds=600, checkpoints=10, held_out=512, sweep_seconds=120),
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare our agents with TRL's trainers for equal seconds of training."""

    scale: Literal["smoke", "small", "full"] = "small"  # seconds, checkpoints, held-out tasks and sweep
    run: Path = Path("runs/psgpo")  # of the main job: sft/ is where all arms start, prm/ is for psgpo
    arms: tuple[str, ...] = tuple(ARMS)  # whom to compare
    horizons: tuple[int, int] = (2, 4)  # steps of training and held-out tasks
    n_tasks: int = 640  # training tasks
    reward: Literal["pass_fail", "pass_rate"] = "pass_fail"  # what the verdict pays every arm but psgpo
    seconds: float | None = None  # budget per arm; None: the scale's
    seeds: tuple[int, ...] = (0,)  # every arm trains once with each
    tuned: tuple[str, ...] = PEERS  # arms whose learning rate is chosen by a sweep; the others have a default
    learning_rates: tuple[float, ...] = (3e-4, 7e-4, 1.5e-3)  # what the sweep tries
    trl_python: Path = Path(sys.executable)  # interpreter that has trl and codegym; every arm runs in it
    threads: int = os.cpu_count() or 1  # of torch, in every arm
    out: Path = Path("runs/benchmarks/trl_peer")  # where everything goes

    def __post_init__(self) -> None:
        for arm in (*self.arms, *self.tuned):
            check_name(arm, ARMS, "arm")
        for name in ("arms", "seeds", "learning_rates"):
            if not getattr(self, name):
                raise ValueError(f"{name} must not be empty")

    def assignment(self, arm: str, *, seed: int, learning_rate: float | None) -> Assignment:
        """What an arm of the comparison is given."""
        scale = SCALES[self.scale]
        return Assignment(
            arm=arm,
            run=str(self.run.resolve()),
            horizons=self.horizons,
            n_tasks=self.n_tasks,
            seconds=scale.seconds if self.seconds is None else self.seconds,
            n_checkpoints=scale.checkpoints,
            reward=self.reward,
            learning_rate=learning_rate,
            seed=seed,
            threads=self.threads,
        )

    def settings(self) -> dict[str, Any]:
        """What every unit of a folder must share; arms and seeds may join later."""
        changing = ("arms", "seeds", "trl_python", "out")
        shared = {name: value for name, value in asdict(self).items() if name not in changing}
        return shared | {"run": str(self.run.resolve())}


def main() -> None:
    """Run the benchmark and print its tables."""
    options = tyro.cli(Options, prog="python -m benchmarks.trl_peer")
    check_inputs(options)
    disable_progress_bar()
    torch.set_num_threads(options.threads)
    run = open_run(options.out, options.settings())
    with run.locked(), make_judge("local") as judge:
        rows = list(measure(options, run, judge))
    (options.out / "rows.jsonl").unlink(missing_ok=True)
    append_rows(options.out / "rows.jsonl", rows)
    write_figures(rows, options.out)
    text = report(
        rows, options.assignment(options.arms[0], seed=0, learning_rate=None), preparation(options.run)
    )
    write_text(options.out / "report.md", text)
    print(text)


def interpreter(options: Options) -> str:
    """The interpreter's absolute path; what it links to would be outside of its environment."""
    return str(options.trl_python.expanduser().absolute())


def check_inputs(options: Options) -> None:
    """Stop before anything is run if a file or a package that some arm needs is not there.

    Raises:
        SystemExit: Says what is missing and how to get it.
    """
    for part in ("sft", *(["prm"] if "psgpo" in options.arms else [])):
        if not (options.run / part).is_dir():
            raise SystemExit(
                f"--run {options.run} has no folder {part}: make one with `codegym psgpo --out {options.run}`"
            )
    if any(arm in PEERS for arm in options.arms):
        command = [interpreter(options), "-c", "import trl, benchmarks.peer.arm"]
        tried = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
        if tried.returncode:
            error = (tried.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise SystemExit(MISSING.format(python=options.trl_python, error=error, checkout=CHECKOUT))


def measure(options: Options, run: RunFolder, judge: Judge) -> Iterator[dict[str, Any]]:
    """Train and evaluate what the folder lacks; yields every row that the report is made of."""
    held_out = tasks_of(options, "test")
    start = {"checkpoint": 0, "seconds": 0.0, "cpu_seconds": 0.0, "programs": 0, "tokens": 0, "iteration": 0}
    start["passes"] = evaluate(options.run / "sft", held_out, judge, options.out / "start.jsonl", arm="start")
    for arm in options.arms:
        swept = list(sweep(arm, options, run, judge)) if arm in options.tuned else []
        yield from swept
        rate = best_rate(swept) if swept else None
        for seed in options.seeds:
            given = options.assignment(arm, seed=seed, learning_rate=rate)
            folder = train(given, f"{arm}-seed-{seed}", options, run)
            key = {"arm": arm, "seed": seed}
            yield from ({"what": "training", **key, **row} for row in read_rows(folder / CURVE))
            yield {"what": "arm", **key, **read_json(folder / RESULT)}
            yield {"what": "held_out", **key, **start}
            for place in sorted((folder / CHECKPOINTS).iterdir(), key=lambda place: int(place.name)):
                mark = {"checkpoint": int(place.name), **read_json(place / MARK)}
                passes = evaluate(place, held_out, judge, folder / EVALUATION, arm=place.name)
                yield {"what": "held_out", **key, **mark, "passes": passes}


def sweep(arm: str, options: Options, run: RunFolder, judge: Judge) -> Iterator[dict[str, Any]]:
    """Try every learning rate for a short time; none at a scale without time for it."""
    seconds = SCALES[options.scale].sweep_seconds
    if not seconds:
        return
    tasks = tasks_of(options, "validation")
    for rate in options.learning_rates:
        given = options.assignment(arm, seed=0, learning_rate=rate)
        given = replace(given, seconds=seconds, n_checkpoints=1)
        folder = train(given, f"{arm}-rate-{rate:g}", options, run)
        policy = folder / CHECKPOINTS / "1"
        passes = evaluate(policy, tasks, judge, folder / EVALUATION, arm="validation")
        mark = read_json(policy / MARK)
        yield {"what": "sweep", "arm": arm, "learning_rate": rate, **mark, "passes": passes}


def best_rate(swept: Sequence[Mapping[str, Any]]) -> float:
    """The learning rate whose policy passes most validation tasks; of equals the smallest."""
    best = min(swept, key=lambda row: (-sum(row["passes"]), row["learning_rate"]))
    return float(best["learning_rate"])


def tasks_of(options: Options, split: str) -> Sequence[Task]:
    """Tasks that no arm trains on."""
    return load_tasks(
        "stepwise", split=split, limit=SCALES[options.scale].held_out, horizons=options.horizons
    )


def train(assignment: Assignment, name: str, options: Options, run: RunFolder) -> Path:
    """Train one arm in a process of its own, unless the folder has it; returns where it wrote.

    Raises:
        SystemExit: If the process fails; quotes the end of its log.
    """
    folder = (options.out / "arms" / name).resolve()
    if run.finished(name) is not None:
        return folder
    shutil.rmtree(folder, ignore_errors=True)  # an interrupted arm has lost its clock
    write_json(folder / ASSIGNMENT, asdict(assignment))
    print(f"{name}: training for {assignment.seconds:g} s", flush=True)
    quiet = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (folder / "log.txt").open("w") as log:
        done = subprocess.run(
            [interpreter(options), "-m", "benchmarks.peer.arm", str(folder)],
            cwd=CHECKOUT, env={**os.environ, **quiet}, stdout=log, stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
    if done.returncode:
        tail = "\n".join((folder / "log.txt").read_text(errors="replace").splitlines()[-8:])
        raise SystemExit(
            f"{name} ended with status {done.returncode}; the end of {folder / 'log.txt'}:\n{tail}"
        )
    run.finish(name, seconds=assignment.seconds, metrics={})
    return folder


def evaluate(policy: Path, tasks: Sequence[Task], judge: Judge, path: Path, *, arm: str) -> list[int]:
    """Sample one program per task; 1 where it passed, from `path` where that is written already."""
    done = rows_of(path, arm)
    if len(done) < len(tasks):
        tokenizer = AutoTokenizer.from_pretrained(policy)
        model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
        writing = evaluate_to_file(
            make_sampler("transformers", model, tokenizer), tasks, judge, tokenizer.encode, path,
            arm=arm, decoding="sampled", max_new_tokens=PSGPOConfig().max_new_tokens, seed=0,
        )  # fmt: skip
        for _ in writing:
            pass
        done = rows_of(path, arm)
    passed = {row.task_id: int(row.passed) for row in done}
    return [passed[task.task_id] for task in tasks]


def rows_of(path: Path, arm: str) -> list[EvaluationRow]:
    """Rows of one policy in an evaluation file."""
    return [row for row in read_evaluation(path) if row.arm == arm]


if __name__ == "__main__":
    main()
