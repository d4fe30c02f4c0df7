"""Agents learn: the toy language's one right program, within a minute, with and without a critic."""

import time

import pytest

from agents.table import make_agent
from codegym.episode import END_OF_PROGRAM

LEARNING = {
    "rollouts_per_iteration": 256,
    "max_new_tokens": 5,
    "n_minibatches": 4,
    "learning_rate": 5e-3,
    "kl_coef": 0.0,
}
SETTINGS = {
    "psgpo": {"n_iterations": 40, "critic_learning_rate": 5e-3},
    "grpo": {"n_iterations": 40, "samples_per_task": 32},
    "rloo": {"n_iterations": 40, "samples_per_task": 32},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_it_learns_to_repeat_the_prompt_within_a_minute(toy, name):
    options = {**LEARNING, **SETTINGS[name]}
    agent = make_agent(name, toy.model(), toy.env(), tokenizer=toy.tokenizer(), device="cpu", **options)
    began = time.process_time()
    first = agent.iterate(0.0)["rollout/success_rate"]
    agent.learn()
    assert time.process_time() - began < 60
    assert first < 0.1
    assert agent.iterate(1.0)["rollout/success_rate"] > 0.85
    actions, _ = agent.predict(["a\n", "b\n"], deterministic=True)
    assert actions.tolist() == ["a", "b"]
    assert agent.predict("a\na\n", deterministic=True)[0] == END_OF_PROGRAM
