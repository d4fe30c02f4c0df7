"""The bundled tokenizer and model: exact round trips, determinism, and a plain Hugging Face folder."""

import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from agents.bundled import END_OF_TEXT, PADDING, TinyModelConfig, make_tiny_model, train_tokenizer
from codegym.tasks.stepwise_corpus import corpus
from prm.alignment import line_end_tokens, newlines_per_token, split_lines

PAIRS = list(corpus(1500, seed=5))
TOKENIZER = train_tokenizer((prompt + completion for prompt, completion in PAIRS), 1024)


def ids(text: str, tokenizer: PreTrainedTokenizerFast = TOKENIZER) -> list[int]:
    return tokenizer(text)["input_ids"]


@given(text=st.text())
@settings(max_examples=200)
def test_any_text_survives_encoding_and_decoding(text: str):
    assert TOKENIZER.decode(ids(text)) == text


@pytest.mark.parametrize("text", ["", "\n", "\n\n\n", " a  b ,c . d n't", "\t\r\n x", "é 漢字 🐍\n", "\x00"])
def test_awkward_text_survives_encoding_and_decoding(text: str):
    assert TOKENIZER.decode(ids(text)) == text


def test_prompts_and_programs_survive_encoding_and_decoding():
    for prompt, completion in PAIRS[:100]:
        assert TOKENIZER.decode(ids(prompt + completion)) == prompt + completion


def test_every_newline_is_a_token_of_its_own():
    (newline,) = ids("\n")
    counts = newlines_per_token(TOKENIZER)
    assert counts.sum() == counts[newline] == 1
    assert ids("a\n\n    b\n").count(newline) == 3


def test_prompt_and_completion_have_the_same_tokens_apart_and_together():
    for prompt, completion in PAIRS[:100]:
        assert ids(prompt) + ids(completion) == ids(prompt + completion)


def test_each_line_ends_at_its_newline_token():
    (newline,) = ids("\n")
    for _, completion in PAIRS[:50]:
        tokens = ids(completion)
        ends = line_end_tokens(tokens, len(split_lines(completion)), newlines_per_token(TOKENIZER))
        assert [tokens[end] for end in ends] == [newline] * len(ends)


def test_tokens_span_words_so_that_steps_are_short():
    n_tokens = sum(len(ids(completion)) for _, completion in PAIRS)
    n_steps = sum(len(split_lines(prompt)) - 4 for prompt, _ in PAIRS)
    assert n_tokens / n_steps < 11


def test_special_tokens_are_known_distinct_and_never_written():
    assert TOKENIZER.eos_token == END_OF_TEXT
    assert TOKENIZER.pad_token == PADDING
    assert TOKENIZER.eos_token_id != TOKENIZER.pad_token_id
    assert len(TOKENIZER) == 1024
    special = {TOKENIZER.eos_token_id, TOKENIZER.pad_token_id}
    assert not any(special & set(ids(prompt + completion)) for prompt, completion in PAIRS[:50])
    assert TOKENIZER.decode([TOKENIZER.eos_token_id, *ids("a b")], skip_special_tokens=True) == "a b"


def test_padding_is_on_request_only():
    batch = TOKENIZER(["a", "a\nb"], padding=True)
    assert [sum(mask) for mask in batch["attention_mask"]] == [1, 3]


def test_the_same_texts_give_the_same_tokenizer():
    texts = [prompt + completion for prompt, completion in PAIRS[:300]]
    first, second = train_tokenizer(texts, 600), train_tokenizer(iter(texts), 600)
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()


def test_a_seed_fixes_the_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first = make_tiny_model(TOKENIZER, TinyModelConfig(), seed=3).state_dict()
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(5)
    random.random()
    again = make_tiny_model(TOKENIZER, TinyModelConfig(), seed=3).state_dict()
    other = make_tiny_model(TOKENIZER, TinyModelConfig(), seed=4).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["model.embed_tokens.weight"], other["model.embed_tokens.weight"])


def test_the_default_model_is_tiny_and_tied():
    model = make_tiny_model(TOKENIZER, TinyModelConfig(), seed=0)
    assert 400_000 < model.num_parameters() < 3_000_000
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.eos_token_id == TOKENIZER.eos_token_id
    assert model.config.pad_token_id == TOKENIZER.pad_token_id


def test_the_initial_weights_have_the_spread_asked_for():
    model = make_tiny_model(TOKENIZER, TinyModelConfig(weight_std=0.05, embedding_std=0.3), seed=0)
    assert model.get_input_embeddings().weight.std().item() == pytest.approx(0.3, rel=0.02)
    assert model.model.layers[0].mlp.up_proj.weight.std().item() == pytest.approx(0.05, rel=0.05)


def test_the_first_word_of_a_line_is_one_token_in_prompt_and_code_alike():
    label, binding = ids("    v3: reverse the order\n"), ids("    v3 = v2[::-1]\n")
    assert TOKENIZER.decode(label[:1]) == "    v3"
    assert label[0] == binding[0]


def test_a_folder_brings_back_the_same_model_and_tokenizer(tmp_path: Path):
    model = make_tiny_model(TOKENIZER, TinyModelConfig(hidden_size=32, n_layers=1), seed=0).eval()
    model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    text = PAIRS[11][0] + PAIRS[11][1] + " é ,x 'll\n\n"
    assert ids(text, tokenizer) == ids(text)
    assert tokenizer.decode(ids(text)) == text
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id) == (
        TOKENIZER.eos_token_id,
        TOKENIZER.pad_token_id,
    )
    inputs = torch.tensor([ids(text)])
    assert torch.equal(loaded(inputs).logits, model(inputs).logits)


def test_the_untrained_model_generates_within_its_vocabulary():
    model = make_tiny_model(TOKENIZER, TinyModelConfig(hidden_size=32, n_layers=1), seed=0)
    torch.manual_seed(0)
    out = model.generate(torch.tensor([ids("def solve(v0):\n")]), do_sample=True, max_new_tokens=5)
    assert out.shape[1] <= len(ids("def solve(v0):\n")) + 5
    assert int(out.max()) < 1024


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("vocab_size", 100, "vocab_size must be at least 300 .*got 100"),
        ("n_layers", 0, "n_layers must be at least 1, got 0"),
        ("hidden_size", 100, "hidden_size must be an even multiple of n_heads.*got 100, 4 and 2"),
        ("weight_std", 0, "weight_std must be positive, got 0"),
        ("embedding_std", -0.2, "embedding_std must be positive, got -0.2"),
        ("n_kv_heads", 3, "n_heads a multiple of n_kv_heads, got 128, 4 and 3"),
    ],
)
def test_an_impossible_shape_is_an_error_that_names_it(field: str, value: int, message: str):
    with pytest.raises(ValueError, match=message):
        TinyModelConfig(**{field: value})
