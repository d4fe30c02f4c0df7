"""Alarms: by hand, on made-up runs that fail in a known way, on healthy and noisy ones, and in the agent."""

import json
import logging
import math
from dataclasses import replace

import numpy as np
import pytest

from agents.alarms import (
    ALARMS,
    DRAWN_GAP,
    LABEL_GAP,
    LINES,
    PASSES,
    PREFIX,
    SCORE,
    AlarmWatch,
    Change,
    change_of_mean,
    change_of_rate,
    find_alarms,
)
from agents.psgpo import PSGPO, PSGPOConfig
from agents.training import train_to_folder
from codegym.episode import Episode
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.storage import read_rows
from codegym.task import CallTest, Task
from codegym.testing import ScriptedScorer, judgement

N_ITERATIONS = 30


def run(passes=(0.3, 0.3), horizons=None, seed=0, n=N_ITERATIONS, **drifts):
    """A history whose quantities go from a first to a last value, with the noise of 128 programs."""
    random = np.random.default_rng(seed)
    keys = {"lines": LINES, "prefix": PREFIX, "score": SCORE, "gap": LABEL_GAP, "drawn": DRAWN_GAP}
    rows = []
    for share in np.linspace(0, 1, n):
        row = {"programs": 128, PASSES: random.binomial(128, between(passes, share)) / 128, "horizons": {}}
        for horizon, rates in (horizons or {}).items():
            row["horizons"][str(horizon)] = [int(random.binomial(32, between(rates, share))), 32]
        for name, values in drifts.items():
            row[keys[name]] = between(values, share) + random.normal() * 0.01 * (name != "drawn")
        rows.append(row)
    return rows


def between(ends, share):
    return ends[0] + (ends[1] - ends[0]) * share


def alarms(history, progress=0.4):
    return find_alarms(history, progress)


# --- numbers by hand ---


def test_the_change_of_a_mean_by_hand():
    values = [1, 2, 3, 4, 5, 100, 4, 4, 4, 4, 9]  # 1..5 and 4, 4, 4, 4, 9: variances 2.5 and 5
    change = change_of_mean(values)
    assert change == Change(start=3.0, now=5.0, error=math.sqrt(2.5 / 5 + 5.0 / 5))
    assert change.difference == 2.0
    assert not change.is_rise
    assert not change.is_certain


@pytest.mark.parametrize(
    ("error", "rises", "certain"), [(0.99, True, False), (1.01, False, False), (0.57, True, True)]
)
def test_what_stands_out_of_the_noise(error, rises, certain):
    change = Change(start=1.0, now=3.0, error=error)
    assert (change.is_rise, change.is_certain) == (rises, certain)
    fall = Change(start=3.0, now=1.0, error=error)
    assert (fall.is_rise, fall.is_certain) == (False, certain)


def test_windows_do_not_overlap_and_grow_to_a_quarter():
    assert change_of_mean([0.0] * 9) is None
    assert change_of_mean([0.0] * 5 + [1.0] * 5) == Change(start=0.0, now=1.0, error=0.0)
    assert change_of_mean([0.0] * 10 + [5.0] * 20 + [1.0] * 10) == Change(start=0.0, now=1.0, error=0.0)


def test_the_change_of_a_rate_has_at_least_the_noise_of_coins():
    change = change_of_rate([(2, 10)] * 5 + [(6, 10)] * 5)
    before, after = 11 / 52, 31 / 52  # one more of each kind
    error = math.sqrt(before * (1 - before) / 50 + after * (1 - after) / 50)
    assert change == Change(start=0.2, now=0.6, error=pytest.approx(error))
    never = change_of_rate([(0, 10)] * 10)
    assert never.error > 0
    swinging = change_of_rate([(0, 10), (10, 10)] * 5)
    assert swinging.error == pytest.approx(math.sqrt(2 * 0.3 / 5))


def test_iterations_without_programs_say_nothing_about_a_rate():
    counts = [(1, 4), (0, 0)] * 5
    assert change_of_rate(counts) is None
    assert change_of_rate(counts * 2) == change_of_rate([(1, 4)] * 10)


# --- runs that fail ---


def test_a_reward_model_that_is_pleased_in_vain():
    found = alarms(run(score=(-0.5, 0.2)))
    assert list(found) == ["prm_hacking"]
    assert "score of failing programs rose from -0." in found["prm_hacking"]
    assert "pass rate went from 0." in found["prm_hacking"]


@pytest.mark.parametrize(
    "healthy",
    [
        {"score": (-0.5, 0.2), "passes": (0.01, 0.4)},  # failing programs get better, and others pass
        {"score": (-0.5, 0.2), "prefix": (0.2, 0.6)},  # they are right for longer, if not to the end
        {"score": (-0.5, -0.4)},  # too little to matter
        {"score": (0.2, -0.5)},
    ],
)
def test_failing_programs_may_please_the_reward_model_if_they_get_better(healthy):
    assert "prm_hacking" not in alarms(run(**healthy))


