"""Tokens as actions: lines when a newline appears, token ids in and out unchanged."""

import json
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import END_OF_PROGRAM, RewardWrapper, Task, TokenActions, UnknownNameError
from codegym.testing import DOUBLE, ScriptedJudge, judgement
from codegym.wrappers.tokenizers import ByteTokenizer, Tokenizer, make_tokenizer

EOS = ByteTokenizer.eos_token_id
RIGHT = "    y = x + x\n    return y\n"


class Words:
    """Tokens that cover newlines together with what stands before and after them."""

    texts = ("x", "\n", "a\n    b", "\n\n", "\n\nc\n", "    return y\n", "\0", "", "é", "<eos>")
    eos_token_id = 9

    def encode(self, text):
        return [0, 1]

    def decode(self, token_ids):
        return "".join(self.texts[token] for token in token_ids)

    def __len__(self):
        return len(self.texts)


class Trimming(Words):
    """Drops the space at the start of a text, as sentence-piece tokenizers do."""

    texts = ("x", "\n", " ", "y", "<eos>")
    eos_token_id = 4

    def decode(self, token_ids):
        return super().decode(token_ids).removeprefix(" ")


class LineLengths:
    """Pays each line its length, and the end 100."""

    def step(self, episodes):
        return np.array([float(len(e.lines[-1])) for e in episodes])

    def credit(self, episodes):
        return [np.array([float(len(x)) for x in e.lines] + [100.0] * e.terminated) for e in episodes]


def make(tokenizer="bytes", scheme=None, tasks=(DOUBLE,), max_lines=64, **options):
    judge = ScriptedJudge(lambda task, source: judgement(task, 3 if "return y" in source else 1))
    env = gym.make("CodeGen-v0", tasks=list(tasks), judge=judge, max_lines=max_lines)
    return TokenActions(RewardWrapper(env, scheme) if scheme else env, tokenizer, **options)


def play(env, tokens):
    env.reset(seed=0)
    return [env.step(token) for token in tokens]


def test_a_right_program_byte_by_byte():
    env = make()
    results = play(env, [*RIGHT.encode(), EOS])
    assert [result[1] for result in results] == [0.0] * len(RIGHT) + [1.0]
    assert [result[2] for result in results] == [False] * len(RIGHT) + [True]
    assert env.episode.completion == RIGHT
    assert results[-1][-1]["action_rewards"] == (0.0, 0.0, 1.0)
    assert results[-1][-1]["verdict"] == "passed"


def test_a_line_is_paid_on_the_token_that_completes_it():
    rewards = [result[1] for result in play(make(scheme=LineLengths()), [*b"ab\n\nabc", EOS])]
    assert rewards == [0, 0, 2, 0, 0, 0, 0, 103]


def test_a_token_may_complete_several_lines_and_start_another():
    env = make(Words(), LineLengths())
    rewards = [result[1] for result in play(env, [0, 2, 3, 4, 5, 9])]
    assert env.episode.lines == ("xa", "    b", "", "", "", "c", "    return y")
    assert rewards == [0, 2, 5, 1, 12, 100]
    assert env.episode.terminated


def test_the_end_of_text_completes_the_line_being_written():
    env = make()
    play(env, [*b"    return y", EOS])
    assert env.episode.lines == ("    return y",)
    play(env, [EOS])
    assert env.episode.lines == ()
    assert env.episode.terminated


def test_too_many_tokens_cut_the_program_and_judge_it():
    env = make(max_tokens=13, scheme=LineLengths())
    *_, (_, reward, terminated, truncated, info) = play(env, b"a\n    return ")
    assert (terminated, truncated) == (False, True)
    assert env.episode.lines == ("a", "    return y"[:11])
    assert (reward, info["action_rewards"], info["verdict"]) == (11.0, (1.0, 11.0), "wrong_answer")
    assert env.episode.truncated


def test_a_cut_program_has_a_line_to_pay_for():
    env = make(Words(), LineLengths(), max_tokens=1)
    *_, (_, _, _, truncated, info) = play(env, [7])
    assert truncated
    assert env.episode.lines == ("",)
    assert info["action_rewards"] == (0.0,)


def test_the_last_token_may_end_the_program_itself():
    env = make(max_tokens=3)
    *_, (_, _, terminated, truncated, _) = play(env, [*b"a\n", EOS])
    assert (terminated, truncated) == (True, False)


