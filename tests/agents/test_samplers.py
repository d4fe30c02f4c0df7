import math
from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma2Config,
    GenerationConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from agents.samplers import SAMPLERS, make_sampler
from agents.samplers import transformers as sampling
from agents.samplers.attention import shares_prefixes
from agents.samplers.contract import tells_finished
from agents.samplers.drawing import draw
from agents.samplers.transformers import TransformersSampler
from codegym.errors import UnknownNameError
from prm.completion import Completer

VOCABULARY = ["<eos>", "<pad>", "\n", *(chr(ord("!") + i) for i in range(45))]
EOS = 0


def make_tokenizer():
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )


SHAPE = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": 1,
}
CONFIGS = {
    "llama": LlamaConfig(**SHAPE),
    "qwen2": Qwen2Config(**SHAPE),
    "gpt2": GPT2Config(
        vocab_size=len(VOCABULARY), n_embd=32, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=EOS
    ),
    "sliding": MistralConfig(**SHAPE, sliding_window=8),
    "sliding in turns": Gemma2Config(**SHAPE, sliding_window=8, head_dim=8),
    "position bias": BloomConfig(
        vocab_size=len(VOCABULARY), hidden_size=32, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=EOS
    ),
}
SHARING = {"llama", "qwen2", "gpt2"}


def make_model(name="llama", sharpness=4.0):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIGS[name]).eval()
    with torch.no_grad():  # far from uniform, so that a wrong position or mask shows
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(sharpness)
    return model


def growing_rope_model():
    """Positions beyond 16 change its frequencies, which it keeps, for all rows of a batch."""
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0}
    return LlamaForCausalLM(LlamaConfig(**SHAPE, max_position_embeddings=16, rope_parameters=rope)).eval()


def make_prompts(n, longest=17):
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(1, longest + 1, (n,), generator=generator).tolist()
    return [torch.randint(2, len(VOCABULARY), (length,), generator=generator).tolist() for length in lengths]


def flat(groups):
    return [completion for group in groups for completion in group]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module", params=sorted(CONFIGS))
def any_model(request):
    return make_model(request.param)


@torch.no_grad()
def forward_logprobs(model, prompt, completion, temperature):
    ids = torch.tensor([[*prompt, *completion.token_ids]])
    logprobs = (model(ids).logits[0, len(prompt) - 1 : -1] / temperature).log_softmax(-1)
    return logprobs.gather(1, ids[0, len(prompt) :, None])[:, 0]


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_the_training_forward(any_model, tokenizer, temperature):
    prompts = make_prompts(9)
    sampler = TransformersSampler(any_model, tokenizer, batch_size=16, prefill_tokens=48)
    groups = sampler.sample(prompts, n=3, max_new_tokens=30, temperature=temperature, seed=1)
    lengths = {len(completion.token_ids) for completion in flat(groups)}
    assert len(lengths) > 3  # rows ended at different times: compaction was at work
    for prompt, group in zip(prompts, groups, strict=True):
        for completion in group:
            expected = forward_logprobs(any_model, prompt, completion, temperature)
            torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_draws_do_not_depend_on_batching(any_model, tokenizer):
    prompts = make_prompts(12)
    results = [
        TransformersSampler(any_model, tokenizer, batch_size=size, prefill_tokens=tokens).sample(
            prompts, n=2, max_new_tokens=20, seed=3
        )
        for size, tokens in ((64, 4096), (5, 16), (1, 1))
    ]
    ids = [[completion.token_ids for completion in flat(result)] for result in results]
    assert ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize("options", [{}, {"batch_size": 5}], ids=["one batch", "several batches"])
def test_it_tells_of_every_completion_once_and_as_it_returns_it(any_model, tokenizer, options):
    told = []
    sampler = TransformersSampler(any_model, tokenizer, **options)
    groups = sampler.sample(make_prompts(9), n=2, max_new_tokens=20, seed=1, on_finished=told.append)
    items = [item for batch in told for item in batch]
    assert len(items) == 18
    assert dict(items) == dict(enumerate(flat(groups)))
    assert all(told)
    assert groups == sampler.sample(make_prompts(9), n=2, max_new_tokens=20, seed=1)


