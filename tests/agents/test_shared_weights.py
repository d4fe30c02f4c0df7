"""Every model here is a tiny Qwen2: grouped queries, biases in attention, untied embeddings."""

import hashlib

import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from agents.critic import Critic
from agents.models import checkpoint_gradients, load_policy
from agents.rollout import RolloutBatch
from agents.samplers.transformers import TransformersSampler
from agents.shared_weights import (
    copy_backbone,
    copy_trained,
    frozen_digest,
    make_reference,
    with_adapter,
)
from agents.update import token_logprobs
from prm.lora import LoRAConfig, add_adapter, save_adapter
from prm.model import ProcessRewardModel

LORA = LoRAConfig(rank=2, alpha=4.0)
IDS = torch.tensor([[3, 2, 4, 2, 0], [5, 2, 6, 0, 1]])


def make_qwen(seed=0, **changes):
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 11,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "tie_word_embeddings": False,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    return Qwen2ForCausalLM(Qwen2Config(**{**shape, **changes})).eval()


@pytest.fixture
def make_policy(toy):
    def make(*, lora=LORA, move=True, dtype=torch.float32, **changes):
        policy, _ = load_policy(make_qwen(**changes).to(dtype), toy.tokenizer(), lora=lora)
        return moved(policy) if move else policy

    return make


