import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, MambaConfig, Qwen2Config

from agents.commands.psgpo import announce
from agents.config import SCALES
from agents.memory import (
    GIB,
    MemoryEstimate,
    ModelSize,
    NotEnoughMemoryError,
    announce_memory,
    available_memory,
    check_memory,
    estimate_memory,
)
from agents.policy_config import PolicyConfig
from agents.psgpo_config import PSGPOConfig
from prm.lora import LoRAConfig

# the published config.json of Qwen2.5-7B
QWEN_7B = Qwen2Config(
    num_hidden_layers=28,
    hidden_size=3584,
    num_attention_heads=28,
    num_key_value_heads=4,
    intermediate_size=18944,
    vocab_size=152064,
    tie_word_embeddings=False,
)
TINY = ModelSize(
    n_weights=1000, n_backbone=800, n_adapter=0,
    n_layers=2, hidden=8, kv_width=4, intermediate=16, vocabulary=20,
)  # fmt: skip
CONFIG = PSGPOConfig(rollouts_per_iteration=4, max_new_tokens=6, micro_batch_tokens=100)
LARGE = PSGPOConfig(
    lora=LoRAConfig(rank=16),
    dtype="bfloat16",
    gradient_checkpointing=True,
    rollouts_per_iteration=128,
    max_new_tokens=512,
    micro_batch_tokens=2048,
)


@pytest.fixture(scope="module")
def qwen():
    return ModelSize.of(QWEN_7B, LARGE.lora)


def test_the_size_of_qwen_7b_is_the_published_one(qwen):
    assert qwen.n_weights == 7_615_616_512
    assert qwen.n_weights - qwen.n_backbone == 152_064 * 3584
    assert (qwen.n_layers, qwen.hidden, qwen.kv_width) == (28, 3584, 4 * 128)
    # per layer with rank 16: q, o 3584x3584; k, v 3584x512; gate, up, down 3584x18944
    per_layer = 16 * (2 * (3584 + 3584) + 2 * (3584 + 512) + 3 * (3584 + 18944))
    assert qwen.n_adapter == 28 * per_layer == 40_370_176


def test_qwen_7b_with_adapters_by_hand(qwen):
    estimate = estimate_memory(qwen, LARGE, prompt_tokens=512, prm="shared")
    trained = 40_370_176 + 40_370_176 + 3585  # policy, critic, the critic's head
    assert estimate.resident == {
        "frozen weights, shared": 15_231_233_024,
        "policy": 161_480_704,
        "critic": 161_495_044,
        "reward model": 161_480_704,
        "gradients": 4 * trained,
        "optimizers": 8 * trained,
    }
    assert estimate.sampling == {
        # keys and values, 2 bytes, 128 rows of 1024 tokens, 28 layers, 4 heads of 128
        "sampling: keys and values": 2 * 2 * 128 * 1024 * 28 * 4 * 128,
        "sampling: logits": 26 * 128 * 152_064,
    }
    # one layer: 2 (9 x 3584 + 2 x 512 + 4 x 18944) + 2 x 2 x 3584 + 4 (6 x 3584 + 18944)
    # and the inputs of 28 layers: 28 x 2 x 3584
    assert estimate.updating == {
        "update: activations": 2048 * (394_240 + 200_704),
        "update: logits": 2048 * 152_064 * 14,
    }
    assert estimate.peak / GIB == pytest.approx(14.19 + 3 * 0.15 + 0.30 + 0.60 + 7.00 + 0.47, abs=0.03)


def test_qwen_7b_as_a_whole_does_not_fit_one_gpu(qwen):
    whole = replace(LARGE, lora=None, dtype="float32")
    estimate = estimate_memory(qwen, whole, prompt_tokens=512)
    assert estimate.resident["policy"] == estimate.resident["reference"] == 4 * 7_615_616_512
    assert estimate.resident["optimizers"] == 8 * (2 * 7_615_616_512 - 152_064 * 3584 + 3585)
    assert estimate.peak > 250 * GIB