def test_it_tells_of_a_completion_before_others_are_written(tokenizer):
    model, n_forwards, told = make_model(), [], []
    model.register_forward_hook(lambda *_: n_forwards.append(1))
    TransformersSampler(model, tokenizer).sample(
        make_prompts(12),
        max_new_tokens=30,
        seed=1,
        on_finished=lambda items: told.extend((len(n_forwards), c) for _, c in items),
    )
    assert {c.finished for _, c in told} == {True, False}
    assert [n for n, c in told] == [len(c.token_ids) for _, c in told]  # in the step that ended it


def test_threads_tell_too(tokenizer, monkeypatch):
    monkeypatch.setattr(sampling, "ROWS_PER_WORKER", 4)
    told, before = [], torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        groups = TransformersSampler(make_model(), tokenizer).sample(
            make_prompts(9), max_new_tokens=20, seed=1, on_finished=told.extend
        )
    finally:
        torch.set_num_threads(before)
    assert sorted(place for place, _ in told) == list(range(9))
    assert dict(told) == dict(enumerate(flat(groups)))


def test_what_goes_wrong_in_the_listener_is_raised(tokenizer):
    def refuse(items):
        raise KeyError("listener")

    with pytest.raises(KeyError, match="listener"):
        TransformersSampler(make_model(), tokenizer).sample([[3]], max_new_tokens=3, on_finished=refuse)


def test_whether_a_sampler_tells_is_seen_from_its_signature(tokenizer):
    def sample(prompts, **options):
        return []

    assert tells_finished(TransformersSampler(make_model(), tokenizer))
    assert not tells_finished(SimpleNamespace(identity="scripted", sample=sample))


def test_greedy_equals_generate(any_model, tokenizer):
    prompts = make_prompts(5)
    groups = TransformersSampler(any_model, tokenizer).sample(prompts, max_new_tokens=12, temperature=0)
    settings = GenerationConfig(
        max_new_tokens=12, do_sample=False, eos_token_id=EOS, pad_token_id=1, bos_token_id=None
    )
    for prompt, (completion,) in zip(prompts, groups, strict=True):
        ids = torch.tensor([prompt])
        output = any_model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
        assert list(completion.token_ids) == output[0, len(prompt) :].tolist()
        expected = forward_logprobs(any_model, prompt, completion, 1.0)
        torch.testing.assert_close(torch.tensor(completion.logprobs), expected, atol=1e-4, rtol=1e-4)


def test_the_seed_decides(tokenizer):
    sampler = TransformersSampler(make_model(), tokenizer)
    prompts = make_prompts(4)
    once, again, other = (sampler.sample(prompts, n=2, max_new_tokens=15, seed=seed) for seed in (1, 1, 2))
    assert once == again
    assert once != other


def test_samples_of_one_prompt_differ_and_equal_prompts_draw_apart(tokenizer):
    sampler = TransformersSampler(make_model(sharpness=1.0), tokenizer)
    (group, twin) = sampler.sample([[5, 6], [5, 6]], n=4, max_new_tokens=10, seed=0)
    assert len({completion.token_ids for completion in (*group, *twin)}) == 8


def test_sampling_leaves_global_randomness_and_the_model_alone(tokenizer):
    model = make_model().train()
    state = torch.get_rng_state()
    TransformersSampler(model, tokenizer).sample([[3]], max_new_tokens=3)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", [*sorted(CONFIGS), "growing rope"])
def test_a_model_can_be_trained_and_copied_after_it_was_sampled_from(tokenizer, name):
    model = make_model(name) if name in CONFIGS else growing_rope_model()
    groups = TransformersSampler(model, tokenizer).sample(make_prompts(3), n=2, max_new_tokens=30)
    ids = torch.tensor([groups[0][0].token_ids])
    deepcopy(model)(ids, labels=ids).loss.backward()
    model(ids, labels=ids).loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_an_ended_text_has_its_end_token_and_no_more(tokenizer):
    groups = TransformersSampler(make_model(), tokenizer).sample(make_prompts(20), n=3, max_new_tokens=40)
    finished = [completion for completion in flat(groups) if completion.finished]
    cut = [completion for completion in flat(groups) if not completion.finished]
    assert finished
    assert cut
    for completion in finished:
        assert completion.token_ids.index(EOS) == len(completion.token_ids) - 1
        assert completion.text == "".join(
            VOCABULARY[token] for token in completion.token_ids[:-1] if token > 1
        )
    for completion in cut:
        assert EOS not in completion.token_ids
        assert len(completion.token_ids) == len(completion.logprobs) == 40


