"""A toy language: the prompt is a letter, and the right program repeats it on one line."""

from types import SimpleNamespace

import gymnasium as gym
import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import codegym  # noqa: F401 - registers CodeGen-v0
from codegym.task import CallTest, Task
from codegym.testing import ScriptedJudge, judgement

LETTERS = "abcdefgh"
VOCABULARY = ["<eos>", "<pad>", "\n", *LETTERS]


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tiny tensors on many threads are slow, and results must not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_tokenizer():
    tokenizer = Tokenizer(
        models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<pad>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(?m)."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<pad>", clean_up_tokenization_spaces=False
    )


def make_model(seed=0, **changes):
    torch.manual_seed(seed)
    shape = {
        "vocab_size": len(VOCABULARY),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "tie_word_embeddings": True,
        "bos_token_id": None,
        "eos_token_id": 0,
        "pad_token_id": 1,
    }
    return LlamaForCausalLM(LlamaConfig(**{**shape, **changes})).eval()


def make_tasks():
    test = CallTest(args=(), expected=0)
    trace = {"args": [], "values": {"a": [], "return": []}}
    return [
        Task(
            task_id=letter,
            prompt=f"{letter}\n",
            entry_point=None,
            tests=(test,),
            reference=f"{letter}\n",
            metadata={"horizon": 1, "trace": trace},
        )
        for letter in LETTERS
    ]


def decide(task, source):
    return judgement(task, int(source == f"{task.prompt}{task.task_id}\n"))


def make_env():
    return gym.make("CodeGen-v0", tasks=make_tasks(), judge=ScriptedJudge(decide))


@pytest.fixture
def toy():
    """What the tests of the agent build on: functions that make its parts."""
    return SimpleNamespace(
        letters=LETTERS, tokenizer=make_tokenizer, model=make_model, tasks=make_tasks, env=make_env
    )