def test_exact_labels_show_that_the_reward_model_is_overfitted_to():
    found = alarms(run(gap=(0.1, 0.6), passes=(0.1, 0.5)))
    assert list(found) == ["prm_overfit"]
    assert "exceeds the exact labels by 0.5" in found["prm_overfit"]


@pytest.mark.parametrize("gap", [(0.6, 0.6), (0.6, 0.1), (-0.3, 0.2), (0.1, 0.12)])
def test_a_gap_that_is_small_or_does_not_grow_is_no_alarm(gap):
    assert alarms(run(gap=gap)) == {}


def test_a_pass_rate_that_stays_where_it_was():
    found = alarms(run(passes=(0.02, 0.02)), progress=0.5)
    assert list(found) == ["slow_convergence"]
    assert found["slow_convergence"].startswith("after 50% of the run the pass rate is 0.0")
    assert alarms(run(passes=(0.02, 0.02)), progress=0.49) == {}
    assert alarms(run(passes=(0.02, 0.3)), progress=1.0) == {}
    assert alarms(run(passes=(0.95, 0.95)), progress=1.0) == {}


def test_short_tasks_that_are_forgotten():
    horizons = {2: (0.8, 0.4), 4: (0.4, 0.4), 9: (0.0, 0.4), 12: (0.0, 0.4)}
    found = alarms(run(passes=(0.3, 0.4), horizons=horizons))
    assert list(found) == ["short_task_degradation"]
    assert "tasks of 2 steps fell from 0.7" in found["short_task_degradation"]


def test_the_shortest_third_of_the_horizons_counts():
    falling = dict.fromkeys((4, 5, 6), (0.9, 0.3))
    horizons = {2: (0.5, 0.5), 3: (0.5, 0.5), **falling}
    assert "short_task_degradation" not in alarms(run(horizons=horizons))
    horizons |= {2: (0.9, 0.3), 7: (0.5, 0.5)}
    assert "tasks of 2 to 3 steps" in alarms(run(horizons=horizons))["short_task_degradation"]


def test_tasks_of_one_horizon_are_not_short():
    assert alarms(run(passes=(0.8, 0.8), horizons={2: (0.9, 0.3)})) == {}


@pytest.mark.parametrize(
    ("ends", "seen"), [((9, 14), True), ((9, 5), True), ((9, 11), False), ((9, 7), False)]
)
def test_programs_that_only_change_their_length(ends, seen):
    assert list(alarms(run(lines=ends))) == ["length_drift"] * seen
    assert alarms(run(lines=ends, passes=(0.3, 0.6))) == {}


@pytest.mark.parametrize(("gap", "seen"), [(1e-6, False), (0.02, False), (0.2, True)])
def test_a_sampler_that_computes_something_else_is_noticed_at_once(gap, seen):
    assert list(alarms(run(drawn=(gap, gap), n=1))) == ["sampler_mismatch"] * seen


def test_what_is_not_known_raises_no_alarm():
    rows = run(score=(-0.5, 0.2), gap=(0.1, 0.6))
    for row in rows[3:]:
        del row[SCORE], row[LABEL_GAP]
    assert alarms(rows) == {}
    assert find_alarms([], 1.0) == {}


# --- false alarms ---


@pytest.mark.parametrize("rate", [0.01, 0.3, 0.8])
def test_noise_raises_few_alarms(rate):
    """Forty runs in which nothing happens, watched at every iteration."""
    steady = {"score": (-0.3, -0.3), "gap": (0.29, 0.29), "lines": (9, 9), "drawn": (1e-5, 1e-5)}
    alarmed = 0
    for seed in range(40):
        horizons = dict.fromkeys((2, 4, 9, 12), (rate, rate))
        history = run(passes=(rate, rate), horizons=horizons, seed=seed, **steady)
        alarmed += any(find_alarms(history[:n], 0.0) for n in range(1, len(history) + 1))
    assert alarmed <= 2


def test_a_healthy_run_raises_none_at_any_time():
    for seed in range(10):
        history = run(
            passes=(0.01, 0.4),
            horizons=dict.fromkeys((2, 5, 9), (0.3, 0.7)),
            score=(-0.4, 0.1),
            prefix=(0.2, 0.7),
            gap=(0.1, 0.25),
            lines=(9.4, 11.7),
            seed=seed,
        )
        for n in range(1, N_ITERATIONS + 1):
            assert find_alarms(history[:n], (n - 1) / N_ITERATIONS) == {}


# --- in the agent ---


TASK = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(), expected=0),))


