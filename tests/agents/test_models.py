import json

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config, Qwen2ForCausalLM

from agents.models import checkpoint_gradients, load_policy, load_prm, save_policy
from agents.shared_weights import adapter_names, rests_on
from codegym.errors import MissingExtraError
from prm.lora import LoRAConfig, add_adapter, merge_adapter, save_adapter
from prm.model import ProcessRewardModel

LORA = LoRAConfig(rank=2, alpha=4.0)
IDS = torch.tensor([[3, 2, 4, 2, 0], [5, 2, 6, 0, 1]])


def make_qwen(seed=0, **changes):
    torch.manual_seed(seed)
    shape = {
        "vocab_size": 16, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1,
    }  # fmt: skip
    return Qwen2ForCausalLM(Qwen2Config(**{**shape, **changes})).eval()


def moved(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in trained_weights(model):
            weight.add_(0.1 * torch.randn(weight.shape, generator=generator))
    return model


def trained_weights(network):
    return [weight for weight in network.parameters() if weight.requires_grad]


def logits(model):
    with torch.no_grad():
        return model(input_ids=IDS).logits


@pytest.fixture
def base(toy, tmp_path):
    """A folder with a model and its tokenizer."""
    make_qwen().save_pretrained(tmp_path / "base")
    toy.tokenizer().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def test_a_folder_gives_model_and_tokenizer(base):
    policy, tokenizer = load_policy(base)
    assert torch.equal(logits(policy), logits(make_qwen()))
    assert tokenizer("a")["input_ids"] == [3]
    assert not policy.training
    assert len(trained_weights(policy)) == len(list(policy.parameters()))


def test_a_model_is_taken_as_it_is_and_needs_its_tokenizer(toy):
    model = make_qwen()
    assert load_policy(model, toy.tokenizer())[0] is model
    with pytest.raises(ValueError, match="pass tokenizer="):
        load_policy(model)


def test_weights_are_read_in_the_type_asked_for_and_adapters_in_float32(base):
    policy, _ = load_policy(base, dtype=torch.bfloat16, lora=LORA)
    assert {w.requires_grad: w.dtype for w in policy.parameters()} == {
        False: torch.bfloat16,
        True: torch.float32,
    }


def test_the_attention_implementation_can_be_chosen(base):
    assert load_policy(base, attention="eager")[0].config._attn_implementation == "eager"
    assert load_policy(base)[0].config._attn_implementation == "sdpa"
    with pytest.raises(ValueError, match="nowhere"):
        load_policy(base, attention="nowhere")


def test_dropout_is_off_in_model_and_adapter(toy):
    model = make_qwen(attention_dropout=0.5)
    policy, _ = load_policy(model, toy.tokenizer(), lora=LoRAConfig(rank=2, dropout=0.5))
    moved(policy).train()
    assert torch.equal(logits(policy), logits(policy))


def test_a_fresh_adapter_depends_on_its_seed_alone(base):
    state = torch.get_rng_state()
    one, two, other = (load_policy(base, lora=LORA, seed=seed)[0] for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(trained_weights(one), trained_weights(two), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b) for a, b in zip(trained_weights(one), trained_weights(other), strict=True)
    )


def test_an_adapters_folder_holds_the_adapter_and_the_name_of_its_base(base, tmp_path):
    policy, tokenizer = load_policy(base, lora=LORA)
    save_policy(moved(policy), tokenizer, tmp_path / "policy")
    assert not (tmp_path / "policy/model.safetensors").exists()
    about = json.loads((tmp_path / "policy/adapter_config.json").read_text())
    assert about["base_model_name_or_path"] == str(base)
    assert (tmp_path / "policy/adapter_model.safetensors").stat().st_size < (
        base / "model.safetensors"
    ).stat().st_size


def test_an_adapters_folder_is_read_back_and_goes_on_training(base, tmp_path):
    policy, tokenizer = load_policy(base, lora=LORA)
    save_policy(moved(policy), tokenizer, tmp_path / "policy")
    read, _ = load_policy(tmp_path / "policy", lora=LoRAConfig(rank=8))
    assert torch.equal(logits(read), logits(policy))
    assert [w.shape for w in trained_weights(read)] == [w.shape for w in trained_weights(policy)]


def test_transformers_reads_what_was_saved_whole_or_as_an_adapter(base, tmp_path):
    policy, tokenizer = load_policy(base, lora=LORA)
    moved(policy)
    for merge in (False, True):
        save_policy(policy, tokenizer, tmp_path / str(merge), merge=merge)
        read = AutoModelForCausalLM.from_pretrained(tmp_path / str(merge))
        torch.testing.assert_close(logits(read), logits(policy), atol=1e-5, rtol=1e-5)
        assert bool(adapter_names(read)) is not merge


def test_a_merged_policy_is_rounded_once_to_the_type_of_the_frozen_weights(base, tmp_path):
    policy, tokenizer = load_policy(base, lora=LORA, dtype=torch.bfloat16)
    save_policy(moved(policy), tokenizer, tmp_path / "merged", merge=True)
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert read.dtype == torch.bfloat16
    for one, exact in zip(read.parameters(), merge_adapter(policy).parameters(), strict=True):
        assert torch.equal(one, exact.to(torch.bfloat16))


def test_merging_a_plain_policy_saves_it(base, tmp_path):
    policy, tokenizer = load_policy(base)
    save_policy(policy, tokenizer, tmp_path / "policy", merge=True)
    assert torch.equal(logits(load_policy(tmp_path / "policy")[0]), logits(policy))


def test_a_base_that_moved_can_be_named(base, tmp_path):
    policy, tokenizer = load_policy(base, lora=LORA)
    save_policy(moved(policy), tokenizer, tmp_path / "policy")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="base"):
        load_policy(tmp_path / "policy")
    for named in (tmp_path / "elsewhere", make_qwen()):
        read, _ = load_policy(tmp_path / "policy", base=named)
        assert torch.equal(logits(read), logits(policy))


