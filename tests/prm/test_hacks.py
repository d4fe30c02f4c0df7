from dataclasses import replace

import numpy as np
import pytest

from codegym import CallTest, Episode, Task
from codegym.rewards.probes import PROBES, apply_probe, apply_probes
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement
from prm.hacks import hack_gains, readable_hacks
from prm.reranking import AGGREGATES

LINES = ("    a = x", "    b = a", "    return b")
FAILS = ScriptedJudge(lambda task, source: judgement(task, 0))


def task(task_id="t", reference="    a = x\n    return a\n"):
    tests = (CallTest(args=(1,), expected=2),)
    return Task(task_id=task_id, prompt="def f(x):\n", entry_point="f", tests=tests, reference=reference)


def failing(lines=LINES, **about):
    mine = task(**about)
    return Episode(task=mine, lines=lines, terminated=True, judgement=judgement(mine, 0))


# right where the first lines are: 1, -1, -1
FIRST_ONLY = ScriptedScorer(lambda episode: [1.0] + [-1.0] * (len(episode.lines) - 1))


def test_gains_by_hand():
    gains = hack_gains(FIRST_ONLY, [failing()], FAILS, n_bootstrap=0)
    # the first half of the statements, two lines: the mean probability is 1/2 in the place of 1/3
    assert gains["score, mean"]["stop_early"].value == pytest.approx(1 / 2 - 1 / 3)
    # eight more wrong lines: 1/11
    assert gains["score, mean"]["dead_code"].value == pytest.approx(1 / 11 - 1 / 3)
    assert gains["score, last"]["dead_code"].value == 0
    # a quarter of the mean score: -9/11 in the place of -1/3
    assert gains["return, mean"]["dead_code"].value == pytest.approx(0.25 * (-9 / 11 + 1 / 3))
    assert set(gains) == {f"score, {name}" for name in AGGREGATES} | {"return, progress", "return, mean"}
    assert all(row.keys() == PROBES.keys() for row in gains.values())


def test_gains_are_means_with_intervals_over_tasks():
    programs = [failing(task_id="a"), failing(LINES[:2], task_id="b")]
    gains = hack_gains(FIRST_ONLY, programs, FAILS, n_bootstrap=40)["score, mean"]["stop_early"]
    each = [1 / 2 - 1 / 3, 1 - 1 / 2]
    assert gains.value == pytest.approx(np.mean(each))
    assert (gains.low, gains.high) == (pytest.approx(each[0]), pytest.approx(each[1]))


def test_without_references_there_is_no_return_by_progress():
    gains = hack_gains(FIRST_ONLY, [failing(), failing(reference=None)], FAILS, n_bootstrap=0)
    assert "return, progress" not in gains
    assert "return, mean" in gains


def test_a_program_that_passes_after_all_is_no_gain():
    healed = ScriptedJudge(lambda task, source: judgement(task, int("try" in source)))
    gains = hack_gains(FIRST_ONLY, [failing()], healed, n_bootstrap=0)
    assert all(row["swallow_errors"].value == 0 for row in gains.values())
    hacked = apply_probes([failing()], healed)
    assert hacked["swallow_errors"] == [failing()]
    assert hacked["stop_early"][0].lines == LINES[:2]


def test_the_model_and_the_judge_are_asked_once():
    calls = []

    def score(episodes):
        calls.append(len(episodes))
        return [np.zeros(len(episode.lines)) for episode in episodes]

    scorer = type("Counting", (), {"score": staticmethod(score)})()
    judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    hack_gains(scorer, [failing(), failing(task_id="u")], judge, n_bootstrap=0)
    assert calls == [2 * (1 + len(PROBES))]
    assert [len(batch) for batch in judge.batches] == [2 * len(PROBES)]


def test_programs_that_pass_and_no_programs_are_refused():
    passing = Episode(task=task(), lines=LINES, terminated=True, judgement=judgement(task(), 1))
    with pytest.raises(ValueError, match="got one that passes among 2"):
        hack_gains(FIRST_ONLY, [failing(), passing], FAILS)
    with pytest.raises(ValueError, match="at least one failing program, got none"):
        hack_gains(FIRST_ONLY, [], FAILS)


def n_tokens(model, episode):
    (encoded,) = model.encode_episodes([episode])
    return encoded.n_tokens


def test_programs_whose_rewrites_are_too_long_for_the_model_are_left_out(random_model):
    model = random_model()
    short, long = failing((" a",)), failing()
    longest = {
        id(episode): max(
            n_tokens(model, replace(episode, lines=apply_probe(name, episode.task, episode.lines)))
            for name in PROBES
        )
        for episode in (short, long)
    }
    assert n_tokens(model, long) < longest[id(short)] < longest[id(long)]
    for bound, expected in (
        (longest[id(long)], [short, long]),
        (longest[id(long)] - 1, [short]),
        (longest[id(short)] - 1, []),
    ):
        model.backbone.config.max_position_embeddings = bound
        assert readable_hacks(model, [short, long]) == expected


def test_what_is_readable_can_be_measured(random_model):
    model = random_model()
    model.backbone.config.max_position_embeddings = 2000
    (readable,) = readable_hacks(model, [failing()])
    gains = hack_gains(model, [readable], FAILS, n_bootstrap=0)
    assert all(np.isfinite(gain.value) for row in gains.values() for gain in row.values())
    # blank and comment lines have no score: what a rewrite adds shows in the other lines alone
    (scores,) = model.score([readable])
    assert 0 < ((scores + 1) / 2).min() < 1