def test_a_tiny_model_by_hand():
    estimate = estimate_memory(TINY, CONFIG, prompt_tokens=4, prm="whole")
    assert estimate.resident == {
        "policy": 4000,
        "reference": 4000,
        "critic": 4 * 809,
        "reward model": 3200,
        "gradients": 4 * 1809,
        "optimizers": 8 * 1809,
    }
    assert estimate.sampling == {
        "sampling: keys and values": 2 * 4 * 4 * 10 * 2 * 4,
        "sampling: logits": (4 + 8 + 16) * 4 * 20,
    }
    assert estimate.updating == {
        "update: activations": 100 * 2 * 4 * (9 * 8 + 2 * 4 + 4 * 16),
        "update: logits": 100 * 20 * 16,
    }
    assert estimate.peak == sum(estimate.resident.values()) + max(
        sum(estimate.sampling.values()), sum(estimate.updating.values())
    )


def test_a_policy_without_a_critic_needs_none():
    estimate = estimate_memory(TINY, PolicyConfig(), prompt_tokens=4)
    assert "critic" not in estimate.resident
    assert estimate.resident["optimizers"] == 8 * 1000


def test_a_scratch_critic_under_adapters_trains_as_a_whole():
    size = replace(TINY, n_adapter=50)
    config = replace(CONFIG, lora=LoRAConfig(), critic_init="scratch")
    assert estimate_memory(size, config, prompt_tokens=4).resident["critic"] == 4 * 809


@pytest.mark.parametrize(
    "change",
    [{"micro_batch_tokens": 50}, {"gradient_checkpointing": True}, {"max_new_tokens": 3}],
    ids=lambda change: next(iter(change)),
)
def test_what_saves_memory_lowers_the_estimate(change):
    size = replace(TINY, n_layers=12)
    less = estimate_memory(size, replace(CONFIG, **change), prompt_tokens=4)
    more = estimate_memory(size, CONFIG, prompt_tokens=4)
    assert sum(less.updating.values()) + sum(less.sampling.values()) < sum(more.updating.values()) + sum(
        more.sampling.values()
    )


def test_a_long_program_is_computed_at_once_even_beyond_the_micro_batch():
    short, long = (estimate_memory(TINY, CONFIG, prompt_tokens=n) for n in (4, 1000))
    assert long.updating["update: logits"] == 1006 * 20 * 16
    assert short.updating["update: logits"] == 100 * 20 * 16


def test_tied_embeddings_are_counted_once():
    tied, untied = (
        ModelSize.of(LlamaConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                                 intermediate_size=8, tie_word_embeddings=tie))
        for tie in (True, False)
    )  # fmt: skip
    assert untied.n_weights - tied.n_weights == 50 * 16
    assert tied.n_backbone == tied.n_weights == untied.n_backbone


