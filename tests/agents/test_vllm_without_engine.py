"""What of the vLLM sampler needs no engine: options, how weights leave the process, and the check of both."""

import math
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from agents.psgpo import PSGPO, PSGPOConfig
from agents.rollout import make_batch
from agents.samplers import make_sampler
from agents.samplers.agreement import logprob_gap
from agents.samplers.transformers import TransformersSampler
from agents.samplers.vllm import run_engine
from agents.samplers.weights import export_weights, weights_checksum
from codegym import MissingExtraError, UnknownNameError
from prm.alignment import newlines_per_token
from prm.completion import Completion


def test_without_vllm_the_error_says_what_to_install(toy, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MissingExtraError, match=r"needs the package 'vllm'.*pip install 'codegym\[vllm\]'"):
        make_sampler("vllm", toy.model(), toy.tokenizer())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_model_len": 0}, "max_model_len must be at least 1, got 0"),
        ({"kv_cache_bytes": -1}, "kv_cache_bytes must be at least 1, got -1"),
        ({"tensor_parallel_size": 0}, "tensor_parallel_size must be at least 1, got 0"),
        ({"gpu_memory_utilization": 0.0}, r"gpu_memory_utilization must be in \(0, 1\], got 0.0"),
        ({"gpu_memory_utilization": 1.1}, r"gpu_memory_utilization must be in \(0, 1\], got 1.1"),
    ],
)
def test_options_are_checked_before_anything_starts(toy, options, message):
    with pytest.raises(ValueError, match=message):
        make_sampler("vllm", toy.model(), toy.tokenizer(), **options)


def test_an_unknown_option_is_refused(toy):
    with pytest.raises(UnknownNameError, match="kv_cache_gigabytes"):
        make_sampler("vllm", toy.model(), toy.tokenizer(), kv_cache_gigabytes=1)


def train_a_step(model, optimizer):
    ids = torch.tensor([[3, 4, 5, 6]])
    model(ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize(
    "options",
    [{"fused": True}, {"foreach": True}, {"foreach": False}],
    ids=lambda options: next(iter(options)),
)
def test_a_step_of_any_optimizer_changes_the_checksum(toy, options):
    model = toy.model()
    before = weights_checksum(model)
    train_a_step(model, torch.optim.AdamW(model.parameters(), lr=1e-5, **options))
    assert weights_checksum(model) != before


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_last_bit_of_any_weight_changes_the_checksum(toy, dtype):
    model = toy.model().to(dtype)
    before = weights_checksum(model)
    assert weights_checksum(model) == before
    for parameter in model.parameters():
        flat = parameter.data.view(-1)  # through .data, which PyTorch's own counters do not see
        old = flat[-1].clone()
        flat[-1] = torch.nextafter(old, torch.tensor(math.inf, dtype=dtype))
        assert weights_checksum(model) != before
        flat[-1] = old
    assert weights_checksum(model) == before


def test_the_checksum_takes_tensors_of_any_size_and_place(toy):
    model = toy.model()
    storage = torch.zeros(8)
    model.odd = torch.nn.Parameter(storage[1:4])  # 12 bytes from byte 4 on: not whole words
    model.turned = torch.nn.Parameter(torch.zeros(2, 3).T)
    before = weights_checksum(model)
    storage[3] = 1.0
    assert weights_checksum(model) != before


def test_equal_weights_have_equal_checksums_and_nothing_is_changed(toy):
    assert weights_checksum(toy.model(seed=1)) == weights_checksum(toy.model(seed=1))
    assert weights_checksum(toy.model(seed=1)) != weights_checksum(toy.model(seed=2))


def test_an_exported_model_is_the_model(toy, tmp_path):
    model = toy.model()
    export_weights(model, tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, weight in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], weight), name
    export_weights(toy.model(seed=5), tmp_path)
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(again.lm_head.weight, toy.model(seed=5).lm_head.weight)