def test_any_of_several_end_tokens_ends_a_text(tokenizer):
    model = make_model()
    model.generation_config.eos_token_id = [EOS, 7, 9]
    groups = TransformersSampler(model, tokenizer).sample(make_prompts(20), n=2, max_new_tokens=40)
    assert {c.token_ids[-1] for c in flat(groups) if c.finished} == {EOS, 7, 9}


def test_frequencies_are_the_models_probabilities(tokenizer):
    model, n = make_model(sharpness=1.5), 4000
    (group,) = TransformersSampler(model, tokenizer, batch_size=n).sample([[4, 8]], n=n, max_new_tokens=1)
    counts = torch.bincount(torch.tensor([c.token_ids[0] for c in group]), minlength=len(VOCABULARY))
    with torch.no_grad():
        expected = model(torch.tensor([[4, 8]])).logits[0, -1].softmax(-1)
    error = (counts / n - expected).abs() / (expected * (1 - expected) / n).sqrt()
    assert error.max() < 4.5


def test_equal_prompts_are_read_once(tokenizer):
    model, read = make_model(), []
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: read.append(inputs[0].shape)
    )
    TransformersSampler(model, tokenizer).sample([[3, 4, 5], [3, 4, 5], [6]], n=8, max_new_tokens=1)
    assert read == [(2, 3)]


def test_rows_that_ended_are_not_computed_any_more(tokenizer):
    model, rows = make_model(), []
    model.get_input_embeddings().register_forward_hook(
        lambda module, inputs, output: rows.append(inputs[0].shape[0])
    )
    groups = TransformersSampler(model, tokenizer).sample(make_prompts(64), max_new_tokens=40)
    alive = [sum(len(c.token_ids) > step for c in flat(groups)) for step in range(1, len(rows))]
    assert all(
        computed <= max(needed / 0.85 + 1, 1) for computed, needed in zip(rows[1:], alive, strict=True)
    )


@pytest.mark.parametrize("size", [1, 31, 32, 33, 1000])
def test_drawing_is_the_inverse_of_the_running_sum_for_any_vocabulary(size):
    generator = torch.Generator().manual_seed(size)
    logits = torch.randn((200, size), generator=generator, dtype=torch.float64) * 3
    uniforms = torch.rand(200, generator=generator, dtype=torch.float64)
    expected = torch.searchsorted(logits.softmax(-1).cumsum(-1), uniforms[:, None], right=True)[:, 0]
    tokens, logprobs = draw(logits, uniforms, 1.0)
    assert torch.equal(tokens, expected.clamp(max=size - 1))
    torch.testing.assert_close(
        logprobs.double(), logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0], atol=1e-5, rtol=1e-5
    )


def test_drawing_inverts_the_cumulative_distribution():
    logits = torch.log(torch.tensor([[0.1, 0.2, 0.7]])).repeat(5, 1)
    uniforms = torch.tensor([0.0, 0.09, 0.11, 0.31, 0.9999999], dtype=torch.float64)
    tokens, logprobs = draw(logits, uniforms, 1.0)
    assert tokens.tolist() == [0, 0, 1, 2, 2]
    assert logprobs.exp().tolist() == pytest.approx([0.1, 0.1, 0.2, 0.7, 0.7])


def test_a_token_without_probability_is_never_drawn():
    logits = torch.tensor([[-math.inf, 0.0, -math.inf]]).repeat(2, 1)
    tokens, _ = draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), 1.0)
    assert tokens.tolist() == [1, 1]


def test_temperature_sharpens_what_is_drawn_and_reported():
    logits = torch.log(torch.tensor([[0.2, 0.8]]))
    tokens, logprobs = draw(logits, torch.tensor([0.01], dtype=torch.float64), 0.5)
    assert tokens.tolist() == [0]
    assert logprobs.exp().item() == pytest.approx(0.04 / 0.68)