def test_the_line_environments_limits_hold():
    env = make(Words(), max_lines=2)
    *_, (_, _, terminated, truncated, info) = play(env, [4])
    assert env.episode.lines == ("", "")
    assert (terminated, truncated, len(info["action_rewards"])) == (False, True, 2)


def test_a_prompt_may_end_within_a_line():
    task = Task(task_id="p", prompt="Say it: ", entry_point="f", tests=DOUBLE.tests, prompt_is_code=False)
    env = make(tasks=[task])
    play(env, [*b"a\nb", EOS])
    assert env.episode.lines == ("a", "b")


def test_a_tokenizer_that_trims_the_start_of_texts_keeps_indentation():
    env = make(Trimming())
    play(env, [2, 2, 0, 1, 2, 3, 1, 4])
    assert env.episode.lines == ("  x", " y")


def test_nul_bytes_and_broken_characters_become_replacement_characters():
    env = make()
    play(env, [ord("a"), 0, 0xE9, *b"\n", *"é".encode(), *b"\n", EOS])
    assert env.episode.lines == ("a\ufffd\ufffd", "é")


def test_observations_are_the_newest_tokens_padded_on_the_left():
    env = make(context=20)
    prompt = list(b"def double(x):\n")
    observation, _ = env.reset(seed=0)
    assert observation["input_ids"].tolist() == [EOS] * 5 + prompt
    assert observation["attention_mask"].tolist() == [0] * 5 + [1] * 15
    for token in b"12345678":
        observation, *_ = env.step(token)
        assert observation in env.observation_space
    assert observation["input_ids"].tolist() == [*prompt[3:], *b"12345678"]
    assert observation["attention_mask"].tolist() == [1] * 20
    assert (env.prompt_ids, env.token_ids) == (tuple(prompt), tuple(b"12345678"))


def test_tokens_in_are_tokens_out():
    """The same text can be written in several ways; what was chosen is what is observed."""
    env = make(Words(), context=8)
    observation = play(env, [1, 1])[-1][0]
    assert observation["input_ids"].tolist()[-4:] == [0, 1, 1, 1]
    observation = play(env, [3])[-1][0]
    assert observation["input_ids"].tolist()[-3:] == [0, 1, 3]


@pytest.mark.parametrize("action", [-1, 257, 1.5, "a", None, np.array([1, 2])])
def test_a_bad_token_is_named_and_harms_nothing(action):
    env = make()
    env.reset(seed=0)
    env.step(ord("a"))
    with pytest.raises(ValueError, match="an action is a token, 0 to 256"):
        env.step(action)
    assert env.token_ids == (ord("a"),)
    env.step(np.int64(ord("\n")))
    assert env.episode.lines == ("a",)


@settings(max_examples=80)
@given(st.lists(st.integers(0, 8), max_size=25), st.booleans())
def test_lines_are_those_of_the_decoded_text_whatever_the_tokens(tokens, is_ended):
    env = make(Words(), LineLengths(), max_tokens=100)
    results = play(env, [*tokens, *([9] if is_ended else [])])
    text = Words().decode(tokens).replace("\0", "\ufffd")
    *lines, rest = text.split("\n")
    if is_ended and rest:
        lines.append(rest)
    assert list(env.episode.lines) == lines
    assert sum(result[1] for result in results) == sum(map(len, lines)) + 100 * is_ended
    assert env.token_ids == (*tokens, *([9] if is_ended else []))


@settings(max_examples=40)
@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20))
def test_bytes_write_what_lines_write(program):
    tokens, lines = make(scheme=LineLengths()), make(scheme=LineLengths()).env
    lines.reset(seed=0)
    for line in program.removesuffix("\n").split("\n") if program else []:
        lines.step(line)
    expected = lines.step(END_OF_PROGRAM)
    results = play(tokens, [*program.encode(), EOS])
    assert tokens.episode == lines.unwrapped.episode
    assert results[-1][-1] == expected[-1]


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_bytes_survive_the_round_trip(text):
    tokenizer = ByteTokenizer()
    assert tokenizer.decode([*tokenizer.encode(text), EOS]) == text
    assert isinstance(tokenizer, Tokenizer)
    assert len(tokenizer) == 257


