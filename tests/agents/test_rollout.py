from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from agents.rollout import draw_tasks, make_batch, make_episode, place_credit, to_program
from codegym.task import CallTest, Task
from codegym.testing import judgement
from prm.alignment import newlines_per_token, split_lines
from prm.completion import Completion

TASK = Task(task_id="t", prompt="def f():\n", entry_point="f", tests=(CallTest(args=(), expected=1),))
PROGRAMS = ["    x = 1\n    return x\n", "    if x:\n        y = 2\n\n    return y\n"] * 20


@cache
def merging_tokenizer():
    """A byte-level BPE whose newlines merge with indentation and with each other."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        special_tokens=["<eos>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([*PROGRAMS, "\n\n\n    a\n\n\n"] * 5, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<eos>", clean_up_tokenization_spaces=False
    )


@cache
def newlines():
    return newlines_per_token(merging_tokenizer())


def write(text, finished):
    tokenizer = merging_tokenizer()
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = [*ids, tokenizer.eos_token_id] if finished else ids
    return Completion(token_ids=tuple(ids), logprobs=(-1.0,) * len(ids), text=text, finished=finished)


def test_the_tokenizer_of_these_tests_merges_newlines_with_indentation():
    vocabulary = [merging_tokenizer().decode([token]) for token in range(len(merging_tokenizer()))]
    assert any(text.startswith("\n    ") for text in vocabulary)
    assert any(text.count("\n") > 1 for text in vocabulary)


SOURCE = st.lists(st.sampled_from(["    x = 1", "    return x", "", "        é", "y"]), max_size=7)


@settings(max_examples=200)
@given(lines=SOURCE, finished=st.booleans(), open_end=st.booleans())
def test_each_reward_sits_on_the_token_that_covers_its_newline(lines, finished, open_end):
    text = "\n".join(lines) + ("" if open_end or not lines else "\n")
    completion = write(text, finished)
    if not completion.token_ids:
        return
    n_lines = len(split_lines(text))
    credit = np.arange(1.0, n_lines + finished + 1)
    rewards = place_credit(completion, credit, newlines())
    # Where each newline is, counted in bytes: a byte-level token has one letter per byte.
    written = completion.token_ids[: len(completion.token_ids) - finished]
    ends = np.cumsum([len(token) for token in merging_tokenizer().convert_ids_to_tokens(written)])
    source = text.encode()
    expected = np.zeros(len(completion.token_ids))
    positions = [i for i, byte in enumerate(source) if byte == ord("\n")]
    for m in range(n_lines):
        place = positions[m] if m < len(positions) else len(source) - 1
        expected[np.searchsorted(ends, place + 1)] += credit[m]
    if finished:
        expected[-1] += credit[-1]
    np.testing.assert_array_equal(rewards, expected)


@settings(max_examples=100)
@given(text=st.text(alphabet="ab \n", max_size=40), finished=st.booleans(), seed=st.integers(0, 100))
def test_no_reward_is_lost(text, finished, seed):
    completion = write(text, finished)
    n_actions = make_episode(TASK, completion).n_actions
    if not completion.token_ids:
        return
    credit = np.random.default_rng(seed).normal(size=n_actions)
    assert place_credit(completion, credit, newlines()).sum() == pytest.approx(credit.sum())


def test_the_end_of_the_program_is_paid_on_the_end_of_text_token():
    completion = write("x\n", finished=True)
    rewards = place_credit(completion, np.array([0.25, 1.0]), newlines())
    assert rewards[-1] == 1.0
    assert completion.token_ids[-1] == merging_tokenizer().eos_token_id


def test_a_truncated_programs_last_line_is_paid_on_its_last_token():
    completion = write("x\nyab", finished=False)
    rewards = place_credit(completion, np.array([0.25, 1.0]), newlines())
    assert rewards[-1] == 1.0
    assert rewards.sum() == 1.25


def test_an_empty_program_pays_its_end():
    completion = write("", finished=True)
    assert place_credit(completion, np.array([0.5]), newlines()).tolist() == [0.5]


def test_credit_of_another_program_is_refused():
    with pytest.raises(ValueError, match=r"each of 2 actions, got an array of shape \(3,\)"):
        place_credit(write("x\n", finished=True), np.zeros(3), newlines())


def test_an_episode_has_the_completions_lines_and_end():
    ended, cut = make_episode(TASK, write("a\n\nb\n", True)), make_episode(TASK, write("a\nb", False))
    assert ended.lines == ("a", "", "b")
    assert (ended.terminated, ended.truncated, ended.n_actions) == (True, False, 4)
    assert cut.lines == ("a", "b")
    assert (cut.terminated, cut.truncated, cut.n_actions) == (False, True, 2)


def test_a_batch_is_padded_on_the_right():
    long, short = write("x = 1\n", True), write("y\n", True)
    credits = [np.array([0.5, 1.0]), np.array([0.0, -1.0])]
    batch = make_batch([[7, 8, 9], [5]], [long, short], credits, newlines(), pad_id=3)
    n_long, n_short = len(long.token_ids), len(short.token_ids)
    assert batch.ids.shape == batch.mask.shape == (2, 3 + n_long)
    assert batch.ids[0].tolist() == [7, 8, 9, *long.token_ids]
    assert batch.ids[1].tolist() == [5, *short.token_ids, *[3] * (2 + n_long - n_short)]
    assert batch.mask[1].nonzero().flatten().tolist() == list(range(1, 1 + n_short))
    assert batch.prompt_lengths.tolist() == [3, 1]
    assert batch.lengths.tolist() == [3 + n_long, 1 + n_short]
    assert batch.rewards.sum(1).tolist() == [1.5, -1.0]
    assert (batch.rewards[~batch.mask] == 0).all()
    assert (batch.logprobs[~batch.mask] == 0).all()
    assert batch.n_tokens == n_long + n_short
    assert len(batch) == 2
    assert batch.rewards.dtype == torch.float32


@pytest.mark.parametrize(
    ("wanted", "rows"), [(1, [0]), (2, [0, 2, 4]), (3, [0, 1, 2, 3, 4]), (99, [0, 1, 2, 3, 4])]
)
def test_some_rows_are_spread_over_the_batch(wanted, rows):
    written = [write("x" * n, True) for n in range(1, 6)]
    batch = make_batch([[7]] * 5, written, [np.zeros(2)] * 5, newlines())
    some = batch.some(wanted)
    assert torch.equal(some.ids, batch.ids[rows])
    assert torch.equal(some.lengths, batch.lengths[rows])


def test_every_prompt_needs_a_completion():
    with pytest.raises(ValueError, match="zip"):
        make_batch([[1], [2]], [write("x\n", True)] * 2, [np.zeros(2)], newlines())


def test_a_program_keeps_the_exact_tokens():
    completion = write("x\n", True)
    episode = make_episode(TASK, completion)
    with pytest.raises(ValueError, match="'t' has not been judged"):
        to_program([1, 2], completion, episode, "psgpo/iteration-3/0")
    judged = replace(episode, judgement=judgement(TASK, 1))
    program = to_program([1, 2], completion, judged, "psgpo/iteration-3/0")
    assert program.policy == "psgpo/iteration-3"
    assert program.prompt_ids == (1, 2)
    assert program.token_ids == completion.token_ids
    assert program.passed
    assert program.episode(TASK) == judged


def tasks(n):
    return [Task(task_id=str(i), prompt="p", entry_point=None, tests=TASK.tests) for i in range(n)]


def test_every_task_comes_up_once_per_round():
    pool = tasks(10)
    drawn = [task for i in range(5) for task in draw_tasks(pool, 4, iteration=i, seed=0)]
    ids = [task.task_id for task in drawn]
    assert sorted(ids[:10]) == sorted(ids[10:]) == [str(i) for i in range(10)]
    assert ids[:10] != ids[10:]


def test_tasks_depend_on_seed_and_iteration_alone():
    pool = tasks(10)
    assert draw_tasks(pool, 6, iteration=3, seed=1) == draw_tasks(pool, 6, iteration=3, seed=1)
    assert draw_tasks(pool, 6, iteration=3, seed=1) != draw_tasks(pool, 6, iteration=3, seed=2)


def test_more_rollouts_than_tasks_repeat_them():
    drawn = draw_tasks(tasks(3), 8, iteration=0, seed=0)
    counts = [sum(task.task_id == str(i) for task in drawn) for i in range(3)]
    assert sorted(counts) == [2, 3, 3]
