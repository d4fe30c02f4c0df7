"""Processes that share the work of an iteration, and what they must agree on. Two real ones, over gloo."""

import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agents import ranks
from agents.psgpo import PSGPO, PSGPOConfig
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.testing import ScriptedScorer
from prm.lora import LoRAConfig

CONFIG = PSGPOConfig(
    n_iterations=3,
    rollouts_per_iteration=16,
    max_new_tokens=5,
    critic_only_iterations=0,
    warmup_iterations=0,
    learning_rate=3e-3,
    n_epochs=2,
    n_minibatches=3,
    micro_batch_tokens=32,
    kl_coef=0.1,
)
CONFIGS = {
    "plain": CONFIG,
    "adapters": replace(CONFIG, lora=LoRAConfig(rank=2), gradient_checkpointing=True),
    "stopped": replace(CONFIG, target_kl=1e-5, samples_per_task=2),
}


class SameForAll:
    """Draws for each prompt by itself, so that a share of the prompts gets what it would among all."""

    def __init__(self, sampler):
        self.sampler, self.identity, self.n_prompts = sampler, "same for all", []

    def sample(self, prompts, *, seed, **options):
        self.n_prompts.append(len(prompts))
        first = int(seed == -1)
        return [
            self.sampler.sample([prompt], seed=first + sum(prompt) + len(self.n_prompts), **options)[0]
            for prompt in prompts
        ]


def parts():
    """What conftest.py offers to the tests, also in a process without them."""
    spec = importlib.util.spec_from_file_location("parts", Path(__file__).with_name("conftest.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_agent(name):
    toy = parts()
    scheme = ProcessReward.from_scorer(ScriptedScorer(odd_lines))
    env = RewardWrapper(toy.make_env(), scheme)
    agent = PSGPO(toy.make_model(), env, CONFIGS[name], tokenizer=toy.make_tokenizer(), device="cpu")
    agent.sampler = SameForAll(agent.sampler)
    return agent


def odd_lines(episode):
    return [1.0 if len(line) % 2 else -1.0 for line in episode.lines]


def weights(agent):
    return {
        f"{role}.{key}": weight.detach().clone()
        for role, network in (("policy", agent.policy), ("critic", agent.critic))
        for key, weight in network.named_parameters()
    }


def digest(state):
    sha = hashlib.sha256()
    for key, weight in sorted(state.items()):
        sha.update(key.encode() + weight.numpy().tobytes())
    return sha.hexdigest()


def train_all(folder):
    """What one process of several does: run as a script."""
    torch.set_num_threads(1)
    for name in CONFIGS:
        (folder / name).mkdir(exist_ok=True)
        train(name, folder / name)
    ranks.leave()


def train(name, folder):
    agent = make_agent(name)
    metrics = [agent.iterate(index / 3) for index in range(3)]
    state = weights(agent)
    about = {
        "rank": ranks.rank(), "size": ranks.size(), "digest": digest(state), "metrics": metrics,
        "prompts": agent.sampler.n_prompts, "judged": [len(b) for b in agent.env.unwrapped.judge.batches],
        "timesteps": agent.num_timesteps,
    }  # fmt: skip
    (folder / f"rank-{ranks.rank()}.json").write_text(json.dumps(about))
    if ranks.rank() == 0:
        torch.save(state, folder / "weights.pt")
    agent.save(folder / "agent")


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Where two processes left what they learned, and what each says about it, by name."""
    folder = tmp_path_factory.mktemp("ranks")
    launch(folder, n_ranks=2)
    return folder, {
        name: [json.loads((folder / name / f"rank-{rank}.json").read_text()) for rank in range(2)]
        for name in CONFIGS
    }


def launch(folder, n_ranks):
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"WORLD_SIZE": str(n_ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = [
        subprocess.Popen(
            [sys.executable, __file__, str(folder)],
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(n_ranks)
    ]
    for child in children:
        _, errors = child.communicate(timeout=250)
        assert child.returncode == 0, errors.decode()


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_two_processes_learn_what_one_does(name, told):
    folder, told = told[0] / name, told[1][name]
    alone = make_agent(name)
    expected = [alone.iterate(index / 3) for index in range(3)]
    assert [one["size"] for one in told] == [2, 2]
    # the same bits in both, and the same numbers as one process but for the order of sums
    assert told[0]["digest"] == told[1]["digest"]
    state = torch.load(folder / "weights.pt", weights_only=True)
    for key, weight in weights(alone).items():
        torch.testing.assert_close(state[key], weight, atol=2e-5, rtol=1e-3, msg=key)
    n_tasks = 16 // CONFIGS[name].samples_per_task
    assert [one["prompts"] for one in told] == [[n_tasks // 2] * 3] * 2
    assert [one["judged"] for one in told] == [[8] * 3] * 2
    assert {one["timesteps"] for one in told} == {alone.num_timesteps}
    for mine, *theirs in zip(expected, *(one["metrics"] for one in told), strict=True):
        for metrics in theirs:
            assert metrics.keys() == mine.keys()
            for key in mine:
                if not key.startswith("time/") and mine[key] == mine[key]:
                    assert metrics[key] == pytest.approx(mine[key], rel=1e-3, abs=1e-4), key


@pytest.mark.slow
def test_the_first_process_saves_for_all(told):
    folder, said = told
    loaded = PSGPO.load(folder / "plain/agent", parts().make_env(), device="cpu")
    assert digest(weights(loaded)) == said["plain"][0]["digest"]
    assert loaded.iteration == 3


# --- alone ---


def test_alone_nothing_is_shared():
    assert (ranks.rank(), ranks.size()) == (0, 1)
    assert ranks.share([3, 1, 2]) == [3, 1, 2]
    assert ranks.share_by_cost([3, 1, 2], cost=abs) == [3, 1, 2]
    assert ranks.gather((1, 2)) == [1, 2]
    assert ranks.add_up_numbers({"a": 1.5}) == {"a": 1.5}
    tensor = torch.ones(2)
    ranks.add_up([tensor])
    ranks.equalize([tensor])
    ranks.wait_for_all()
    assert tensor.tolist() == [1, 1]


@pytest.mark.parametrize("n_items", [0, 1, 5, 12])
@pytest.mark.parametrize("n_ranks", [1, 2, 3, 7])
def test_shares_are_all_items_once_in_order_and_about_as_long(n_items, n_ranks, monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: n_ranks)
    shares, by_cost = [], []
    for rank in range(n_ranks):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        shares.append(list(ranks.share(range(n_items))))
        by_cost.append(ranks.share_by_cost(range(n_items), cost=lambda item: -item))
    assert [item for part in shares for item in part] == list(range(n_items))
    assert sorted(item for part in by_cost for item in part) == list(range(n_items))
    for parted in (shares, by_cost):
        assert max(map(len, parted)) - min(map(len, parted)) <= 1


def test_more_processes_than_tasks_are_refused(monkeypatch):
    monkeypatch.setattr(ranks, "size", lambda: 17)
    with pytest.raises(ValueError, match="17 processes cannot share 16 tasks"):
        make_agent("plain")


if __name__ == "__main__":
    train_all(Path(sys.argv[1]))