def test_surrogates_have_no_bytes():
    assert ByteTokenizer().decode(ByteTokenizer().encode("a\ud800b")) == "a?b"


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"context": 0}])
def test_bad_numbers_are_named(options):
    with pytest.raises(ValueError, match="=0"):
        make(**options)


def test_a_tokenizer_needs_an_end_of_text():
    tokenizer = Words()
    tokenizer.eos_token_id = None
    with pytest.raises(ValueError, match="end-of-text token"):
        make(tokenizer)


@pytest.fixture(scope="module")
def saved_tokenizer(tmp_path_factory):
    """A small byte-level BPE in a folder, as `transformers` saves it."""
    from tokenizers import Tokenizer as Fast
    from tokenizers import decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    fast = Fast(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    fast.train_from_iterator(["def f(x):\n    y = x\n    return y\n"] * 20, trainer)
    folder = tmp_path_factory.mktemp("tokenizer")
    PreTrainedTokenizerFast(tokenizer_object=fast, eos_token="<|endoftext|>").save_pretrained(folder)
    return str(folder)


def test_a_transformers_tokenizer_by_path(saved_tokenizer, monkeypatch):
    tokenizer = make_tokenizer(saved_tokenizer)
    assert isinstance(tokenizer, Tokenizer)
    covering = [i for i in range(len(tokenizer)) if "\n " in tokenizer.decode([i])]
    assert covering, "the test needs tokens that cover a newline and more"
    env = make(saved_tokenizer)
    ids = tokenizer.encode("    y = x\n    return y\n")
    assert set(ids) & set(covering)
    *_, (observation, reward, terminated, _, _) = play(env, [*ids, tokenizer.eos_token_id])
    assert (reward, terminated) == (1.0, True)
    assert env.episode.lines == ("    y = x", "    return y")
    assert observation["input_ids"].tolist()[-len(ids) - 1 :] == [*ids, tokenizer.eos_token_id]
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: [DOUBLE])
    named = TokenActions(gym.make("CodeGen-v0"), saved_tokenizer, context=9)
    twin = gym.make(EnvSpec.from_json(named.spec.to_json()))
    assert json.loads(twin.spec.to_json())["additional_wrappers"][0]["kwargs"]["tokenizer"] == saved_tokenizer
    assert twin.observation_space == named.observation_space


@pytest.mark.parametrize("name", ["{}/nothing", "./nothing", "../nothing", "~/no/such/folder"])
def test_a_missing_folder_is_named_without_asking_the_hub(name, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*(nothing|such/folder) to load a tokenizer"):
        make_tokenizer(name.format(tmp_path))


@pytest.mark.parametrize("name", ["byts", "byte", "transformer", "transformers"])
def test_a_name_near_the_tables_is_not_looked_for_on_the_hub(name):
    with pytest.raises(UnknownNameError, match=f"unknown tokenizer '{name}'.*choose from bytes"):
        make(name)


@pytest.mark.parametrize("name", ["gpt2", "bert-base-uncased", "google/byt5-small", "org/bytes"])
def test_hub_names_are_passed_on(name, monkeypatch):
    asked = []
    monkeypatch.setattr("codegym.wrappers.tokenizers.resolve", lambda *_: Hub(asked))
    assert isinstance(make_tokenizer(name), Words)
    assert asked == [name]


@pytest.mark.parametrize("wrong", [None, ByteTokenizer, 3])
def test_what_is_no_tokenizer_is_refused(wrong):
    with pytest.raises(TypeError, match="tokenizer must be a Tokenizer, an object with eos_token_id and"):
        make(wrong)


class Hub:
    """Notes which names it is asked for."""

    def __init__(self, asked):
        self._asked = asked

    def from_pretrained(self, name):
        self._asked.append(name)
        return Words()


def test_vector_environments_of_gymnasium_take_token_environments():
    """Token ids are arrays, so shared memory is fine here."""
    env = AsyncVectorEnv([make] * 2)
    try:
        observation, _ = env.reset(seed=0)
        assert observation["input_ids"].shape == (2, 256)
        env.step(np.array([ord("a"), EOS]))
        observation, *_ = env.step(np.array([ord("b"), 0]))
        assert observation["input_ids"][0, -2:].tolist() == [ord("a"), ord("b")]
    finally:
        env.close()


def test_bytes_need_no_other_library(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert len(make().tokenizer) == 257