def moved(network, seed=0):
    """The network with the weights that train away from where they start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trained_weights(network):
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return network


def trained_weights(network):
    return [weight for weight in network.parameters() if weight.requires_grad]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


def storage(network):
    return {weight.data_ptr() for weight in network.parameters()}


def frozen_bytes(network):
    """Hash of what must not change."""
    sha = hashlib.sha256()
    for name, weight in network.named_parameters():
        if not weight.requires_grad:
            sha.update(name.encode() + weight.detach().float().numpy().tobytes())
    return sha.hexdigest()


def train_a_little(network, loss):
    optimizer = torch.optim.AdamW(trained_weights(network), lr=0.05)
    for _ in range(3):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


def train_policy(policy):
    train_a_little(policy, lambda: policy(input_ids=IDS).logits.log_softmax(-1)[..., 3].sum())


def train_critic(critic):
    train_a_little(critic, lambda: (critic(IDS) - 1).square().sum())


# --- one frozen model under all ---


def test_a_fresh_adapters_policy_is_its_reference_bit_for_bit(make_policy):
    policy = make_policy(move=False)
    assert torch.equal(logits(policy), logits(make_reference(policy)))


def test_the_reference_of_a_policy_with_an_adapter_is_the_model_under_it(make_policy):
    policy = make_policy()
    assert torch.equal(logits(make_reference(policy)), logits(make_qwen()))
    assert not torch.equal(logits(policy), logits(make_qwen()))


def test_a_plain_policys_reference_is_a_copy(make_policy):
    policy = make_policy(lora=None)
    reference = make_reference(policy)
    before = logits(reference)
    assert torch.equal(before, logits(policy))
    assert not storage(policy) & storage(reference)
    train_policy(policy)
    assert torch.equal(logits(reference), before)
    assert trained_weights(reference) == []
    assert len(trained_weights(policy)) == len(list(policy.parameters()))


def test_policy_reference_and_critic_store_the_frozen_weights_once(make_policy):
    policy = make_policy()
    reference, critic = make_reference(policy), Critic.create("policy", policy)
    frozen = {weight.data_ptr() for weight in policy.parameters() if not weight.requires_grad}
    plain = storage(make_qwen())
    assert len(frozen) == len(plain)
    assert frozen <= storage(reference)
    # all but the vocabulary head, which a critic has no use for
    assert frozen - storage(critic) == {policy.lm_head.weight.data_ptr()}
    assert not {w.data_ptr() for w in trained_weights(policy)} & storage(critic)


def test_training_changes_the_adapter_alone(make_policy):
    policy = make_policy()
    before, said = frozen_bytes(policy), logits(policy)
    train_policy(policy)
    assert frozen_bytes(policy) == before
    assert not torch.allclose(logits(policy), said)
    assert all("lora_" in name for name, weight in policy.named_parameters() if weight.grad is not None)


def test_policy_and_critic_do_not_move_each_other(make_policy):
    policy = make_policy()
    reference, critic = make_reference(policy), Critic.create("policy", policy)
    policy_said, reference_said = logits(policy), logits(reference)
    train_critic(critic)
    assert torch.equal(logits(policy), policy_said)
    with torch.no_grad():
        critic_said = critic(IDS)
    train_policy(policy)
    with torch.no_grad():
        assert torch.equal(critic(IDS), critic_said)
    assert torch.equal(logits(reference), reference_said)
    assert not torch.allclose(logits(policy), policy_said)


def test_a_critic_trains_its_adapter_and_its_head(make_policy):
    critic = Critic.create("policy", make_policy())
    names = [name for name, weight in critic.named_parameters() if weight.requires_grad]
    assert all("lora_" in name or name.startswith("head.") for name in names)
    assert {"head.weight", "head.bias"} <= set(names)
    # per layer: q, o 32x32; k, v 32x16; gate, up, down 32x48; all with rank 2; the head has 32 + 1
    per_layer = 2 * (2 * (32 + 32) + 2 * (32 + 16) + 3 * (32 + 48))
    assert sum(weight.numel() for weight in trained_weights(critic)) == 2 * per_layer + 33


def test_a_scratch_critic_shares_nothing_and_is_float32(make_policy):
    policy = make_policy(dtype=torch.bfloat16)
    critic = Critic.create("scratch", policy)
    assert not storage(policy) & storage(critic)
    assert {weight.dtype for weight in critic.parameters()} == {torch.float32}


def test_a_reward_models_adapter_starts_the_critic(make_policy, toy):
    policy = make_policy()
    prm = moved(ProcessRewardModel(copy_backbone(policy), toy.tokenizer()), seed=5)
    critic = Critic.create("prm", policy, prm)
    with torch.no_grad():
        said = prm(IDS, torch.ones_like(IDS))
        assert torch.equal(critic(IDS), said)
    assert len(storage(critic) & storage(policy)) == len(storage(make_qwen())) - 1
    train_critic(critic)
    with torch.no_grad():
        assert torch.equal(prm(IDS, torch.ones_like(IDS)), said)
        assert not torch.allclose(critic(IDS), said)


# --- copies and checkpoints ---


def test_a_reward_models_adapter_on_other_weights_is_merged_into_the_critic(make_policy, toy):
    policy = make_policy(dtype=torch.bfloat16)
    prm = moved(ProcessRewardModel(add_adapter(make_qwen(seed=9).base_model, LORA), toy.tokenizer()), seed=5)
    critic = Critic.create("prm", policy, prm)
    with torch.no_grad():
        torch.testing.assert_close(critic(IDS), prm(IDS, torch.ones_like(IDS)), atol=1e-5, rtol=1e-5)
    assert len(trained_weights(critic)) == len(list(critic.parameters()))
    assert not storage(critic) & (storage(prm) | storage(policy))


def test_tied_embeddings_stay_tied(make_policy):
    policy = make_policy(tie_word_embeddings=True)
    copied = copy_trained(policy)
    assert copied.lm_head.weight is copied.model.embed_tokens.weight is policy.lm_head.weight
    reference = make_reference(make_policy(tie_word_embeddings=True, lora=None))
    assert reference.lm_head.weight is reference.model.embed_tokens.weight


def test_a_copied_backbone_is_saved_as_an_adapter_that_its_class_reads(make_policy, tmp_path):
    policy = make_policy()
    backbone = copy_backbone(policy)
    save_adapter(backbone, tmp_path)
    assert not (tmp_path / "model.safetensors").exists()
    read = with_adapter(backbone, tmp_path)
    with torch.no_grad():
        hidden = backbone(input_ids=IDS).last_hidden_state
        assert torch.equal(read(input_ids=IDS).last_hidden_state, hidden)
        assert torch.equal(policy.base_model(input_ids=IDS).last_hidden_state, hidden)
    moved(read)
    with torch.no_grad():
        assert torch.equal(backbone(input_ids=IDS).last_hidden_state, hidden)


def test_a_critics_checkpoint_holds_adapter_and_head_alone(make_policy, tmp_path):
    policy = make_policy()
    critic = moved(Critic.create("policy", policy), seed=3)
    critic.save_pretrained(tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"adapter_config.json", "adapter_model.safetensors", "head.safetensors"}
    read = Critic.from_pretrained(tmp_path, policy=policy)
    with torch.no_grad():
        assert torch.equal(read(IDS), critic(IDS))
    assert len(trained_weights(read)) == len(trained_weights(critic))
    assert len(storage(read) & storage(policy)) == len(storage(make_qwen())) - 1


def test_the_digest_knows_the_frozen_weights_and_not_the_adapter(make_policy):
    policy = make_policy()
    before = frozen_digest(policy)
    train_policy(policy)
    assert frozen_digest(policy) == before
    assert frozen_digest(make_policy(lora=LoRAConfig(rank=4, target_modules=("v_proj",)))) == before
    assert frozen_digest(make_policy(seed=1)) != before
    assert frozen_digest(make_policy(dtype=torch.bfloat16)) != before


# --- what the networks are used for ---


def rollout(policy, tokenizer):
    sampler = TransformersSampler(policy, tokenizer)
    prompts = [[3, 2], [4, 2], [5, 4, 2]]
    rows = [group[0] for group in sampler.sample(prompts, max_new_tokens=12, seed=1)]
    width = max(len(p) + len(row.token_ids) for p, row in zip(prompts, rows, strict=True))
    ids = torch.ones((3, width), dtype=torch.long)
    mask, logprobs = torch.zeros((3, width), dtype=torch.bool), torch.zeros((3, width))
    for i, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        written = slice(len(prompt), len(prompt) + len(row.token_ids))
        ids[i, : len(prompt)], ids[i, written] = torch.tensor(prompt), torch.tensor(row.token_ids)
        mask[i, written], logprobs[i, written] = True, torch.tensor(row.logprobs)
    starts = torch.tensor([len(prompt) for prompt in prompts])
    return RolloutBatch(
        ids=ids, mask=mask, logprobs=logprobs, rewards=torch.zeros_like(logprobs),
        prompt_lengths=starts, lengths=starts + mask.sum(1),
    )  # fmt: skip


def test_the_samplers_log_probabilities_are_those_of_the_training_forward(make_policy, toy):
    policy = make_policy()
    batch = rollout(policy, toy.tokenizer())
    forward = token_logprobs(policy, batch, temperature=1.0, max_tokens=64)
    torch.testing.assert_close(forward, batch.logprobs, atol=1e-5, rtol=1e-5)
    reference = token_logprobs(make_reference(policy), batch, temperature=1.0, max_tokens=64)
    assert (reference - forward)[batch.mask].abs().max() > 1e-3


def test_sampling_works_while_gradients_are_checkpointed(make_policy, toy):
    policy, same = make_policy(), make_policy()
    checkpoint_gradients(policy)
    one, other = rollout(policy, toy.tokenizer()), rollout(same, toy.tokenizer())
    assert torch.equal(one.ids, other.ids)
    assert torch.equal(one.logprobs, other.logprobs)
    assert policy.training
    forward = token_logprobs(policy, one, temperature=1.0, max_tokens=64)
    torch.testing.assert_close(forward, one.logprobs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("lora", [None, LORA])
def test_checkpointed_gradients_are_the_same(make_policy, lora):
    gradients = []
    for checkpointed in (False, True):
        policy = make_policy(lora=lora)
        critic = moved(Critic.create("policy", policy), seed=3)
        if checkpointed:
            checkpoint_gradients(policy)
            checkpoint_gradients(critic.backbone)
        # both losses before either backward pass: what is computed again must be each network's own
        chosen = functional.cross_entropy(policy(input_ids=IDS, use_cache=False).logits[0], IDS[0])
        distance = (critic(IDS) - 1).square().sum()
        chosen.backward()
        distance.backward()
        gradients.append([w.grad for n in (policy, critic) for w in trained_weights(n)])
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_checkpointing_stores_less(make_policy):
    assert stored_bytes(make_policy(), True) < 0.5 * stored_bytes(make_policy(), False)


def stored_bytes(policy, checkpointed):
    if checkpointed:
        checkpoint_gradients(policy.base_model)
    total = 0

    def count(tensor):
        nonlocal total
        total += tensor.numel() * tensor.element_size()
        return tensor

    ids = torch.randint(3, 11, (4, 64), generator=torch.Generator().manual_seed(0))
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        policy.base_model(input_ids=ids, use_cache=False)
    return total


def test_on_a_bfloat16_model_losses_are_finite_and_small_steps_are_not_lost(make_policy):
    policy = make_policy(dtype=torch.bfloat16)
    critic = Critic.create("policy", policy)
    assert {w.dtype for w in trained_weights(policy) + trained_weights(critic)} == {torch.float32}
    assert critic(IDS).dtype == torch.float32
    before = [weight.clone() for weight in trained_weights(policy)]
    loss = policy(input_ids=IDS).logits.float().log_softmax(-1)[..., 3].mean() + critic(IDS).square().mean()
    assert loss.isfinite()
    optimizer = torch.optim.AdamW(trained_weights(policy), lr=1e-6, weight_decay=0.0)
    loss.backward()
    optimizer.step()
    changed = [not torch.equal(w, b) for w, b in zip(trained_weights(policy), before, strict=True)]
    assert all(changed)


def test_a_saved_reference_is_an_ordinary_model(make_policy, tmp_path):
    policy = make_policy(lora=None)
    make_reference(policy).save_pretrained(tmp_path)
    assert torch.equal(logits(AutoModelForCausalLM.from_pretrained(tmp_path)), logits(policy))
