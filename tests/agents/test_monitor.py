import math
from dataclasses import replace

import numpy as np
import pytest

from agents.monitor import (
    LastScores,
    PhaseTimer,
    horizon_metrics,
    passes_by_horizon,
    program_metrics,
    score_metrics,
)
from codegym.episode import Episode
from codegym.task import CallTest, Task
from codegym.testing import ScriptedScorer, judgement
from prm.completion import Completion

TEST = CallTest(args=(), expected=0)
TRACE = {"args": [], "values": {"v1": [], "v2": [], "return": []}}
TASK = Task(task_id="t", prompt="", entry_point="f", tests=(TEST,), metadata={"horizon": 2, "trace": TRACE})


def episode(*lines, passed=False, task=TASK):
    return Episode(task=task, lines=lines, terminated=True, judgement=judgement(task, int(passed)))


def completion(n_tokens, finished=True):
    return Completion(token_ids=(0,) * n_tokens, logprobs=(0.0,) * n_tokens, text="", finished=finished)


WHOLE = episode("    v1 = [1]", "    v2 = v1", "    return v2", passed=True)
SHORT = episode("    v1 = [1]", "    returned = v1")


def test_programs_are_counted():
    metrics = program_metrics([WHOLE, SHORT], [completion(9), completion(4, finished=False)])
    assert metrics == {
        "lines_per_program": 2.5,
        "tokens_per_program": 6.5,
        "finished": 0.5,
        "has_return": 0.5,
        "steps_addressed": 0.5,
    }


def test_steps_are_counted_only_where_tasks_have_some():
    bare = episode("x", task=replace(TASK, metadata={}))
    assert "steps_addressed" not in program_metrics([bare], [completion(1)])
    assert program_metrics([bare, WHOLE], [completion(1)] * 2)["steps_addressed"] == 1


def test_pass_rate_by_horizon():
    far = replace(TASK, metadata={"horizon": 9})
    episodes = [WHOLE, SHORT, SHORT, SHORT, episode(task=far), episode(task=replace(TASK, metadata={}))]
    assert horizon_metrics(episodes) == {"pass_horizon_2": 0.25, "pass_horizon_9": 0.0}
    assert passes_by_horizon(episodes) == {2: [True, False, False, False], 9: [False]}


def test_scores_on_failing_programs_against_the_exact_labels():
    scorer = ScriptedScorer(lambda e: [0.5] * len(e.lines))
    oracle = ScriptedScorer(lambda e: [1.0] * len(e.lines) if e is WHOLE else [1.0, -1.0])
    metrics = score_metrics([WHOLE, SHORT], scorer, oracle)
    assert metrics == {"prefix_correct": 0.75, "score_on_failing": 0.5, "gap": 0.5}


def test_comments_do_not_count():
    commented = episode("    # v1", "    v1 = 1", "", "    v2 = 2")
    scorer = ScriptedScorer(lambda e: [0.0, 1.0, 0.0, 0.0])
    oracle = ScriptedScorer(lambda e: [0.0, 1.0, 0.0, -1.0])
    assert score_metrics([commented], scorer, oracle) == {
        "prefix_correct": 0.5,
        "score_on_failing": 0.5,
        "gap": 0.5,
    }


def test_without_scorers_there_is_nothing_to_say():
    assert score_metrics([WHOLE], None, None) == {}


def test_if_all_pass_there_is_no_gap():
    scorer = ScriptedScorer(lambda e: [0.5] * len(e.lines))
    metrics = score_metrics([WHOLE], scorer, scorer)
    assert metrics["prefix_correct"] == 1
    assert math.isnan(metrics["gap"])


def test_the_last_scores_are_remembered():
    calls = []

    def score(e):
        calls.append(e)
        return [0.25] * len(e.lines)

    scorer = LastScores(ScriptedScorer(score))
    first = scorer.score([WHOLE, SHORT])
    assert scorer.score([WHOLE, SHORT]) is first
    assert len(calls) == 2
    scorer.score([SHORT, WHOLE])
    assert len(calls) == 4
    assert scorer.score([]) == []
    np.testing.assert_array_equal(scorer.score([SHORT])[0], [0.25, 0.25])


def test_equal_but_other_episodes_are_scored_anew():
    calls = []
    scorer = LastScores(ScriptedScorer(lambda e: calls.append(e) or [0.0] * len(e.lines)))
    scorer.score([SHORT])
    scorer.score([replace(SHORT)])
    assert len(calls) == 2


def test_shares_of_time_sum_to_one():
    timer = PhaseTimer()
    with timer.phase("a"), timer.phase("b"):
        pass
    with pytest.raises(KeyError), timer.phase("a"):
        raise KeyError
    assert set(timer.seconds) == {"a", "b"}
    assert sum(timer.shares().values()) == pytest.approx(1, abs=1e-2)
    assert timer.rate(10, "a") > 0
    assert timer.elapsed >= timer.seconds["a"]


def test_work_beside_other_phases_counts_for_its_rate_and_not_for_the_shares():
    timer = PhaseTimer()
    timer.seconds = {"sampling": 3.0, "judging": 0.5}
    assert timer.waited("judging") == 1.0
    timer.hide("judging", 2.0)
    assert timer.hidden == {"judging": 1.5}
    assert timer.waited("judging") == 0.25
    assert timer.rate(10, "judging") == 5.0
    assert timer.rate(9, "sampling") == 3.0
    assert sum(timer.shares().values()) == pytest.approx(1)
    timer.hide("judging", 0.4)  # waiting for others took longer than the work
    assert timer.waited("judging") == 1.0
    assert timer.waited("nothing") == 0.0
