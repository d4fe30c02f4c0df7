"""Stable-Baselines3's PPO on `LineChoices`: success on held-out stepwise tasks against random and oracle.

Tasks of 1 to 3 steps; each step and the return are picks among k candidates, one of them right. The policy
sees hashed crosses of words and code (`codegym.wrappers.features`) and is paid 1 for a program that passes
its tests, nothing else. "MlpPolicy" is the stock network, which has to learn each of the k places by itself;
"shared" is a features extractor that scores every candidate by the same weights. Success is measured on
tasks of the test split, which no training task shares its steps with; the policy is greedy there.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
import tyro
from scipy.stats import binomtest
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv

from benchmarks.markdown import table as markdown_table
from codegym import Judge, LineChoices, load_tasks, make_judge
from codegym.storage import append_rows, write_text

N_ENVS, N_STEPS = 16, 64
ROLLOUTS = {"smoke": 4, "small": 56, "full": 256}
EVALUATIONS = {"smoke": 1, "small": 7, "full": 16}
ARMS = {
    "smoke": (("MlpPolicy", 2),),
    "small": (("MlpPolicy", 2), ("shared", 4)),
    "full": (("MlpPolicy", 2), ("MlpPolicy", 4), ("shared", 4)),
}

Choose = Callable[[LineChoices, np.ndarray], int]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how PPO learns to choose lines."""

    scale: Literal["smoke", "small", "full"] = "small"  # training steps and evaluations
    distractors: Literal["operations", "bugs"] = "operations"  # what the wrong candidates are
    n_features: int = 1024  # per candidate
    n_tasks: int = 2000  # to train on
    n_held_out: int = 200  # to measure success on
    seed: int = 0  # of everything
    threads: int = 1  # of torch
    out: Path = Path("runs/benchmarks/line_choices")  # where rows and report go


@dataclass(frozen=True, kw_only=True)
class Row:
    """Success on held-out tasks of one way to choose, with its 95 % Wilson interval."""

    policy: str
    k: int
    steps: int
    seconds: float
    success: float
    low: float
    high: float