@pytest.mark.parametrize("tied", [True, False])
def test_tied_weights_are_written_for_each_of_their_uses(toy, tmp_path, tied):
    model = toy.model(tie_word_embeddings=tied)
    export_weights(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    assert set(weights) == set(model.state_dict())
    same = torch.equal(weights["lm_head.weight"], weights["model.embed_tokens.weight"])
    assert same is tied
    assert (model.lm_head.weight is model.model.embed_tokens.weight) is tied  # still, in the model itself


def test_the_active_adapter_is_merged_into_what_is_exported(toy, tmp_path):
    pytest.importorskip("peft")
    from prm.lora import LoRAConfig, add_adapter

    model = add_adapter(toy.model(), LoRAConfig(rank=4))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    before = weights_checksum(model)
    train_a_step(model, optimizer)
    train_a_step(model, optimizer)
    after = weights_checksum(model)
    assert after != before
    export_weights(model, tmp_path)
    assert weights_checksum(model) == after
    assert set(load_file(tmp_path / "model.safetensors")) == set(toy.model().state_dict())
    ids = torch.tensor([[3, 4, 5, 6, 7]])
    with torch.no_grad():
        merged = AutoModelForCausalLM.from_pretrained(tmp_path)(ids).logits
        torch.testing.assert_close(merged, model(ids).logits, atol=1e-5, rtol=1e-5)
        assert (merged - toy.model()(ids).logits).abs().max() > 1e-3


class FakeEngine:
    """vLLM's engine as `run_engine` sees it: asleep until it has all rows, which then end now and then."""

    def __init__(self, steps, first=7):
        self.steps, self.number, self.awake, self.log = list(steps), first, True, []
        self.llm_engine = self

    def reset_prefix_cache(self):
        self.log.append("cache")

    def sleep(self, level):
        self.awake = False

    def enqueue(self, rows, settings, use_tqdm):
        assert not self.awake
        assert len(rows) == len(settings)
        self.first, self.number = self.number, self.number + len(rows)
        return [f"{number}-abcdef01" for number in range(self.first, self.number)]

    def wake_up(self, tags):
        self.awake = tags == ["scheduling"]

    def has_unfinished_requests(self):
        return bool(self.steps)

    def step(self):
        assert self.awake
        return [
            SimpleNamespace(request_id=str(number), finished=finished)
            for number, finished in self.steps.pop(0)
        ]


def test_rows_are_known_by_the_engines_numbers_and_what_was_interrupted_is_left_out():
    engine = FakeEngine([[], [(5, True), (7, False)], [(9, True), (5, True)], [(7, True), (8, True)]])
    steps = run_engine(engine, [{}] * 3, [None] * 3)
    ended = [[(row, output.request_id) for row, output in step] for step in steps]
    assert ended == [[(2, "9")], [(0, "7"), (1, "8")]]
    assert engine.log == ["cache"]


def batch_of(toy, prompts, completions):
    newlines = newlines_per_token(toy.tokenizer())
    credits = [np.zeros(len(c.text.splitlines()) + c.finished) for c in completions]
    return make_batch(prompts, completions, credits, newlines)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_a_sampler_that_computes_the_same_has_no_gap(toy, temperature):
    model, prompts = toy.model(), [[3, 4], [5, 6, 7], [8]]
    groups = TransformersSampler(model, toy.tokenizer()).sample(
        prompts, n=2, max_new_tokens=9, temperature=temperature
    )
    completions = [completion for group in groups for completion in group]
    batch = batch_of(toy, [prompt for prompt in prompts for _ in range(2)], completions)
    gap = logprob_gap(model, batch, temperature=temperature, max_tokens=16)
    assert 0 <= gap.mean <= gap.max < 1e-5


def test_a_gap_is_that_of_the_written_tokens(toy):
    model, prompt, tokens = toy.model(), [3, 4], (5, 6)
    with torch.no_grad():
        logprobs = model(torch.tensor([[*prompt, *tokens]])).logits[0].log_softmax(-1)
    right = [float(logprobs[1, 5]), float(logprobs[2, 6])]
    told = Completion(token_ids=tokens, logprobs=(right[0] + 0.25, right[1] - 0.5), text="cd", finished=False)
    gap = logprob_gap(model, batch_of(toy, [prompt], [told]))
    assert gap.max == pytest.approx(0.5, abs=1e-5)
    assert gap.mean == pytest.approx(0.375, abs=1e-5)


def test_nothing_drawn_is_nothing_to_compare(toy):
    nothing = Completion(token_ids=(), logprobs=(), text="", finished=False)
    with pytest.raises(ValueError, match="no drawn token"):
        logprob_gap(toy.model(), batch_of(toy, [[3]], [nothing]))


def test_an_agent_hands_its_options_to_its_sampler(toy):
    agents = [
        PSGPO(
            toy.model(),
            toy.env(),
            PSGPOConfig(sampler_options=options),
            tokenizer=toy.tokenizer(),
            device="cpu",
        )
        for options in ({}, {"batch_size": 7})
    ]
    assert [agent.sampler.batch_size for agent in agents] == [256, 7]
    with pytest.raises(UnknownNameError, match="batch_sise"):
        PSGPO(
            toy.model(), toy.env(), PSGPOConfig(sampler_options={"batch_sise": 7}), tokenizer=toy.tokenizer()
        )


def test_options_of_a_sampler_survive_a_checkpoint(toy, tmp_path):
    config = PSGPOConfig(sampler_options={"batch_size": 7})
    PSGPO(toy.model(), toy.env(), config, tokenizer=toy.tokenizer(), device="cpu").save(tmp_path / "agent")
    assert PSGPO.load(tmp_path / "agent", toy.env(), device="cpu").sampler.batch_size == 7
