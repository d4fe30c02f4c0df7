"""`codegym train`: one agent on one task source."""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import gymnasium as gym
import torch
import tyro
from rich.console import Console
from stable_baselines3.common.utils import get_device
from transformers import AutoConfig
from transformers.utils.logging import disable_progress_bar

from agents import ranks
from agents.checkpoint import settle
from agents.memory import announce_memory
from agents.models import loading
from agents.monitor import LastScores
from agents.policy_agent import PolicyAgent
from agents.policy_config import PolicyConfig
from agents.progress import progress
from agents.run_folder import open_run
from agents.table import AGENTS
from agents.task_lookup import load_named
from agents.training import CURVE, LAST, POLICY, train_to_folder
from codegym.judge import Judge, make_judge
from codegym.rewards import REWARD_SCHEMES, RewardScheme, make_scheme
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.storage import read_rows
from codegym.table import check_name, resolve
from codegym.task import Task
from prm.model import ProcessRewardModel

Config = TypeVar("Config", bound=PolicyConfig)
DEFAULT_AGENT = "psgpo"


@dataclass(frozen=True, kw_only=True)
class TrainOptions(Generic[Config]):
    """Train one agent; OUT gets the policy, the learning curve and a checkpoint after every iteration.

    Interrupted or killed, the same command goes on where it was. With more iterations it goes on from a
    finished run, by the learning rates of the longer one. Processes that `torchrun` started share the work.
    """

    out: Path
    """The folder to write to."""
    agent: str = DEFAULT_AGENT
    """psgpo, grpo or rloo; sets the defaults of its settings."""
    model: str
    """Folder or hub name of the causal LM to start from."""
    tasks: str = "stepwise"
    """Task source, or a JSON Lines file of tasks."""
    split: str = "train"
    """Split of the source."""
    limit: int | None = None
    """Only so many tasks; for a procedural source the number to make."""
    horizons: tuple[int, int] | None = None
    """Steps of the tasks, where a source has the dial."""
    reward: str = "pass_fail"
    """Reward scheme."""
    prm: Path | None = None
    """Reward model for --reward process and --critic-init prm."""
    iterations: int | None = None
    """Length of the whole run; the same as --n-iterations."""
    keep: int = 0
    """Policies kept on the way, evenly spaced."""
    judge: str = "local"
    """Who judges."""
    seed: int = 0
    """Of everything."""
    threads: int = 0
    """Of torch; 0 for one per core."""
    max_memory_gb: float | None = None
    """Do not start a run that is estimated to need more GiB; without, it is only warned of."""
    config: Annotated[Config, tyro.conf.arg(name="")]

    def __post_init__(self) -> None:
        check_name(self.reward, REWARD_SCHEMES, "reward scheme")
        for name in ("limit", "iterations"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if self.prm is None:
            for asked, flag in (
                (self.reward == "process", "--reward process"),
                (self.wants_prm, "--critic-init prm"),
            ):
                if asked:
                    raise ValueError(f"{flag} needs the reward model's folder: --prm")
        elif not self.prm.is_dir():
            raise FileNotFoundError(f"no reward model at {self.prm}")

    @property
    def wants_prm(self) -> bool:
        """Whether the critic starts from the reward model."""
        return getattr(self.config, "critic_init", None) == "prm"

    def settings(self) -> dict[str, Any]:
        """What the result depends on: a folder of a run with others is refused, but for its length."""
        row = asdict(self)
        config = {name: value for name, value in row.pop("config").items() if name != "n_iterations"}
        for name in ("out", "iterations", "keep", "judge", "threads", "max_memory_gb"):
            del row[name]
        return {**row, "prm": None if self.prm is None else str(self.prm.resolve()), "config": config}


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    options = parse(argv)
    disable_progress_bar()
    ranks.join(get_device("auto"))
    torch.set_num_threads(options.threads or max(1, (os.cpu_count() or 1) // ranks.size()))
    _announce(options)
    tasks = _load(options)
    with _held(options), make_judge(options.judge) as judge:
        agent = _agent(options, tasks, judge)
        with progress(options.agent, Console(stderr=True, quiet=ranks.rank() > 0)) as report:
            train_to_folder(agent, options.out, report, n_kept=options.keep)
    if ranks.rank() == 0:
        sys.stdout.write(_result(options.out))
    ranks.leave()
    return 0


def _announce(options: TrainOptions[Any]) -> None:
    try:
        shape = AutoConfig.from_pretrained(options.model)
    except (OSError, ValueError):
        return  # an adapter's folder; or loading it says what is wrong with the model
    prm = None if options.prm is None else "whole"
    what, limit = f"training {options.agent}", options.max_memory_gb
    announce_memory(shape, options.config, what=what, prm=prm, max_memory_gb=limit)


@contextmanager
def _held(options: TrainOptions[Any]) -> Iterator[None]:
    """Keep other runs out of the folder; of several processes the first one does so for all."""
    if ranks.rank():
        ranks.wait_for_all()
        yield
        return
    with open_run(options.out, options.settings()).locked():
        settle(options.out / LAST)
        ranks.wait_for_all()
        yield


def parse(argv: Sequence[str]) -> TrainOptions[Any]:
    """Options from the command line; `--agent` decides which settings there are, and their defaults.

    Raises:
        UnknownNameError: If there is no such agent.
        ValueError: If it has nothing to learn, or options do not go together.
        SystemExit: If an option is unknown or has a value of the wrong kind; the message says which.
    """
    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    early.add_argument("--agent", default=DEFAULT_AGENT)
    name = early.parse_known_args(argv)[0].agent
    kind = _kind(name).config_type
    options: TrainOptions[Any] = tyro.cli(
        TrainOptions[kind],  # type: ignore[valid-type]
        args=list(argv),
        prog="codegym train",
    )
    if options.iterations is None:
        return options
    return replace(options, config=replace(options.config, n_iterations=options.iterations))


def _kind(name: str) -> type[PolicyAgent]:
    kind: type[Any] = resolve(AGENTS, name, "agent")
    if not issubclass(kind, PolicyAgent):
        raise ValueError(f"agent {name!r} has nothing to learn")
    return kind


def _load(options: TrainOptions[Any]) -> Sequence[Task]:
    given: dict[str, Any] = {} if options.horizons is None else {"horizons": options.horizons}
    return load_named(options.tasks, split=options.split, limit=options.limit, seed=options.seed, **given)


def _agent(options: TrainOptions[Any], tasks: Sequence[Task], judge: Judge) -> PolicyAgent:
    prm = None if options.prm is None else ProcessRewardModel.from_pretrained(options.prm)
    env: gym.Env[str, str] = gym.make("CodeGen-v0", tasks=tasks, judge=judge, disable_env_checker=True)
    env = RewardWrapper(env, _scheme(options, prm))
    kind, last = _kind(options.agent), options.out / LAST
    if last.exists():
        agent = kind.load(last, env)
        agent.config = options.config
        return agent
    given: dict[str, Any] = {"prm": prm} if options.wants_prm else {}
    with loading("--model", options.model):
        return kind(options.model, env, options.config, seed=options.seed, **given)


def _scheme(options: TrainOptions[Any], prm: ProcessRewardModel | None) -> RewardScheme:
    if options.reward == "process" and prm is not None:
        return ProcessReward.from_scorer(LastScores(prm))
    return make_scheme(options.reward)


def _result(out: Path) -> str:
    rows = list(read_rows(out / CURVE))
    first, last = (sum(row["success_rate"] for row in part) / len(part) for part in (rows[:4], rows[-4:]))
    return f"{out / POLICY}: pass rate {first:.3f} to {last:.3f} in {len(rows)} iterations, {out / CURVE}\n"
