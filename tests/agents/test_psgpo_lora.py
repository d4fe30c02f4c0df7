"""PSGPO as for a large model, at the smallest scale: a random Qwen2 under adapters."""

import hashlib
import json
from dataclasses import asdict, replace

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from agents.models import load_policy
from agents.policy_config import PolicyConfig
from agents.psgpo import PSGPO, PSGPOConfig
from agents.shared_weights import rests_on
from prm.lora import LoRAConfig, add_adapter, save_adapter
from prm.model import ProcessRewardModel

LORA = LoRAConfig(rank=2, alpha=8.0)
CONFIG = PSGPOConfig(
    n_iterations=4,
    rollouts_per_iteration=16,
    max_new_tokens=5,
    critic_only_iterations=1,
    warmup_iterations=1,
    learning_rate=1e-2,
    micro_batch_tokens=64,
    lora=LORA,
)
LARGE = replace(CONFIG, dtype="bfloat16", gradient_checkpointing=True)


def make_qwen(seed=0):
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 11, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**shape)).eval()


@pytest.fixture
def base(tmp_path):
    make_qwen().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


@pytest.fixture
def make_agent(toy, base):
    def make(config=CONFIG, **options):
        options = {"tokenizer": toy.tokenizer(), "device": "cpu", **options}
        return PSGPO(options.pop("policy", base), toy.env(), config, **options)

    return make


def trained(agent):
    networks = {"policy": agent.policy, "critic": agent.critic}
    return {
        f"{role}.{name}": weight
        for role, network in networks.items()
        for name, weight in network.named_parameters()
        if weight.requires_grad
    }


def digest(agent):
    sha = hashlib.sha256()
    for name, weight in sorted(trained(agent).items()):
        sha.update(name.encode() + weight.detach().numpy().tobytes())
    for learner in agent.learners.values():
        for _, slots in sorted(learner.optimizer.state_dict()["state"].items()):
            for name, tensor in sorted(slots.items()):
                sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


def frozen_bytes(network):
    sha = hashlib.sha256()
    for name, weight in sorted(network.named_parameters()):
        if not weight.requires_grad:
            sha.update(name.encode() + weight.detach().view(torch.uint8).numpy().tobytes())
    return sha.hexdigest()


@pytest.mark.parametrize("config", [CONFIG, LARGE], ids=["float32", "bfloat16, checkpointed"])
def test_training_moves_adapters_and_heads_alone(make_agent, config):
    agent = make_agent(config)
    before = {name: weight.detach().clone() for name, weight in trained(agent).items()}
    frozen = [frozen_bytes(network) for network in (agent.policy, agent.critic, agent.reference)]
    for _ in range(2):
        metrics = agent.iterate(0.0)
        assert metrics["train/kl_to_reference"] == pytest.approx(0, abs=0.05)
        assert all(number == number for key, number in metrics.items() if key.startswith("train/"))
    assert frozen == [frozen_bytes(network) for network in (agent.policy, agent.critic, agent.reference)]
    for role in ("policy", "critic"):
        moved = [not torch.equal(w, before[name]) for name, w in trained(agent).items() if role in name]
        assert any(moved)


def test_the_optimizers_hold_adapters_and_heads_alone(make_agent):
    agent = make_agent().learn(total_timesteps=1)
    per_layer = 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    sizes = {
        name: sum(weight.numel() for group in learner.optimizer.param_groups for weight in group["params"])
        for name, learner in agent.learners.items()
    }
    assert sizes == {"policy": 2 * per_layer, "critic": 2 * per_layer + 33}


def test_the_first_kl_is_zero(make_agent):
    agent = make_agent(replace(CONFIG, critic_only_iterations=0, n_minibatches=1))
    metrics = agent.iterate(0.0)
    assert metrics["train/kl_to_reference"] == pytest.approx(0, abs=1e-6)
    assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-9)


def test_policy_reference_and_critic_store_the_frozen_weights_once(make_agent):
    agent = make_agent()
    assert rests_on(agent.critic.backbone, agent.policy)
    storage = {weight.data_ptr() for weight in agent.policy.parameters() if not weight.requires_grad}
    assert storage <= {weight.data_ptr() for weight in agent.reference.parameters()}


def test_twice_as_long_is_the_same_as_stopping_half_way_bit_for_bit(make_agent, toy, tmp_path):
    straight = make_agent().learn()
    half = make_agent()
    while half.iteration < 2:
        half.iterate(half.iteration / 4)
    half.save(tmp_path / "half")
    resumed = PSGPO.load(tmp_path / "half", toy.env(), device="cpu").learn()
    assert resumed.iteration == straight.iteration == 4
    assert digest(resumed) == digest(straight)


