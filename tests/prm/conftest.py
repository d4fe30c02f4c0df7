"""A tiny language to learn: the prompt lists digits, the program repeats them, and some lines are wrong."""

import random
from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from codegym import Verdict
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram, SampledProgram

END = "<|end|>"
N_DIGITS = 3
N_LETTERS = 4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def make_tokenizer(*, merge_newlines: bool = False) -> PreTrainedTokenizerFast:
    """One token per byte; with `merge_newlines`, a newline and the space after it are one token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("Ċ", "Ġ")] if merge_newlines else []
    vocabulary = {END: 0, **{letter: index for index, letter in enumerate(alphabet, start=1)}}
    vocabulary |= {"".join(pair): len(vocabulary) + index for index, pair in enumerate(merges)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)


def make_backbone(vocab_size: int = 257, *, seed: int = 0, dropout: float = 0.0) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocab_size,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            attention_dropout=dropout,
            bos_token_id=None,
            eos_token_id=0,
        )
    )


def digit_program(
    tokenizer: PreTrainedTokenizerFast, number: int, *, error_rate: float = 0.2
) -> LabeledProgram:
    """The program `number`; right and wrong lines follow from the number alone."""
    rng = random.Random(number)
    digits = [rng.randrange(N_LETTERS) for _ in range(N_DIGITS)]
    written = [rng.randrange(N_LETTERS) if rng.random() < error_rate else digit for digit in digits]
    labels, right = [], True
    for digit, line in zip(digits, written, strict=True):
        right = right and digit == line
        labels.append(1.0 if right else -1.0)
    prompt, completion = ("".join(f"{digit}\n" for digit in row) for row in (digits, written))
    return LabeledProgram(
        program=SampledProgram(
            program_id=f"scripted/digits/{number}",
            task_id=f"digits/{''.join(map(str, digits))}",
            policy=f"scripted/{number % 2}",
            prompt_ids=tuple(tokenizer(prompt)["input_ids"]),
            token_ids=(*tokenizer(completion)["input_ids"], tokenizer.eos_token_id),
            completion=completion,
            finished=True,
            verdict=Verdict.PASSED if right else Verdict.WRONG_ANSWER,
            results=(right,),
        ),
        labels=tuple(labels),
        source="scripted",
    )


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


@pytest.fixture(scope="session")
def merging_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer(merge_newlines=True)


@pytest.fixture
def backbone() -> LlamaForCausalLM:
    return make_backbone()


@pytest.fixture
def make_causal_model() -> Callable[..., LlamaForCausalLM]:
    return make_backbone


@pytest.fixture(scope="session")
def digits(tokenizer: PreTrainedTokenizerFast) -> Callable[[range], list[LabeledProgram]]:
    """Programs by their numbers."""
    return lambda numbers: [digit_program(tokenizer, number) for number in numbers]


@pytest.fixture
def random_model(tokenizer: PreTrainedTokenizerFast) -> Callable[..., ProcessRewardModel]:
    """A model whose head is not zero, so that its scores differ from line to line."""

    def make(head: str = "token_sum", seed: int = 0) -> ProcessRewardModel:
        model = ProcessRewardModel.from_backbone(make_backbone(seed=seed), tokenizer, head=head)
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.head.weight)
        return model

    return make
