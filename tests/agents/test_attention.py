import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from agents.samplers.attention import attend_to_cache, decoding_attention


def tensors(*, heads, key_heads, tokens, columns=7, batch=3, size=8):
    generator = torch.Generator().manual_seed(0)
    query = torch.randn((batch, heads, tokens, size), generator=generator)
    key, value = (torch.randn((batch, key_heads, columns, size), generator=generator) for _ in range(2))
    mask = torch.ones((batch, 1, tokens, columns), dtype=torch.bool)
    mask[0, :, :, :4] = False
    return query, key, value, mask


class Layer(torch.nn.Module):
    def __init__(self, groups):
        super().__init__()
        self.num_key_value_groups = groups


@pytest.mark.parametrize(("heads", "key_heads"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("scaling", [None, 0.3])
@pytest.mark.parametrize("tokens", [1, 5])
def test_it_equals_the_fused_attention(heads, key_heads, masked, scaling, tokens):
    query, key, value, mask = tensors(heads=heads, key_heads=key_heads, tokens=tokens)
    layer, mask = Layer(heads // key_heads), mask if masked else None
    ours, weights = attend_to_cache(layer, query, key, value, mask, scaling=scaling)
    theirs, _ = sdpa_attention_forward(layer, query, key, value, mask, scaling=scaling)
    assert weights is None
    torch.testing.assert_close(ours, theirs)


def test_one_masked_column_has_no_influence():
    query, key, value, mask = tensors(heads=2, key_heads=1, tokens=1)
    before, _ = attend_to_cache(Layer(2), query, key, value, mask)
    key[0, :, :4], value[0, :, :4] = 100.0, -100.0
    after, _ = attend_to_cache(Layer(2), query, key, value, mask)
    assert torch.equal(before, after)


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


def test_a_model_that_asked_for_another_attention_keeps_it():
    model = tiny_llama(attn_implementation="eager")
    with decoding_attention(model):
        assert model.config._attn_implementation == "eager"