def test_identity_follows_the_weights(tokenizer):
    model = make_model()
    sampler = TransformersSampler(model, tokenizer)
    before = sampler.identity
    assert before == TransformersSampler(make_model(), tokenizer).identity
    assert before.startswith("LlamaForCausalLM-")
    with torch.no_grad():
        model.model.norm.weight[0] += 1e-3
    assert sampler.identity != before


def test_no_prompts_no_completions(tokenizer):
    assert TransformersSampler(make_model(), tokenizer).sample([], max_new_tokens=4) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": [[1], []], "max_new_tokens": 4}, "prompt 1 has no tokens"),
        ({"prompts": [[1]], "max_new_tokens": 0}, "max_new_tokens=0"),
        ({"prompts": [[1]], "max_new_tokens": 4, "n": 0}, "n=0"),
        ({"prompts": [[1]], "max_new_tokens": 4, "temperature": -1.0}, "got -1.0"),
        ({"prompts": [[1]], "max_new_tokens": 4, "temperature": math.nan}, "got nan"),
    ],
)
def test_a_bad_request_is_named(tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        TransformersSampler(make_model(), tokenizer).sample(**arguments)


def test_a_batch_size_of_nothing_is_refused(tokenizer):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        TransformersSampler(make_model(), tokenizer, batch_size=0)


def test_a_model_without_an_end_token_is_refused(tokenizer):
    bare = make_tokenizer()
    bare.eos_token = None
    model = make_model()
    model.config.eos_token_id = model.generation_config.eos_token_id = None
    with pytest.raises(ValueError, match="end-of-text token"):
        TransformersSampler(model, bare)


def test_architectures_that_do_not_fit_use_their_own_cache():
    assert {name for name in CONFIGS if shares_prefixes(make_model(name))} == SHARING


@pytest.mark.parametrize("name", sorted(SHARING))
def test_sharing_prompts_changes_nothing(tokenizer, name):
    shared, plain = make_model(name), make_model(name)
    plain.set_attn_implementation("eager")  # which leaves the model to its own cache
    prompts = make_prompts(7)
    one, other = (
        flat(TransformersSampler(model, tokenizer).sample(prompts, n=5, max_new_tokens=25, seed=4))
        for model in (shared, plain)
    )
    assert [completion.token_ids for completion in one] == [completion.token_ids for completion in other]
    for a, b in zip(one, other, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("n", [1, 3, 100])
def test_threads_that_share_the_rows_out_draw_the_same(tokenizer, n):
    model, prompts = make_model(), make_prompts(-(-120 // n))
    before = torch.get_num_threads()
    drawn = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            drawn.append(
                TransformersSampler(model, tokenizer).sample(prompts, n=n, max_new_tokens=12, seed=2)
            )
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    one, two = ([completion.token_ids for completion in flat(groups)] for groups in drawn)
    assert one == two


@pytest.mark.parametrize("n", [1, 4, 20])
@pytest.mark.parametrize("n_shares", [2, 3])
def test_shares_are_even_and_keep_a_prompts_rows_together(n, n_shares):
    rows = [(prompt,) * (prompt // 5 + 1) for prompt in range(120 // n) for _ in range(n)]
    shares = sampling._share_out(rows, list(range(len(rows))), n_shares)
    assert sorted(row for share in shares for row in share) == list(range(len(rows)))
    assert max(map(len, shares)) - min(map(len, shares)) <= n
    assert all(share == sorted(share) for share in shares)
    prompts = [{rows[row] for row in share} for share in shares]
    assert sum(map(len, prompts)) == len(set(rows))


def test_the_rows_of_one_prompt_are_split_where_one_share_would_get_them_all():
    assert sampling._share_out([(3, 4)] * 5, [0, 1, 2, 3, 4], 2) == [[0, 1, 2], [3, 4]]


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"vllm"}))  # whose engine has its own tests
def test_every_sampler_of_the_table_is_a_completer(tokenizer, name):
    sampler: Completer = make_sampler(name, make_model(), tokenizer)
    (group,) = sampler.sample([[3, 4]], n=2, max_new_tokens=3, temperature=1.0, seed=0)
    assert len(group) == 2
    assert sampler.identity


def test_an_unknown_sampler_lists_the_choices(tokenizer):
    with pytest.raises(UnknownNameError, match="choose from transformers"):
        make_sampler("transfomers", make_model(), tokenizer)
