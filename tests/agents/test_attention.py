from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agents.samplers.attention import attend, attending_to, decoding_attention
from agents.samplers.cache import SharedPrefixCache, fill_gaps


class Layer(torch.nn.Module):
    layer_idx = 0

    def __init__(self, groups):
        super().__init__()
        self.num_key_value_groups = groups


def tensors(*, heads, key_heads, tokens, columns=7, batch=3, size=8):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn((batch, heads, tokens, size), generator=generator)
    key, value = (torch.randn((batch, key_heads, columns, size), generator=generator) for _ in range(2))
    mask = torch.ones((batch, 1, tokens, columns), dtype=torch.bool)
    mask[0, :, :, :4] = False
    return query, key, value, mask


def filled_cache(key, value, is_token, prompt_of_row):
    """Prompts of all columns but the last two, which are new tokens that the rows of a prompt share here."""
    width = key.shape[2] - 2
    cache = SharedPrefixCache(tiny_llama(attn_implementation="sdpa").config, max_new_tokens=3)
    cache.start_group(prompt_of_row, is_token[:, :width])
    cache.update(key[:, :, :width], value[:, :, :width], 0)
    for column in (width, width + 1):
        cache.start_step()
        new = slice(column, column + 1)
        cache.update(key[prompt_of_row][:, :, new], value[prompt_of_row][:, :, new], 0)
    return cache


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2]])
def test_it_equals_the_fused_attention(heads, key_heads, scaling, rows):
    query, key, value, mask = tensors(heads=heads, key_heads=key_heads, tokens=1)
    rows, layer = torch.tensor(rows), Layer(heads // key_heads)
    cache, query = filled_cache(key, value, mask[:, 0, 0], rows), query[rows]
    with attending_to(cache):
        ours, weights = attend(layer, query, key[rows, :, -1:], value[rows, :, -1:], None, scaling=scaling)
    theirs, _ = sdpa_attention_forward(layer, query, key[rows], value[rows], mask[rows], scaling=scaling)
    assert weights is None
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("rows", [[0, 1, 2], [0, 0, 1, 1, 2, 2], [0, 1, 1, 1, 2]])
@given(data=st.data())
def test_rows_that_stay_do_not_notice_that_others_are_dropped(rows, data):
    query, key, value, mask = tensors(heads=4, key_heads=2, tokens=1)
    rows = torch.tensor(rows)
    alive = torch.tensor(
        data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)).filter(any))
    )
    cache = filled_cache(key, value, mask[:, 0, 0], rows)
    grouped = query[rows].view(len(rows), 2, 2, 8)
    before = cache.attend(0, grouped)
    kept = cache.keep(alive)
    assert sorted(kept.tolist()) == alive.nonzero().flatten().tolist()
    torch.testing.assert_close(cache.attend(0, grouped[kept]), before[kept])


def test_what_is_longer_than_a_token_and_what_is_not_decoded_goes_to_the_fused_attention():
    query, key, value, mask = tensors(heads=4, key_heads=2, tokens=5)
    ours, _ = attend(Layer(2), query, key, value, mask)
    theirs, _ = sdpa_attention_forward(Layer(2), query, key, value, mask)
    assert torch.equal(ours, theirs)


def test_padding_has_no_influence():
    query, key, value, mask = tensors(heads=2, key_heads=1, tokens=1)
    grouped, rows = query.view(3, 1, 2, 8), torch.arange(3)
    before = filled_cache(key, value, mask[:, 0, 0], rows).attend(0, grouped)
    key[0, :, :4], value[0, :, :4] = 100.0, -100.0
    assert torch.equal(filled_cache(key, value, mask[:, 0, 0], rows).attend(0, grouped), before)


def test_a_prompt_is_stored_once_for_the_rows_that_share_it():
    _, key, value, mask = tensors(heads=2, key_heads=1, tokens=1)
    shared = filled_cache(key, value, mask[:, 0, 0], torch.tensor([0, 0, 1, 2, 2])).groups[0].states[0]
    assert shared.prompt_keys.shape == (3, 1, 5, 8)
    assert shared.keys.shape == (5, 1, 3, 8)
    single = filled_cache(key, value, mask[:, 0, 0], torch.arange(3)).groups[0].states[0]
    assert single.prompt_keys.shape[2] == 0
    assert single.keys.shape == (3, 1, 8, 8)


def test_prompts_that_nobody_continues_are_dropped():
    _, key, value, mask = tensors(heads=2, key_heads=1, tokens=1)
    cache = filled_cache(key, value, mask[:, 0, 0], torch.tensor([0, 0, 1, 1, 2, 2]))
    cache.keep(torch.tensor([False, False, True, False, True, True]))
    assert (cache.groups[0].n_prompts, cache.groups[0].n_rows) == (2, 3)
    cache.keep(torch.tensor([False, False, False]))
    assert cache.groups == []


@pytest.mark.parametrize(
    ("alive", "expected"),
    [([1, 0, 0, 1], [0, 3]), ([1, 1], [0, 1]), ([0, 0], []), ([0, 1, 1, 0, 1], [4, 1, 2])],
)
def test_survivors_from_the_back_fill_the_gaps_in_front(alive, expected):
    assert fill_gaps(torch.tensor(alive, dtype=torch.bool)).tolist() == expected


def test_a_position_bias_is_not_silently_left_out():
    query, key, value, mask = tensors(heads=2, key_heads=1, tokens=1)
    cache = filled_cache(key, value, mask[:, 0, 0], torch.arange(3))
    with attending_to(cache), pytest.raises(NotImplementedError, match="Layer adds a position bias"):
        attend(Layer(2), query, key, value, None, position_bias=torch.zeros(1))


def test_a_thread_attends_to_its_own_cache_only():
    query, key, value, mask = tensors(heads=4, key_heads=2, tokens=1)
    fused, _ = sdpa_attention_forward(Layer(2), query, key, value, mask)
    with (
        attending_to(filled_cache(key, value, mask[:, 0, 0], torch.arange(3))),
        ThreadPoolExecutor(1) as pool,
    ):
        elsewhere, _ = pool.submit(attend, Layer(2), query, key, value, mask).result()
    assert torch.equal(elsewhere, fused)


def tiny_llama(**options):
    config = LlamaConfig(
        vocab_size=16, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    return LlamaForCausalLM._from_config(config, **options)


def test_the_model_gets_its_own_attention_back_even_after_an_error():
    model = tiny_llama(attn_implementation="sdpa")

    def fail():
        with decoding_attention(model):
            assert model.config._attn_implementation == "codegym_decode"
            raise KeyError("oops")

    with pytest.raises(KeyError, match="oops"):
        fail()
    assert model.config._attn_implementation == "sdpa"


def test_a_thread_that_is_done_does_not_take_the_attention_from_another_that_is_not():
    model = tiny_llama(attn_implementation="sdpa")
    first, second = decoding_attention(model), decoding_attention(model)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert model.config._attn_implementation == "codegym_decode"
    second.__exit__(None, None, None)
    assert model.config._attn_implementation == "sdpa"


def test_a_model_that_asked_for_another_attention_keeps_it():
    model = tiny_llama(attn_implementation="eager")
    with decoding_attention(model):
        assert model.config._attn_implementation == "eager"