def test_the_table_names_every_item_in_gib():
    estimate = MemoryEstimate(resident={"policy": 3 * GIB}, sampling={"s": GIB}, updating={"u": GIB // 2})
    assert [line.split() for line in estimate.table().splitlines()] == [
        ["policy", "3.00", "GiB"],
        ["s", "1.00", "GiB"],
        ["u", "0.50", "GiB"],
        ["peak", "4.00", "GiB"],
    ]


def test_too_little_memory_is_a_warning_and_beyond_the_limit_an_error():
    estimate = MemoryEstimate(resident={"policy": 3 * GIB}, sampling={}, updating={})
    assert check_memory(estimate, available=4 * GIB) == []
    assert check_memory(estimate, available=4 * GIB, max_memory_gb=3.0) == []
    (warning,) = check_memory(estimate, available=2 * GIB)
    assert warning == "the run needs about 3.0 GiB, but the device has 2.0 GiB"
    with pytest.raises(
        NotEnoughMemoryError, match=r"needs about 3.0 GiB, more than the 2.5 GiB(.|\n)*policy"
    ):
        check_memory(estimate, available=4 * GIB, max_memory_gb=2.5)


def test_the_main_job_says_what_it_needs_and_refuses_too_much(caplog):
    caplog.set_level("INFO")
    announce(SCALES["small"], None)
    assert "peak" in caplog.text
    assert "the device has" not in caplog.text
    with pytest.raises(NotEnoughMemoryError, match=r"more than the 0.001 GiB it may take"):
        announce(SCALES["small"], 0.001)


def test_a_model_by_path_is_measured_by_its_configuration_alone(tmp_path, caplog):
    QWEN_7B.save_pretrained(tmp_path)
    config = replace(SCALES["small"], model=str(tmp_path), rl=LARGE)
    with pytest.raises(NotEnoughMemoryError, match=r"frozen weights, shared +14.19 GiB"):
        announce(config, 20.0)


def test_what_is_no_transformer_is_not_estimated(caplog):
    announce_memory(MambaConfig(num_hidden_layers=1), PSGPOConfig(), what="a run")
    assert "memory of a run is not estimated" in caplog.text


def test_this_machine_has_memory():
    assert available_memory("cpu") > GIB // 2


MEASURE = """
import resource, sys, torch
from transformers import LlamaConfig, LlamaForCausalLM
from agents.critic import Critic
from agents.memory import ModelSize, estimate_memory
from agents.models import checkpoint_gradients, load_policy
from agents.psgpo_config import PSGPOConfig
from agents.rollout import RolloutBatch
from agents.shared_weights import make_reference
from agents.update import Experience, Learner, token_logprobs, update
from prm.lora import LoRAConfig
torch.set_num_threads(1)
kind = sys.argv[1]
lora = LoRAConfig(rank=8) if kind != "whole" else None
config = PSGPOConfig(micro_batch_tokens=512, lora=lora, gradient_checkpointing=kind == "checkpointed",
                     rollouts_per_iteration=4, max_new_tokens=96, n_minibatches=1)
shape = LlamaConfig(hidden_size=576, intermediate_size=1536, num_hidden_layers=12, num_attention_heads=9,
                    num_key_value_heads=3, vocab_size=16384, tie_word_embeddings=True)
estimate = estimate_memory(ModelSize.of(shape, lora), config, prompt_tokens=32)
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
torch.randn(64, 64).requires_grad_().sum().backward()
before = peak()
policy, _ = load_policy(LlamaForCausalLM(shape), object(), lora=lora)
reference, critic = make_reference(policy), Critic.create("policy", policy)
if config.gradient_checkpointing:
    checkpoint_gradients(policy), checkpoint_gradients(critic.backbone)
ids = torch.randint(0, 16384, (4, 128))
mask = torch.zeros_like(ids, dtype=torch.bool)
mask[:, 8:] = True
zeros = torch.zeros(4, 128)
batch = RolloutBatch(ids=ids, mask=mask, logprobs=zeros, rewards=zeros,
                     prompt_lengths=torch.full((4,), 8), lengths=torch.full((4,), 128))
token_logprobs(reference, batch, temperature=1.0, max_tokens=512)
experience = Experience(batch=batch, advantages=torch.randn(4, 128), values=zeros, returns=zeros)
learners = Learner.of(policy), Learner.of(critic)
for step in range(2):
    update(*learners, experience, config, seed=(0, step))
resident, updating = sum(estimate.resident.values()), sum(estimate.updating.values())
print((peak() - before) / (resident + updating), resident / 2**20, updating / 2**20)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "adapters", "checkpointed"])
def test_the_estimate_is_near_the_measured_peak(kind):
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, kind], capture_output=True, text=True, timeout=250, check=True
    )
    ratio, *expected = map(float, done.stdout.split())
    # what allocator and libraries keep besides does not grow with the model: it weighs on small ones
    assert 0.7 < ratio < 1.1 + 400 / sum(expected), done.stdout


def test_bytes_follow_the_type():
    assert torch.finfo(torch.bfloat16).bits == 16
    size = replace(TINY, n_adapter=50)
    config = replace(CONFIG, lora=LoRAConfig(), dtype="bfloat16")
    assert estimate_memory(size, config, prompt_tokens=4).resident["frozen weights, shared"] == 2000