def test_an_adapter_of_a_model_without_a_folder_asks_for_it(toy, tmp_path):
    policy, tokenizer = load_policy(make_qwen(), toy.tokenizer(), lora=LORA)
    save_policy(policy, tokenizer, tmp_path / "policy")
    with pytest.raises(ValueError, match="does not say which model it belongs to: pass base="):
        load_policy(tmp_path / "policy")
    read, _ = load_policy(tmp_path / "policy", base=make_qwen())
    assert torch.equal(logits(read), logits(policy))


@pytest.fixture
def make_prm(toy, tmp_path):
    """A folder as training a reward model with `keep_adapter=True` leaves it."""

    def make(base):
        prm = ProcessRewardModel.from_backbone(base, toy.tokenizer(), head="newline")
        add_adapter(prm.backbone, LORA, seed=5)
        moved(prm, seed=5)
        prm.save_pretrained(tmp_path / "prm")
        save_adapter(prm.backbone, tmp_path / "prm/adapter")
        return tmp_path / "prm", prm

    return make


def outputs(prm):
    with torch.no_grad():
        return prm(IDS, torch.ones_like(IDS))


def test_a_reward_model_rests_on_the_policys_frozen_weights(base, make_prm):
    folder, trained = make_prm(base)
    policy, _ = load_policy(base, lora=LORA)
    before = logits(moved(policy))
    prm = load_prm(folder, policy)
    assert rests_on(prm.backbone, policy)
    assert torch.equal(outputs(prm), outputs(trained))
    assert torch.equal(logits(policy), before)
    assert prm.head_name == "newline"
    moved(prm)
    assert torch.equal(logits(policy), before)


@pytest.mark.parametrize("lora", [None, LORA])
def test_a_reward_model_of_another_model_is_read_as_a_whole(base, make_prm, tmp_path, lora):
    make_qwen(seed=3).save_pretrained(tmp_path / "other")
    folder, trained = make_prm(tmp_path / "other" if lora else base)
    policy, _ = load_policy(base, lora=lora)
    prm = load_prm(folder, policy)
    assert not rests_on(prm.backbone, policy)
    torch.testing.assert_close(outputs(prm), outputs(trained), atol=1e-5, rtol=1e-5)


def test_what_is_no_reward_model_is_refused(base, tmp_path):
    with pytest.raises(ValueError, match="is not"):
        load_prm(tmp_path / "nothing", load_policy(base, lora=LORA)[0])


def test_checkpointing_is_switched_on_for_every_layer(toy):
    policy, _ = load_policy(make_qwen(), toy.tokenizer(), lora=LORA)
    checkpoint_gradients(policy)
    assert all(layer.gradient_checkpointing and layer.training for layer in policy.model.layers)


def test_without_peft_the_extra_is_named(base, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingExtraError, match="lora"):
        load_policy(base, lora=LORA)