def test_a_resumed_run_in_bfloat16_with_checkpointed_gradients_is_the_same_too(make_agent, toy, tmp_path):
    straight, half = make_agent(LARGE), make_agent(LARGE)
    for _ in range(3):
        straight.iterate(0.0)
    half.iterate(0.0)
    half.save(tmp_path / "half")
    resumed = PSGPO.load(tmp_path / "half", toy.env(), device="cpu")
    assert resumed.policy.dtype == torch.bfloat16
    assert all(layer.gradient_checkpointing for layer in resumed.critic.backbone.layers)
    for _ in range(2):
        resumed.iterate(0.0)
    assert digest(resumed) == digest(straight)


def test_a_checkpoint_holds_adapters_and_heads_alone(make_agent, tmp_path):
    agent = make_agent()
    agent.iterate(0.0)
    agent.save(tmp_path / "agent")
    names = {
        str(path.relative_to(tmp_path / "agent")) for path in (tmp_path / "agent").rglob("*.safetensors")
    }
    assert names == {
        "policy/adapter_model.safetensors",
        "critic/adapter_model.safetensors",
        "critic/head.safetensors",
        "policy_optimizer.safetensors",
        "critic_optimizer.safetensors",
    }
    adapter = load_file(tmp_path / "agent/policy/adapter_model.safetensors")
    assert sum(weight.numel() for weight in adapter.values()) == sum(
        weight.numel() for name, weight in trained(agent).items() if name.startswith("policy")
    )


def test_a_base_that_changed_or_moved_is_noticed(make_agent, toy, base, tmp_path):
    agent = make_agent()
    agent.iterate(0.0)
    agent.save(tmp_path / "agent")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="not the one that it was trained on"):
        PSGPO.load(tmp_path / "agent", toy.env(), device="cpu", base=make_qwen(seed=1))
    loaded = PSGPO.load(tmp_path / "agent", toy.env(), device="cpu", base=tmp_path / "elsewhere")
    assert digest(loaded) == digest(agent)


def test_a_reference_of_ones_own_is_kept(make_agent, toy, tmp_path):
    agent = make_agent(reference=make_qwen(seed=5))
    agent.save(tmp_path / "agent")
    loaded = PSGPO.load(tmp_path / "agent", toy.env(), device="cpu")
    for one, other in zip(agent.reference.parameters(), loaded.reference.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_reward_models_adapter_starts_the_critic_and_survives_the_checkpoint(
    make_agent, toy, base, tmp_path
):
    policy, tokenizer = load_policy(base, toy.tokenizer(), lora=LORA)
    # another rank than the policy's: the critic keeps the reward model's
    prm = ProcessRewardModel.from_backbone(base, tokenizer, head="newline")
    add_adapter(prm.backbone, LoRAConfig(rank=3), seed=5)
    torch.nn.init.normal_(prm.head.weight, generator=torch.Generator().manual_seed(2))
    prm.save_pretrained(tmp_path / "prm")
    save_adapter(prm.backbone, tmp_path / "prm/adapter")
    config = replace(CONFIG, critic_init="prm")
    agent = make_agent(config, policy=policy, prm=tmp_path / "prm")
    assert rests_on(agent.critic.backbone, agent.policy)
    metrics = agent.iterate(0.0)
    assert "critic/calibration_slope" in metrics
    agent.save(tmp_path / "agent")
    loaded = PSGPO.load(tmp_path / "agent", toy.env(), device="cpu")
    assert digest(loaded) == digest(agent)


def test_the_trained_policy_is_read_by_transformers(make_agent, tmp_path):
    agent = make_agent().learn()
    ids = torch.tensor([[3, 2, 4, 2]])
    for merge in (False, True):
        agent.save_policy(tmp_path / str(merge), merge=merge)
        read = AutoModelForCausalLM.from_pretrained(tmp_path / str(merge))
        with torch.no_grad():
            expected = agent.policy(input_ids=ids).logits
            torch.testing.assert_close(read(input_ids=ids).logits, expected, atol=1e-5, rtol=1e-5)


def test_settings_survive_json():
    for lora in (None, LORA, LoRAConfig(target_modules=("q_proj", "v_proj"))):
        config = replace(CONFIG, lora=lora)
        assert PSGPOConfig.from_row(json.loads(json.dumps(asdict(config)))) == config


def test_bfloat16_weights_are_for_adapters_to_rest_on():
    with pytest.raises(ValueError, match=r"rounded away: train an adapter \(lora\)"):
        PolicyConfig(dtype="bfloat16")
    assert PolicyConfig(dtype="bfloat16", lora=LORA).dtype == "bfloat16"


def test_an_adapter_with_dropout_is_no_policy():
    with pytest.raises(ValueError, match=r"must not have dropout.* 0.1"):
        PolicyConfig(lora=LoRAConfig(dropout=0.1))
