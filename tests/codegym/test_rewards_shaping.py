"""Potential, length and syntax: hand-computed, and the invariance theorem by enumeration."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import CallTest, Episode, Task, make_scheme
from codegym.rewards.shaping import LengthReward, SyntaxReward, potential_shaping
from codegym.testing import ScriptedScorer, judgement

TASK = Task(
    task_id="t",
    prompt="def f(x):\n",
    entry_point="f",
    tests=(CallTest(args=(1,), expected=2),),
    reference="    return x + 1\n",
)


def episode(lines, *, passed=False, terminated=True):
    return Episode(
        task=TASK,
        lines=tuple(lines),
        terminated=terminated,
        truncated=not terminated,
        judgement=judgement(TASK, int(passed)),
    )


def prefixes(lines):
    return [Episode(task=TASK, lines=tuple(lines[:n])) for n in range(1, len(lines) + 1)]


# ---------------------------------------------------------------- potential (Ng et al. 1999)

MOVES = ("    a = 1", "    b = 2", "    # c")


def any_score(e):
    """A potential with no meaning at all: the theorem does not ask for one."""
    return [
        ((len(line) * 7 + index * 13 + line.count("b") * 5) % 11) / 5 - 1
        for index, line in enumerate(e.lines)
    ]


def best_first_moves(scheme, gamma, horizon=4):
    """The optimal value of each first line, by enumeration of all programs of a tiny environment.

    A program passes if it holds both assignments and is ended by the agent; at `horizon` lines it is cut.
    """
    values: dict[str, float] = {}
    for length in range(1, horizon + 1):
        for lines in product(MOVES, repeat=length):
            terminated = length < horizon
            passed = terminated and {MOVES[0], MOVES[1]} <= set(lines)
            (credit,) = scheme.credit([episode(lines, passed=passed, terminated=terminated)])
            value = float((gamma ** np.arange(len(credit)) * credit).sum())
            values[lines[0]] = max(values.get(lines[0], -np.inf), value)
    return values


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_shaping_by_any_potential_leaves_every_optimal_value_as_it_is(gamma, scale):
    shaped = potential_shaping(scorer=ScriptedScorer(any_score), gamma=gamma, scale=scale)
    plain = best_first_moves(make_scheme("pass_fail"), gamma)
    assert best_first_moves(shaped, gamma) == pytest.approx(plain)
    assert len(set(np.round(list(plain.values()), 6))) == (1 if gamma == 1 else 2)


def test_the_wrong_discount_does_change_what_is_optimal():
    shaped = potential_shaping(scorer=ScriptedScorer(lambda e: [1.0] * len(e.lines)), gamma=0.5)
    # Φ = 1 after each line: every further line costs half, so fewer lines are better
    one, two = shaped.credit([episode(MOVES[:1], passed=True), episode(MOVES[:2], passed=True)])
    assert (one.sum(), two.sum()) == pytest.approx((0.5, 0.0))


def test_potential_streams_differences_of_the_scores():
    scheme = potential_shaping(scorer=ScriptedScorer(lambda e: [0.0, 1.0, -1.0][: len(e.lines)]), scale=2.0)
    assert scheme.step(prefixes(["    a", "    b", "    c"])) == pytest.approx([1.0, 1.0, -2.0])
    assert scheme.credit([episode(["    a", "    b"], passed=True)])[0] == pytest.approx([1, 1, 1 - 2])


def test_potential_takes_what_a_process_reward_takes():
    with pytest.raises(ValueError, match=r"exactly one of prm="):
        make_scheme("potential")
    assert make_scheme("potential", prm="p", scale=0.3, gamma=0.99).prm == "p"


# ---------------------------------------------------------------- length


def test_length_pays_each_line_beyond_the_free_ones_up_to_the_cap():
    scheme = LengthReward(rate=-0.1, free=2, cap=0.25)
    credit = scheme.credit([episode(["a"] * 6)])[0]
    assert credit == pytest.approx([0, 0, -0.1, -0.1, -0.05, 0, 0])
    assert scheme.step(prefixes(["a"] * 6)) == pytest.approx(credit[:6])


def test_length_in_characters_counts_newlines():
    credit = LengthReward(measure="chars", rate=0.01, free=3, cap=1.0).credit([episode(["abc", "", "xy"])])[0]
    # 4, 5 and 8 characters, less 3
    assert credit == pytest.approx([0.01, 0.01, 0.03, 0])


def test_dapos_soft_overlong_punishment_is_a_length_reward():
    # L_max = 8, L_cache = 4: 0 up to 4 lines, then linear down to -1 at 8, -1 beyond
    scheme = LengthReward(free=4, rate=-1 / 4, cap=1.0)
    returns = [scheme.credit([episode(["a"] * n)])[0].sum() for n in (3, 4, 5, 6, 8, 12)]
    assert returns == pytest.approx([0, 0, -0.25, -0.5, -1, -1])


def test_length_says_nothing_about_the_verdict():
    made = make_scheme("length")
    one, other = made.credit([episode(["a"], passed=True), episode(["a"], passed=False)])
    assert one.tolist() == other.tolist()
    assert made.bounds(passed=True) == made.bounds(passed=False) == (-0.2, 0.0)
    assert LengthReward(rate=0.1).bounds(passed=True) == (0.0, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measure": "tokens"}, "unknown measure of length 'tokens'"),
        ({"rate": float("nan")}, "rate must be finite, got nan"),
        ({"free": -1}, "free must be >= 0, got -1"),
        ({"cap": 0.0}, "cap must be positive and finite, got 0.0"),
    ],
)
def test_bad_lengths_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        LengthReward(**options)


# ---------------------------------------------------------------- syntax


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["    a = 1", "    return a"], [0, 0, 0]),
        (["    a = 1", "    b = )", "    return a"], [0, -0.1, 0, 0]),
        (["    a = (", "    1", "    b = 2"], [0, 0, -0.1, 0]),
        (["a = 1"], [-0.1, 0]),
        (["    a = (", "    1"], [0, 0, -0.1]),
        ([], [-0.1]),
        (["    # only a comment"], [0, -0.1]),
        (["    a = '\ud800'"], [-0.1, 0]),
    ],
)
def test_the_line_beyond_repair_pays_and_an_unfinished_program_pays_at_its_end(lines, expected):
    assert SyntaxReward().credit([episode(lines)])[0] == pytest.approx(expected)


def test_a_cut_program_pays_for_its_open_bracket_on_its_last_line():
    assert SyntaxReward(penalty=1.0).credit([episode(["    a = ("], terminated=False)])[0].tolist() == [-1.0]


def test_a_broken_prompt_is_no_lines_fault():
    task = Task(task_id="b", prompt="def f(:\n", entry_point="f", tests=TASK.tests)
    broken = Episode(task=task, lines=("    a = )",), terminated=True, judgement=judgement(task, 0))
    assert SyntaxReward().credit([broken])[0].tolist() == [0, 0]
    assert SyntaxReward().step([Episode(task=task, lines=("    a = )",))]).tolist() == [0]


def test_syntax_streams_the_penalty_once():
    lines = ["    a = (", "    1", "    b = 2", "    c = 3"]
    assert SyntaxReward().step(prefixes(lines)) == pytest.approx([0, 0, -0.1, 0])
    assert SyntaxReward().step([Episode(task=TASK)]).tolist() == [0]


@settings(max_examples=60)
@given(
    st.lists(
        st.sampled_from(["    a = 1", "    b = (", "    )", "    for i in x:", "        c", "d"]), max_size=7
    )
)
def test_syntax_streams_what_hindsight_says(lines):
    (credit,) = SyntaxReward().credit([episode(lines)])
    steps = SyntaxReward().step(prefixes(lines))
    assert steps.tolist() == credit[:-1].tolist()
    assert credit.sum() in (0, -0.1)


@pytest.mark.parametrize("penalty", [-1.0, float("inf"), float("nan")])
def test_bad_penalties_are_named(penalty):
    with pytest.raises(ValueError, match="penalty must be finite and >= 0"):
        SyntaxReward(penalty=penalty)
