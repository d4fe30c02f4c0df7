"""Settings of the main job, and the scales it comes in."""

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from agents.bundled import TinyModelConfig
from agents.critic import CriticInit
from agents.psgpo_config import PSGPOConfig
from agents.samplers import SAMPLERS
from agents.sft import SFTConfig
from codegym.judge import JUDGES
from codegym.rewards.process_options import ProcessOptions
from codegym.table import check_name, resolve
from codegym.task import Task
from codegym.tasks import TASK_SOURCES, load_tasks
from codegym.tasks.stepwise_programs import check_horizons
from prm.config import PRMConfig
from prm.selection import SelectionConfig

LabelSource = Literal["reference", "binary_search", "full_scan"]
LabelPolicies = Literal["checkpoints", "start"]


@dataclass(frozen=True, kw_only=True)
class LabelConfig:
    """Which programs are labelled, and how."""

    # whose programs are labelled: the RL baseline's checkpoints', as in the paper, or the starting policy's,
    # which does without the baseline's run
    policies: LabelPolicies = "checkpoints"
    checkpoints: int = 4  # of the RL baseline that are kept, evenly spaced
    programs_per_task: int = 1  # drawn per policy and training task
    source: LabelSource = (
        "reference"  # what the PRM learns from; the others need no reference, binary_search is the paper's
    )
    audited: int = 128  # failing programs labelled by the other source too, to compare; 0 for none
    k: int = 8  # completions of a prefix before it counts as lost
    temperature: float = 1.0  # of the completions
    chunk: int = 128  # programs labelled at once: what a kill can lose

    def __post_init__(self) -> None:
        for name in ("checkpoints", "programs_per_task", "k", "chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be positive and finite, got {self.temperature}")
        if self.audited < 0:
            raise ValueError(f"audited must not be negative, got {self.audited}")
        check_name(self.source, get_args(LabelSource), "label source")
        check_name(self.policies, get_args(LabelPolicies), "policies to label")


