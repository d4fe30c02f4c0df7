from dataclasses import replace

import numpy as np
import pytest
import torch

from agents.critic import Critic
from agents.psgpo_config import PSGPOConfig
from agents.rollout import make_batch
from agents.samplers.transformers import TransformersSampler
from agents.update import Experience, Learner, micro_batches, token_logprobs, token_values, update
from prm.alignment import newlines_per_token


@pytest.fixture
def parts(toy):
    """A policy, a critic that says something, and a rollout with made-up advantages."""
    policy, tokenizer = toy.model(), toy.tokenizer()
    critic = Critic.create("policy", policy)
    torch.nn.init.normal_(critic.head.weight, generator=torch.Generator().manual_seed(0))
    prompts = [[3, 2], [4, 2, 5, 5, 5, 2], [6, 2], [7, 7, 2]] * 2
    groups = TransformersSampler(policy, tokenizer).sample(prompts, max_new_tokens=8, seed=0)
    completions = [group[0] for group in groups]
    credits = [
        np.zeros(c.text.count("\n") + (c.text[-1:] not in ("", "\n")) + c.finished) for c in completions
    ]
    batch = make_batch(prompts, completions, credits, newlines_per_token(tokenizer))
    values = token_values(critic, batch, max_tokens=64)
    noise = torch.randn(batch.ids.shape, generator=torch.Generator().manual_seed(1)) * batch.mask
    return policy, critic, Experience(batch=batch, values=values, advantages=noise, returns=noise + 1)


def learners(policy, critic, rate=0.1):
    return [Learner(network=n, optimizer=torch.optim.SGD(n.parameters(), lr=rate)) for n in (policy, critic)]


def weights(network):
    return torch.cat([parameter.detach().flatten().clone() for parameter in network.parameters()])


CONFIG = PSGPOConfig(n_minibatches=1, max_grad_norm=1e9)


def run(parts, config=CONFIG, rate=0.1, move_policy=True, seed=(0,)):
    policy, critic, experience = parts
    before = weights(policy), weights(critic)
    metrics = update(*learners(policy, critic, rate), experience, config, move_policy=move_policy, seed=seed)
    moved = weights(policy) - before[0], weights(critic) - before[1]
    with torch.no_grad():  # put things back, so that runs compare
        for network, vector in ((policy, before[0]), (critic, before[1])):
            torch.nn.utils.vector_to_parameters(vector, network.parameters())
    return moved, metrics


def test_before_the_first_step_the_ratio_is_one(parts):
    policy, _, experience = parts
    again = token_logprobs(policy, experience.batch, temperature=1.0, max_tokens=64)
    torch.testing.assert_close(again, experience.batch.logprobs, atol=1e-5, rtol=0)
    _, metrics = run(parts)
    assert metrics["approx_kl"] == pytest.approx(0, abs=1e-9)
    assert metrics["clip_fraction"] == 0
    mean = experience.advantages.sum() / experience.batch.n_tokens
    assert metrics["policy_gradient_loss"] == pytest.approx(-float(mean), abs=1e-5)


def shifted(experience, *shifts):
    """The rollout as a sampler would tell it that is off by `amount` at the n-th written token."""
    logprobs = experience.batch.logprobs.clone()
    places = experience.batch.mask.nonzero()
    for n, amount in shifts:
        logprobs[tuple(places[n])] += amount
    return replace(experience, batch=replace(experience.batch, logprobs=logprobs))


def test_a_sampler_that_computes_the_same_has_no_gap(parts):
    _, metrics = run(parts, replace(CONFIG, n_minibatches=3, n_epochs=2), rate=3.0)
    assert 0 <= metrics["sampler_logprob_gap"] <= metrics["sampler_logprob_gap_max"] < 1e-5


@pytest.mark.parametrize("tokens", [20, 10_000])
def test_a_wrong_log_probability_is_seen(parts, tokens):
    policy, critic, experience = parts
    off = shifted(experience, (0, 0.25), (5, -0.75))
    _, metrics = run((policy, critic, off), replace(CONFIG, micro_batch_tokens=tokens))
    assert metrics["sampler_logprob_gap_max"] == pytest.approx(0.75, abs=1e-5)
    assert metrics["sampler_logprob_gap"] == pytest.approx(1 / off.batch.n_tokens, abs=1e-5)


def test_the_gap_is_that_of_the_minibatch_before_the_first_step(parts):
    policy, critic, experience = parts
    config = replace(CONFIG, n_minibatches=2)
    row = np.random.default_rng([0]).permutation(len(experience.batch))[-1]  # of the second minibatch
    first = int(experience.batch.mask[:row].sum())
    off = shifted(experience, (first, 0.5))
    assert run((policy, critic, off), config)[1]["sampler_logprob_gap_max"] < 1e-5
    assert run((policy, critic, off))[1]["sampler_logprob_gap_max"] == pytest.approx(0.5, abs=1e-5)


def test_the_gap_counts_written_tokens_that_the_policy_does_not_learn_from(parts):
    policy, critic, experience = parts
    learnt = experience.batch.mask.clone()
    learnt[0] = False
    off = shifted(replace(experience, policy_mask=learnt), (0, 0.5))
    _, metrics = run((policy, critic, off))
    assert metrics["sampler_logprob_gap"] == pytest.approx(0.5 / off.batch.n_tokens, abs=1e-5)