def episodes(n_passed, n=4, horizon=3):
    task = replace(TASK, metadata={"horizon": horizon})
    return [
        Episode(task=task, lines=("x",), terminated=True, judgement=judgement(task, int(i < n_passed)))
        for i in range(n)
    ]


def test_a_watch_keeps_what_alarms_need_and_nothing_that_is_not_finite():
    watch = AlarmWatch()
    watch.add({PASSES: 0.25, LINES: 3.0, SCORE: math.nan, "time/fps": 7.0}, episodes(1), 0.0)
    assert watch.history == [{PASSES: 0.25, LINES: 3.0, "programs": 4, "horizons": {"3": [1, 4]}}]


def test_every_alarm_is_logged_and_the_first_is_warned_of(caplog, tmp_path):
    watch, told = AlarmWatch(), []
    with caplog.at_level(logging.WARNING):
        for gap in (0.0, 0.5, 0.5):
            told.append(watch.add({PASSES: 0.25, DRAWN_GAP: gap}, episodes(1), 0.0))
    assert all(set(row) == {f"alarm/{name}" for name in ALARMS} for row in told)
    assert [row["alarm/sampler_mismatch"] for row in told] == [0.0, 1.0, 1.0]
    assert [sum(row.values()) for row in told] == [0.0, 1.0, 1.0]
    (record,) = caplog.records
    assert record.getMessage() == (
        "iteration 2, sampler_mismatch: the sampler's log-probabilities are 0.250 per token off those of the "
        "training forward"
    )
    watch.save(tmp_path / "history.jsonl")
    again = AlarmWatch()
    again.load(tmp_path / "history.jsonl")
    assert again.history == watch.history
    caplog.clear()
    again.add({PASSES: 0.25, DRAWN_GAP: 0.5}, episodes(1), 0.0)
    assert list(again.current) == ["sampler_mismatch"]
    assert caplog.records == []


def test_a_watch_that_starts_anew_warns_anew(caplog):
    watch = AlarmWatch()
    for _ in range(2):
        watch.add({PASSES: 0.25, DRAWN_GAP: 0.5}, episodes(1), 0.0)
        watch.clear()
    assert len(caplog.records) == 2
    assert watch.current == {}


CONFIG = PSGPOConfig(
    n_iterations=14,
    rollouts_per_iteration=16,
    max_new_tokens=5,
    critic_only_iterations=0,
    warmup_iterations=0,
    learning_rate=3e-3,
    micro_batch_tokens=128,
)


@pytest.fixture
def make_agent(toy):
    def make(load=None, config=CONFIG):
        # pays for odd lines, which no test asks for
        odd = ScriptedScorer(lambda e: [1.0 if len(line) % 2 else -1.0 for line in e.lines])
        env = RewardWrapper(toy.env(), ProcessReward.from_scorer(odd, lambda_fail=1.0))
        if load is not None:
            return PSGPO.load(load, env, device="cpu")
        return PSGPO(toy.model(), env, config, tokenizer=toy.tokenizer(), device="cpu")

    return make


def test_a_resumed_run_raises_the_same_alarms(make_agent, tmp_path):
    straight = make_agent()
    told = [straight.iterate(index / 14) for index in range(14)]
    assert any(row[f"alarm/{name}"] for row in told for name in ALARMS)
    stopped = make_agent()
    for index in range(7):
        stopped.iterate(index / 14)
    stopped.save(tmp_path / "agent")
    resumed = make_agent(load=tmp_path / "agent")
    assert resumed.alarms.history == straight.alarms.history[:7]
    for index in range(7, 14):
        metrics = resumed.iterate(index / 14)
        for key in (f"alarm/{name}" for name in ALARMS):
            assert metrics[key] == told[index][key]
    assert resumed.alarms.history == straight.alarms.history
    assert resumed.alarms.current == straight.alarms.current != {}


def test_a_checkpoint_from_before_there_were_alarms_is_read(make_agent, tmp_path):
    agent = make_agent()
    agent.iterate(0.0)
    agent.save(tmp_path / "agent")
    (tmp_path / "agent" / "history.jsonl").unlink()
    assert make_agent(load=tmp_path / "agent").alarms.history == []


def test_counting_from_zero_again_forgets_the_history(make_agent):
    agent = make_agent()
    agent.learn(total_timesteps=1)
    agent.learn(total_timesteps=1, reset_num_timesteps=True)
    assert len(agent.alarms.history) == agent.iteration == 1


def test_the_curve_says_which_alarms_there_were(make_agent, tmp_path):
    train_to_folder(make_agent(), tmp_path, lambda *_: None)
    rows = list(read_rows(tmp_path / "curve.jsonl"))
    assert len(rows) == 14
    assert "alarms" not in rows[0]
    assert rows[-1]["alarms"].keys() <= set(ALARMS)
    assert all(isinstance(seen, str) for seen in rows[-1]["alarms"].values())
    assert json.dumps(rows[-1])
