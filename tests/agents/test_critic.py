import pytest
import torch

from agents.critic import Critic
from agents.losses import explained_variance
from codegym.errors import UnknownNameError
from prm.model import ProcessRewardModel


@pytest.fixture
def policy(toy):
    return toy.model()


@pytest.fixture
def prm(toy):
    model = ProcessRewardModel.from_backbone(toy.model(seed=7), toy.tokenizer(), head="newline")
    with torch.no_grad():
        model.head.weight.normal_(generator=torch.Generator().manual_seed(1))
        model.head.bias.fill_(0.25)
    return model


IDS = torch.tensor([[3, 2, 4, 2, 0], [5, 2, 6, 0, 1]])


@pytest.mark.parametrize("init", ["scratch", "policy"])
def test_a_new_critic_predicts_zero(policy, init):
    critic = Critic.create(init, policy)
    assert critic(IDS).abs().max() == 0
    assert critic(IDS).shape == IDS.shape


def test_a_critic_from_the_policy_shares_values_but_no_memory(policy):
    critic = Critic.create("policy", policy)
    ours, theirs = dict(critic.backbone.named_parameters()), dict(policy.model.named_parameters())
    assert ours.keys() == theirs.keys()
    for name, parameter in ours.items():
        assert torch.equal(parameter, theirs[name])
        assert parameter.data_ptr() != theirs[name].data_ptr()


def test_a_scratch_critic_depends_on_its_seed_alone(policy):
    state = torch.get_rng_state()
    one, two, other = (Critic.create("scratch", policy, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    name = "layers.0.mlp.up_proj.weight"
    weights = [dict(critic.backbone.named_parameters())[name] for critic in (one, two, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not torch.equal(weights[0], dict(policy.model.named_parameters())[name])


def test_a_critic_from_a_reward_model_says_what_the_model_says(policy, prm):
    critic = Critic.create("prm", policy, prm)
    with torch.no_grad():
        assert torch.equal(critic(IDS), prm(IDS, torch.ones_like(IDS)))
    critic.head.weight.data.zero_()
    assert prm.head.weight.abs().sum() > 0


def test_the_value_before_a_token_is_the_output_after_the_one_before(policy, prm):
    critic = Critic.create("prm", policy, prm)
    with torch.no_grad():
        after, before = critic(IDS), critic.before_tokens(IDS)
    assert torch.allclose(before[:, 1:], after[:, :-1], atol=1e-6)
    assert (before[:, 0] == 0).all()


def test_a_value_does_not_know_the_token_it_comes_before(policy, prm):
    critic = Critic.create("prm", policy, prm)
    changed = IDS.clone()
    changed[0, 3:] = 8
    with torch.no_grad():
        values, others = critic.before_tokens(IDS), critic.before_tokens(changed)
    assert torch.allclose(values[0, :4], others[0, :4], atol=1e-6)
    assert not torch.allclose(values[0, 4], others[0, 4], atol=1e-3)


def test_padding_is_inert(policy, prm):
    critic = Critic.create("prm", policy, prm)
    padded = torch.nn.functional.pad(IDS, (0, 6), value=9)
    with torch.no_grad():
        assert torch.allclose(critic.before_tokens(padded)[:, :5], critic.before_tokens(IDS), atol=1e-6)


def test_calibration_finds_the_least_squares_line(policy, prm):
    critic = Critic.create("prm", policy, prm)
    mask = IDS != 1
    with torch.no_grad():
        values = critic.before_tokens(IDS)
    returns = 3 * values - 2
    assert critic.calibrate(values, returns, mask) == pytest.approx((3, -2), abs=1e-4)
    with torch.no_grad():
        assert torch.allclose(critic.before_tokens(IDS)[:, 1:], returns[:, 1:], atol=1e-4)


def test_calibration_never_explains_less_than_a_constant(policy, prm):
    critic = Critic.create("prm", policy, prm)
    mask = torch.ones_like(IDS, dtype=torch.bool)
    mask[:, 0] = False
    returns = torch.rand(IDS.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = critic.before_tokens(IDS)
        critic.calibrate(before, returns, mask)
        after = critic.before_tokens(IDS)
    assert explained_variance(before, returns, mask) < 0 <= explained_variance(after, returns, mask) + 1e-6
    assert after[mask].mean() == pytest.approx(float(returns[mask].mean()), abs=1e-5)


def test_calibration_to_constant_returns_moves_the_mean_and_keeps_the_features(policy, prm):
    critic = Critic.create("prm", policy, prm)
    weight = critic.head.weight.clone()
    mask = torch.ones_like(IDS, dtype=torch.bool)
    with torch.no_grad():
        values = critic(IDS)
        slope, _ = critic.calibrate(values, torch.full_like(values, 0.5), mask)
        assert critic(IDS).mean() == pytest.approx(0.5, abs=1e-5)
    assert slope == 1
    assert torch.equal(critic.head.weight, weight)


def test_save_and_load(policy, prm, tmp_path):
    critic = Critic.create("prm", policy, prm)
    critic.save_pretrained(tmp_path)
    loaded = Critic.from_pretrained(tmp_path, policy=policy)
    with torch.no_grad():
        assert torch.equal(loaded(IDS), critic(IDS))


def test_dropout_is_off_even_in_training_mode(toy):
    critic = Critic.create("policy", toy.model(attention_dropout=0.5)).train()
    torch.nn.init.ones_(critic.head.weight)
    assert torch.equal(critic(IDS), critic(IDS))


def test_an_unknown_start_lists_the_choices(policy):
    with pytest.raises(UnknownNameError, match="policy, prm, scratch"):
        Critic.create("sft", policy)


def test_prm_without_a_reward_model_is_refused(policy):
    with pytest.raises(ValueError, match="pass prm="):
        Critic.create("prm", policy)