def test_how_micro_batches_are_cut_does_not_matter(parts):
    whole, metrics = run(parts, replace(CONFIG, micro_batch_tokens=10_000))
    for tokens in (1, 20, 40):
        cut, others = run(parts, replace(CONFIG, micro_batch_tokens=tokens))
        for one, other in zip(whole, cut, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)
        assert others == pytest.approx(metrics, abs=1e-5, rel=1e-5)


def test_every_token_weighs_the_same(parts):
    policy, _, experience = parts
    (moved, _), _ = run(parts)
    policy.zero_grad()
    batch = experience.batch
    logits = policy(batch.ids).logits[:, :-1].log_softmax(-1)
    logprobs = logits.gather(2, batch.ids[:, 1:, None])[:, :, 0]
    surrogate = -(logprobs - batch.logprobs[:, 1:]).exp() * experience.advantages[:, 1:]
    (surrogate[batch.mask[:, 1:]].sum() / batch.n_tokens).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in policy.parameters()])
    torch.testing.assert_close(moved, -0.1 * gradient, atol=1e-6, rtol=1e-3)


def test_padding_is_inert(parts):
    policy, critic, experience = parts
    wide = replace(
        experience,
        batch=replace(
            experience.batch,
            **{
                name: torch.nn.functional.pad(getattr(experience.batch, name), (0, 9), value=value)
                for name, value in (("ids", 5), ("mask", False), ("logprobs", 3.0), ("rewards", 7.0))
            },
        ),
        **{
            name: torch.nn.functional.pad(getattr(experience, name), (0, 9), value=11.0)
            for name in ("values", "advantages", "returns")
        },
    )
    narrow, narrow_metrics = run((policy, critic, experience))
    widened, wide_metrics = run((policy, critic, wide))
    for one, other in zip(narrow, widened, strict=True):
        assert torch.equal(one, other)
    assert narrow_metrics == wide_metrics


def test_the_critic_can_move_alone(parts):
    (policy, critic), metrics = run(parts, move_policy=False)
    assert policy.abs().max() == 0
    assert critic.abs().max() > 0
    assert "approx_kl" not in metrics
    assert metrics["value_loss"] > 0


def test_policy_and_critic_do_not_touch_each_other(parts):
    policy, critic, experience = parts
    (base, _), _ = run(parts)
    (same, other), _ = run((policy, critic, replace(experience, returns=experience.returns * 50)))
    assert torch.equal(base, same)
    assert other.abs().max() > 0


def test_gradients_are_clipped_each_network_by_itself(parts):
    (policy, critic), metrics = run(parts, replace(CONFIG, max_grad_norm=1e-3), rate=1.0)
    assert policy.norm() == pytest.approx(1e-3, rel=1e-2)
    assert critic.norm() == pytest.approx(1e-3, rel=1e-2)
    assert metrics["policy_grad_norm"] > 1e-3


def test_target_kl_stops_the_policy_but_not_the_critic(parts):
    config = replace(CONFIG, n_epochs=6, target_kl=1e-3)
    (stopped, critic), _ = run(parts, config, rate=3.0)
    (free, same), _ = run(parts, replace(config, target_kl=None), rate=3.0)
    (once, _), _ = run(parts, CONFIG, rate=3.0)
    torch.testing.assert_close(stopped, once)
    assert not torch.allclose(free, once)
    torch.testing.assert_close(critic, same)


def test_the_entropy_bonus_flattens_the_policy(parts):
    policy, critic, experience = parts
    still = replace(experience, advantages=torch.zeros_like(experience.advantages))
    _, before = run((policy, critic, still), replace(CONFIG, ent_coef=1.0))
    update(
        *learners(policy, critic, 0.5),
        still,
        replace(CONFIG, ent_coef=1.0, n_epochs=5),
        move_policy=True,
        seed=(0,),
    )
    _, after = run((policy, critic, still), replace(CONFIG, ent_coef=1.0))
    assert after["entropy_loss"] < before["entropy_loss"]
    assert before["loss"] == pytest.approx(
        before["policy_gradient_loss"] + before["entropy_loss"] + before["value_loss"]
    )


def test_the_sampled_surprise_estimates_the_entropy(parts):
    _, sampled = run(parts)
    _, exact = run(parts, replace(CONFIG, ent_coef=1e-9))
    assert sampled["entropy_loss"] == pytest.approx(exact["entropy_loss"], rel=0.3)


def test_minibatches_depend_on_the_seed(parts):
    config = replace(CONFIG, n_minibatches=3)
    (one, _), _ = run(parts, config, seed=(0, 1))
    (same, _), _ = run(parts, config, seed=(0, 1))
    (other, _), _ = run(parts, config, seed=(0, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_temperature_is_part_of_the_log_probability(parts):
    policy, _, experience = parts
    hot = token_logprobs(policy, experience.batch, temperature=2.0, max_tokens=64)
    plain = token_logprobs(policy, experience.batch, temperature=1.0, max_tokens=64)
    assert not torch.allclose(hot, plain, atol=1e-3)


def test_micro_batches_cover_all_rows_once_and_cut_the_padding(parts):
    batch = parts[2].batch
    seen = []
    for rows, first, last in micro_batches(batch, range(len(batch)), 24):
        seen += rows.tolist()
        assert first == batch.prompt_lengths[rows].min()
        assert last == batch.lengths[rows].max()
        assert len(rows) == 1 or len(rows) * last <= 24
    assert sorted(seen) == list(range(len(batch)))


def test_more_minibatches_than_rows(parts):
    (moved, _), _ = run(parts, replace(CONFIG, n_minibatches=50))
    assert moved.abs().max() > 0