@dataclass(frozen=True, kw_only=True)
class DenseConfig:
    """How PSGPO and the oracle arm are paid per line; see `codegym.rewards.process.ProcessReward`."""

    form: Literal["progress", "mean"] = "progress"  # "mean" is the paper's, which pays for stopping early
    unit: Literal["line", "statement"] = "line"  # what is paid: "statement" pays no more for more lines
    lambda_fail: float | None = None  # weight on a failing program; None: the form's default
    lambda_pass: float | None = None  # weight on a passing program; None: the form's default
    refresh_learning_rate: float = 5e-4  # of the PRM's passes over PSGPO's own rollouts; 0 for no refresh
    critic_init: CriticInit = "prm"  # PSGPO's critic; the other arms' is rl.critic_init

    def __post_init__(self) -> None:
        # the reward's own checks, which its model is not needed for
        ProcessOptions(prm="prm", **self.reward_options)
        if not 0 <= self.refresh_learning_rate < math.inf:
            raise ValueError(
                f"refresh_learning_rate must be finite and not negative, got {self.refresh_learning_rate}"
            )
        check_name(self.critic_init, get_args(CriticInit), "critic_init")

    @property
    def reward_options(self) -> dict[str, Any]:
        """Options of the process reward, but for who scores."""
        return {name: getattr(self, name) for name in ("form", "unit", "lambda_fail", "lambda_pass")}


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """The main job."""

    scale: str = "small"  # smoke, small or full: sets the defaults of everything else
    tasks: str = "stepwise"  # task source
    model: str | None = None  # folder or hub name of a causal LM to start from; None: the bundled tiny one
    seed: int = 0  # of everything
    judge: str = "local"  # who judges
    threads: int = 0  # of torch; 0 for one per core
    rl_horizons: tuple[int, int] = (9, 12)  # steps of the training tasks, where a source has the dial
    train_tasks: int = 640  # training tasks
    eval_horizons: tuple[tuple[int, int], ...] = ((2, 4), (5, 8), (9, 12))  # reported apart
    eval_tasks: int = 192  # held-out tasks per horizon range
    sft_programs: int = 30_000  # programs of the corpus that the starting policy imitates
    sft_horizons: tuple[int, int] = (1, 12)  # their steps: must cover every horizon of RL
    baseline: bool = True  # run the arm that is paid by the tests alone
    oracle: bool = True  # run the arm that is paid by exact labels, the upper bound of any PRM
    tiny: TinyModelConfig = field(default_factory=TinyModelConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    rl: PSGPOConfig = field(default_factory=PSGPOConfig)
    label: LabelConfig = field(default_factory=LabelConfig)
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    prm: PRMConfig = field(default_factory=PRMConfig)
    dense: DenseConfig = field(default_factory=DenseConfig)

    def __post_init__(self) -> None:
        check_name(self.scale, ("smoke", "small", "full"), "scale")
        check_name(self.tasks, TASK_SOURCES, "task source")
        check_name(self.judge, JUDGES, "judge")
        check_name(self.rl.sampler, SAMPLERS, "sampler")
        for name in ("train_tasks", "eval_tasks", "sft_programs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.threads < 0:
            raise ValueError(f"threads must not be negative, got {self.threads}")
        if not self.baseline and self.label.policies == "checkpoints":
            raise ValueError(
                "without the baseline there are no checkpoints of it whose programs could be labelled: "
                "use --label.policies start"
            )
        if self.rl.critic_init == "prm":
            raise ValueError(
                "rl.critic_init='prm' needs a reward model, but the baseline arm trains before there is one; "
                "PSGPO's own critic is dense.critic_init"
            )
        self._check_horizons()

    def with_seed(self) -> "PipelineConfig":
        """The same settings with the run's seed in every part."""
        return replace(self, sft=replace(self.sft, seed=self.seed), prm=replace(self.prm, seed=self.seed))

    def _check_horizons(self) -> None:
        if not self.eval_horizons:
            raise ValueError("eval_horizons must hold at least one range of steps, got none")
        for horizons in self.eval_horizons:
            check_horizons(horizons)
        (low, high), (shortest, longest) = check_horizons(self.rl_horizons), check_horizons(self.sft_horizons)
        if not shortest <= low <= high <= longest:
            raise ValueError(
                f"sft_horizons must cover rl_horizons, got {self.sft_horizons} and {self.rl_horizons}"
            )

    def load(self, *, split: str, limit: int, horizons: tuple[int, int]) -> Sequence[Task]:
        """Tasks of the source; `horizons` goes to sources that have the dial."""
        loader = resolve(TASK_SOURCES, self.tasks, "task source")
        options: dict[str, Any] = {}
        if "horizons" in inspect.signature(loader).parameters:
            options["horizons"] = horizons
        return load_tasks(self.tasks, split=split, limit=limit, seed=self.seed, **options)


SCALES = {
    "smoke": PipelineConfig(
        scale="smoke",
        rl_horizons=(1, 2),
        train_tasks=64,
        eval_horizons=((1, 2),),
        eval_tasks=64,
        sft_programs=8_000,
        sft_horizons=(1, 2),
        rl=PSGPOConfig(
            n_iterations=4, rollouts_per_iteration=32, max_new_tokens=96,
            warmup_iterations=1, critic_only_iterations=1, refresh_every=2,
        ),
        label=LabelConfig(checkpoints=2, audited=8, k=4, chunk=16),
        prm=PRMConfig(epochs=1.0, checkpoint_every=2),
    ),
    "small": PipelineConfig(scale="small"),
    "full": PipelineConfig(
        scale="full",
        train_tasks=1280,
        eval_tasks=384,
        sft_programs=60_000,
        rl=PSGPOConfig(n_iterations=60, rollouts_per_iteration=256),
        label=LabelConfig(programs_per_task=2, audited=512),
    ),
}  # fmt: skip
"""The main job's scales. On two cores smoke takes a minute and small about twenty; full was not timed."""