class CandidateScorer(BaseFeaturesExtractor):
    """One score per candidate, by the same linear function for all places."""

    def __init__(self, observation_space: gym.spaces.Box, k: int) -> None:
        super().__init__(observation_space, features_dim=k)
        self._k = k
        self._score = torch.nn.Linear((observation_space.shape[0] - 1) // k, 1)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Scores. [B, k]."""
        candidates = observations[:, :-1].unflatten(1, (self._k, -1))  # [B, k, features]
        # Features have length 1; without the factor the first logits would hardly differ.
        return 4 * self._score(candidates).squeeze(-1)


def main() -> None:
    """Run the benchmark and print its table."""
    options = tyro.cli(Options, prog="python -m benchmarks.line_choices")
    torch.set_num_threads(options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    rows_file = options.out / "rows.jsonl"
    rows_file.unlink(missing_ok=True)
    rows = []
    with make_judge("local", workers=1) as judge:
        for row in measure(options, judge):
            rows.append(row)
            append_rows(rows_file, [asdict(row)])
            print(f"{row.policy:10} k={row.k} {row.steps:>7} steps {row.success:.3f}", flush=True)
    text = table(rows)
    write_text(options.out / "report.md", text)
    print(text)


def measure(options: Options, judge: Judge) -> Iterator[Row]:
    """Random and oracle for each k, then the learning curve of each arm."""
    arms = ARMS[options.scale]
    for k in sorted({k for _, k in arms}):
        env = make_env(options, judge, "test", k)
        yield evaluate("random", env, random_choice(options.seed), options, steps=0, seconds=0.0)
        yield evaluate("oracle", env, oracle, options, steps=0, seconds=0.0)
    for policy, k in arms:
        yield from learn(policy, k, options, judge)


def make_env(options: Options, judge: Judge, split: str, k: int) -> LineChoices:
    """`LineChoices` over the tasks of a split."""
    limit = options.n_held_out if split == "test" else options.n_tasks
    tasks = load_tasks("stepwise", split=split, limit=limit, seed=options.seed, horizons=(1, 3))
    return LineChoices(
        gym.make("CodeGen-v0", tasks=tasks, judge=judge),
        "stepwise",
        k,
        n_features=options.n_features,
        proposer_options={"distractors": options.distractors},
    )


def random_choice(seed: int) -> Choose:
    """Any place, all alike."""
    rng = np.random.default_rng(seed)
    return lambda env, _: int(rng.integers(env.k))


def oracle(env: LineChoices, observation: np.ndarray) -> int:
    """The place of the candidate that the task's reference goes on with."""
    del observation
    written, reference = env.episode.completion, env.episode.task.reference or ""
    for place, candidate in enumerate(env.proposal.candidates):
        if reference.startswith(f"{written}{candidate}\n"):
            return place
    return 0


def learn(policy: str, k: int, options: Options, judge: Judge) -> Iterator[Row]:
    """Train PPO and evaluate it on the way."""
    curve = Curve(policy, make_env(options, judge, "test", k), options)
    model = make_model(policy, k, options, judge)
    model.learn(ROLLOUTS[options.scale] * N_STEPS * N_ENVS, callback=curve)
    yield from curve.rows


class Curve(BaseCallback):
    """Evaluates the greedy policy after every so many updates; the clock stands still meanwhile."""

    def __init__(self, policy: str, held_out: LineChoices, options: Options) -> None:
        super().__init__()
        self.rows: list[Row] = []
        self._name, self._held_out, self._options = policy, held_out, options
        self._every = ROLLOUTS[options.scale] // EVALUATIONS[options.scale]
        self._seconds, self._since = 0.0, 0.0

    def _on_training_start(self) -> None:
        self._since = time.perf_counter()

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps and self.num_timesteps % (self._every * N_STEPS * N_ENVS) == 0:
            self._evaluate()

    def _on_training_end(self) -> None:
        self._evaluate()

    def _evaluate(self) -> None:
        self._seconds += time.perf_counter() - self._since

        def greedy(env: LineChoices, observation: np.ndarray) -> int:
            del env
            return int(self.model.predict(observation, deterministic=True)[0])

        self.rows.append(
            evaluate(
                self._name,
                self._held_out,
                greedy,
                self._options,
                steps=self.num_timesteps,
                seconds=self._seconds,
            )
        )
        self._since = time.perf_counter()


def make_model(policy: str, k: int, options: Options, judge: Judge) -> PPO:
    """PPO with the settings of all arms; only the network differs."""
    network: dict[str, Any] = {"net_arch": [64]}
    if policy == "shared":
        network = {
            "features_extractor_class": CandidateScorer,
            "features_extractor_kwargs": {"k": k},
            "net_arch": {"pi": [], "vf": [16]},
        }
    model = PPO(
        "MlpPolicy",
        DummyVecEnv([lambda: make_env(options, judge, "train", k)] * N_ENVS),
        n_steps=N_STEPS,
        batch_size=256,
        n_epochs=8,
        learning_rate=lambda remaining: 3e-3 * remaining,
        gamma=1.0,
        gae_lambda=1.0,
        ent_coef=0.01,
        policy_kwargs=network,
        seed=options.seed,
        device="cpu",
    )
    if policy == "shared":  # the scores are the logits
        with torch.no_grad():
            model.policy.action_net.weight.copy_(torch.eye(k))
    return model


def evaluate(
    policy: str, env: LineChoices, choose: Choose, options: Options, *, steps: int, seconds: float
) -> Row:
    """Success over every held-out task once."""
    successes, n = 0, options.n_held_out
    for number, task in enumerate(env.get_wrapper_attr("tasks")):
        observation, info = env.reset(seed=number, options={"task_id": task.task_id})
        over = False
        while not over:
            observation, _, terminated, truncated, info = env.step(choose(env, observation))
            over = terminated or truncated
        successes += info["is_success"]
    interval = binomtest(successes, n).proportion_ci(method="wilson")
    return Row(
        policy=policy,
        k=env.k,
        steps=steps,
        seconds=seconds,
        success=successes / n,
        low=interval.low,
        high=interval.high,
    )


def table(rows: Sequence[Row]) -> str:
    """The rows as Markdown."""
    names = ("policy", "k", "steps", "training, s", "success on held-out tasks", "95 % interval")
    return markdown_table(
        names,
        [
            (r.policy, r.k, f"{r.steps:,}", f"{r.seconds:.0f}", f"{r.success:.3f}",
             f"{r.low:.3f} to {r.high:.3f}")
            for r in rows
        ],
    )  # fmt: skip


if __name__ == "__main__":
    main()
