"""The bundled tiny model: a tokenizer trained on the stepwise corpus, and a Llama of 0.6 million weights."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END_OF_TEXT = "<|endoftext|>"
PADDING = "<|padding|>"


@dataclass(frozen=True, kw_only=True)
class TinyModelConfig:
    """Shape of the bundled model."""

    vocab_size: int = 1024  # tokens, the 256 bytes and 2 special ones included
    hidden_size: int = 128  # width of the residual stream
    n_layers: int = 3
    n_heads: int = 4
    n_kv_heads: int = 2  # grouped-query attention: heads that share keys and values
    intermediate_size: int = 256  # width of the gated MLP
    max_position: int = 1024  # longest sequence in tokens
    # Spread of initial weights. Ten times the usual 0.02 in the embeddings, and three times it elsewhere: so
    # narrow a model otherwise spends most of a short run before it tells tokens apart.
    weight_std: float = 0.06
    embedding_std: float = 0.2

    def __post_init__(self) -> None:
        if self.vocab_size < 300:
            raise ValueError(f"vocab_size must be at least 300 (256 bytes and merges), got {self.vocab_size}")
        for name in ("hidden_size", "n_layers", "n_heads", "n_kv_heads", "intermediate_size", "max_position"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("weight_std", "embedding_std"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        if self.hidden_size % (2 * self.n_heads) or self.n_heads % self.n_kv_heads:
            raise ValueError(
                f"hidden_size must be an even multiple of n_heads, and n_heads a multiple of n_kv_heads, "
                f"got {self.hidden_size}, {self.n_heads} and {self.n_kv_heads}"
            )


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE whose tokens may span words ("superwords") inside a line.

    Every newline is a token of its own, so each line's end has a token to carry its reward. The first word
    of a line, with its indentation, is never merged with what follows: the label `v3` in a prompt and the
    variable `v3` that the code binds start with the same token, which is what a small model learns to
    match first. Any text survives `decode(encode(text))` unchanged.

    Args:
        texts: What to learn merges from; the same texts give the same tokenizer.
        vocab_size: Tokens in all, the 256 bytes and 2 special ones included.
    """
    tokenizer = Tokenizer(models.BPE())
    first_words = pre_tokenizers.Split(Regex(r"^ *\w+|\n"), behavior="isolated")
    in_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first_words, in_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT, PADDING],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END_OF_TEXT,
        pad_token=PADDING,
        clean_up_tokenization_spaces=False,
    )


def llama_config(config: TinyModelConfig, **tokens: int) -> LlamaConfig:
    """The bundled model's shape for transformers; `tokens` are what its tokenizer decides."""
    return LlamaConfig(
        **{"vocab_size": config.vocab_size, "bos_token_id": None, **tokens},
        hidden_size=config.hidden_size,
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        num_key_value_heads=config.n_kv_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position,
        tie_word_embeddings=True,
        initializer_range=config.weight_std,
    )


def make_tiny_model(
    tokenizer: PreTrainedTokenizerFast, config: TinyModelConfig, *, seed: int
) -> LlamaForCausalLM:
    """Build the untrained bundled model; the same seed gives the same weights, and no global RNG moves."""
    llama = llama_config(
        config,
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(llama)
        torch.nn.init.normal_(model.get_input_embeddings().weight, std=config.embedding_std)
        return model
