"""`CodeGenVectorEnv`: Gymnasium's contract for vector environments, and the same results as single ones."""

from functools import partial

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import DictInfoToList, RecordEpisodeStatistics
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import (
    END_OF_PROGRAM,
    CodeGenEnv,
    CodeGenVectorEnv,
    SandboxError,
    Task,
    TaskError,
    UnknownNameError,
)
from codegym.render import draw_ansi
from codegym.task import CallTest
from codegym.testing import DOUBLE, ScriptedJudge, judgement

MODES = list(AutoresetMode)
ACTIONS = ("    y = x + x", "    return y", "# why", END_OF_PROGRAM)


def returns_y(task, source):
    return judgement(task, len(task.tests) if "return y" in source else 0)


def tasks(n):
    test = CallTest(args=(1,), expected=2)
    return [
        Task(task_id=f"t/{i}", prompt=f"def f{i}(x):\n", entry_point=f"f{i}", tests=(test,)) for i in range(n)
    ]


@pytest.fixture
def judge():
    return ScriptedJudge(returns_y)


def make(n, judge, mode=AutoresetMode.NEXT_STEP, **options):
    options = {"tasks": tasks(20), "max_lines": 3, **options}
    return gym.make_vec("CodeGen-v0", n, judge=judge, autoreset_mode=mode, **options)


def make_sync(n, judge, mode=AutoresetMode.NEXT_STEP, **options):
    options = {"tasks": tasks(20), "max_lines": 3, **options}
    return SyncVectorEnv([partial(CodeGenEnv, judge=judge, **options)] * n, autoreset_mode=mode)


def same(a, b):
    """Equal in value, type and masks, whatever the nesting."""
    if isinstance(a, dict):
        return set(a) == set(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and all(map(same, a.tolist(), b.tolist()))
    if isinstance(a, tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


def test_make_vec_makes_it_with_text_spaces(judge):
    env = make(3, judge)
    assert type(env) is CodeGenVectorEnv
    assert (env.num_envs, env.metadata["autoreset_mode"]) == (3, AutoresetMode.NEXT_STEP)
    texts, infos = env.reset(seed=0)
    assert texts in env.observation_space
    assert env.action_space.sample() in env.action_space
    assert env.single_action_space == CodeGenEnv(tasks(1), judge).action_space
    assert all(text in env.single_observation_space for text in texts)
    assert infos["_task_id"].tolist() == [True] * 3


def test_next_step_mode_resets_on_the_step_after_the_end(judge):
    env = make(2, judge, tasks=[DOUBLE])
    env.reset()
    env.step(("    return y", "a"))
    texts, rewards, terminated, truncated, infos = env.step((END_OF_PROGRAM, "b"))
    assert texts == ("def double(x):\n    return y\n", "def double(x):\na\nb\n")
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == (
        [1, 0],
        [True, False],
        [False, False],
    )
    assert infos["action_rewards"].tolist() == [(0.0, 1.0), None]
    assert infos["_verdict"].tolist() == [True, False]
    texts, rewards, terminated, truncated, infos = env.step(("ignored", "c"))
    assert texts == ("def double(x):\n", "def double(x):\na\nb\nc\n")
    assert (rewards.tolist(), terminated.tolist(), truncated.tolist()) == (
        [0, 0],
        [False, False],
        [False, True],
    )
    assert infos["_task_id"].tolist() == [True, True]
    assert env.step(("d", "ignored"))[0] == ("def double(x):\nd\n", "def double(x):\n")


def test_same_step_mode_resets_at_once_and_keeps_the_end_in_infos(judge):
    env = make(2, judge, AutoresetMode.SAME_STEP, tasks=[DOUBLE])
    env.reset()
    texts, _, terminated, _, infos = env.step(("    return y", END_OF_PROGRAM))
    assert texts == ("def double(x):\n    return y\n", "def double(x):\n")
    assert terminated.tolist() == [False, True]
    assert infos["final_obs"].tolist() == [None, "def double(x):\n"]
    assert infos["final_info"]["is_success"].tolist() == [False, False]
    assert infos["_final_info"].tolist() == [False, True]
    assert "verdict" not in infos
    assert env.episodes[1].n_actions == 0
    assert env.stepped[1].judgement is not None
    assert env.step((END_OF_PROGRAM, "x"))[1].tolist() == [1.0, 0.0]


def test_disabled_mode_waits_for_a_masked_reset(judge):
    env = make(3, judge, AutoresetMode.DISABLED, tasks=[DOUBLE])
    env.reset()
    env.step(("a", END_OF_PROGRAM, "b"))
    before = env.episodes
    with pytest.raises(ResetNeeded, match="ended"):
        env.step(("a", "x", "b"))
    assert env.episodes == before
    options = {"reset_mask": np.array([False, True, False])}
    texts, infos = env.reset(options=options)
    assert texts == ("def double(x):\na\n", "def double(x):\n", "def double(x):\nb\n")
    assert infos["_task_id"].tolist() == [False, True, False]
    assert "reset_mask" in options  # the caller's dict is left alone
    assert env.step(("c", "d", "e"))[0][1] == "def double(x):\nd\n"


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=5)
@given(data=st.data())
def test_64_environments_are_64_single_ones(mode, data):
    judges = ScriptedJudge(returns_y), ScriptedJudge(returns_y)
    ours, theirs = make(64, judges[0], mode), make_sync(64, judges[1], mode)
    assert same(ours.reset(seed=7), theirs.reset(seed=7))
    for _ in range(6):
        seed = data.draw(st.integers(0, 2**32 - 1))
        actions = np.random.default_rng(seed).choice(ACTIONS, size=64, p=(0.4, 0.3, 0.1, 0.2)).tolist()
        a, b = ours.step(actions), theirs.step(actions)
        assert all(map(same, a, b))
        if mode is AutoresetMode.DISABLED and (a[2] | a[3]).any():
            mask = {"reset_mask": a[2] | a[3]}
            assert same(ours.reset(options=dict(mask)), theirs.reset(options=dict(mask)))
    assert sum(map(len, judges[0].batches)) == sum(map(len, judges[1].batches))
    assert len(judges[0].batches) <= 6


def test_one_batch_for_the_judge_per_step_and_none_without_an_end(judge):
    env = make(8, judge)
    env.reset(seed=0)
    env.step(["    return y"] * 8)
    assert judge.batches == []
    env.step([END_OF_PROGRAM] * 5 + ["x"] * 3)
    assert [len(batch) for batch in judge.batches] == [5]


def test_seeds_are_those_of_gymnasium(judge):
    ours, theirs = make(3, judge), make_sync(3, judge)
    for seed in (3, [5, None, 9], None, 4):
        a, b = ours.reset(seed=seed), theirs.reset(seed=seed)
        if seed == 4 or seed == 3:
            assert same(a, b)
            assert ours.np_random_seed == theirs.np_random_seed == (seed, seed + 1, seed + 2)
        elif seed is not None:
            assert [a[0][i] for i in (0, 2)] == [b[0][i] for i in (0, 2)]
    assert [rng.integers(100) for rng in ours.np_random] == [rng.integers(100) for rng in theirs.np_random]
    with pytest.raises(ValueError, match="expected 3 seeds, one per environment, got 2"):
        ours.reset(seed=[1, 2])


def test_unseeded_environments_differ(judge):
    texts = {make(8, judge).reset()[0] for _ in range(5)}
    assert len(texts) == 5


def test_tasks_are_picked_for_all_or_one_by_one(judge):
    env = make(3, judge)
    assert env.reset(options={"task_id": "t/4"})[1]["task_id"].tolist() == ["t/4"] * 3
    assert env.reset(options={"task_id": ["t/1", "t/2", "t/3"]})[1]["task_id"].tolist() == [
        "t/1",
        "t/2",
        "t/3",
    ]
    with pytest.raises(ValueError, match="one task_id or 3"):
        env.reset(options={"task_id": ["t/1"]})


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"task_id": "t/99"}, UnknownNameError, "t/99"),
        ({"task_id": ["t/1", "t/99", "t/2"]}, UnknownNameError, "t/99"),
        ({"task": "t/1"}, ValueError, r"\['task'\]"),
        ({"reset_mask": [True, False, False]}, TypeError, "array of booleans"),
        ({"reset_mask": np.array([1, 0, 0])}, TypeError, "array of booleans"),
        ({"reset_mask": np.array([True])}, ValueError, r"shape \(3,\)"),
        ({"reset_mask": np.zeros(3, dtype=bool)}, ValueError, "a True value"),
    ],
)
def test_a_bad_reset_changes_nothing(judge, options, error, message):
    env = make(3, judge)
    env.reset(seed=1)
    before = env.episodes, [rng.bit_generator.state for rng in env.np_random]
    with pytest.raises(error, match=message):
        env.reset(seed=2, options=options)
    assert (env.episodes, [rng.bit_generator.state for rng in env.np_random]) == before


def test_the_first_reset_must_be_whole(judge):
    env = make(2, judge, render_mode="ansi")
    for call in (
        lambda: env.reset(options={"reset_mask": np.array([True, False])}),
        lambda: env.step(("a", "b")),
        lambda: env.episodes,
        env.render,
    ):
        with pytest.raises(ResetNeeded, match="reset"):
            call()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("actions", [("a", "b\nc", "d"), ("a", 3, "d"), ("a", "b"), ()])
def test_a_bad_action_changes_no_environment(judge, mode, actions):
    env = make(3, judge, mode)
    env.reset(seed=0)
    env.step(("a", "b", "c"))
    before = env.episodes
    with pytest.raises(ValueError, match=r"an action is|expected 3 actions"):
        env.step(actions)
    assert env.episodes == before


@pytest.mark.parametrize("mode", MODES)
def test_a_failing_judge_changes_no_environment_and_the_step_can_be_repeated(mode):
    failures = [SandboxError("worker lost")]

    def decide(task, source):
        if failures:
            raise failures.pop()
        return returns_y(task, source)

    env, twin = make(3, ScriptedJudge(decide), mode), make(3, ScriptedJudge(returns_y), mode)
    for each in (env, twin):
        each.reset(seed=0)
        each.step(["    return y"] * 3)
    with pytest.raises(SandboxError):
        env.step((END_OF_PROGRAM, "x", END_OF_PROGRAM))
    again, right = (each.step((END_OF_PROGRAM, "x", END_OF_PROGRAM)) for each in (env, twin))
    assert all(map(same, again, right))
    assert right[1].tolist() == [1.0, 0.0, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_envs": 0}, "num_envs must be at least 1, got 0"),
        ({"render_mode": "human"}, "'human'"),
        ({"autoreset_mode": "Never"}, "Never"),
        ({"max_lines": 0}, "max_lines=0"),
    ],
)
def test_bad_arguments_are_named(judge, options, message):
    with pytest.raises(ValueError, match=message):
        CodeGenVectorEnv(**{"num_envs": 2, "tasks": tasks(1), "judge": judge, **options})


def test_bad_tasks_are_refused(judge):
    with pytest.raises(TaskError, match="at least one"):
        make(2, judge, tasks=[])


def test_spec_survives_json(monkeypatch):
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: tasks(4))
    env = gym.make_vec("CodeGen-v0", 5, tasks="stepwise", autoreset_mode="SameStep", max_lines=7)
    twin = gym.make_vec(EnvSpec.from_json(env.spec.to_json()))
    assert type(twin) is CodeGenVectorEnv
    assert (twin.num_envs, twin.autoreset_mode) == (5, AutoresetMode.SAME_STEP)
    assert twin.spec == env.spec


def test_a_named_judge_starts_late_and_stops_with_close(monkeypatch):
    started = []

    def start(name, **options):
        started.append((name, options, ScriptedJudge(returns_y)))
        return started[-1][2]

    monkeypatch.setattr("codegym.env.make_judge", start)
    env = make(2, "local", judge_options={"workers": 3})
    env.reset()
    env.step(("a", "b"))
    assert started == []
    env.step((END_OF_PROGRAM, "b"))
    ((name, options, judge),) = started
    assert (name, options, judge.closed, env.judge) == ("local", {"workers": 3}, False, judge)
    env.close()
    env.close()
    assert judge.closed


def test_a_judge_given_as_an_object_is_left_open(judge):
    env = make(2, judge)
    env.close()
    assert not judge.closed
    assert env.closed


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_episode_statistics_of_gymnasium_work(judge, mode):
    env = RecordEpisodeStatistics(make(2, judge, mode, tasks=[DOUBLE]))
    env.reset(seed=0)
    env.step(("    return y", "x"))
    *_, infos = env.step((END_OF_PROGRAM, "x"))
    assert infos["episode"]["r"].tolist() == [1.0, 0.0]
    assert infos["episode"]["l"].tolist() == [2, 0]


def test_infos_as_lists_work(judge):
    env = DictInfoToList(make(2, judge, tasks=[DOUBLE]))
    env.reset(seed=0)
    *_, infos = env.step((END_OF_PROGRAM, "x"))
    assert infos[0]["verdict"] == "wrong_answer"
    assert infos[1] == {"task_id": "check/double"}


@pytest.mark.parametrize("mode", MODES)
def test_rendering_shows_each_episode_as_the_step_left_it(judge, mode):
    env = make(2, judge, mode, tasks=[DOUBLE], render_mode="ansi")
    env.reset()
    assert env.render() == (draw_ansi(env.stepped[0]),) * 2
    env.step(("    return y", "x"))
    env.step((END_OF_PROGRAM, "y"))
    ended, running = env.render()
    assert ended.endswith("      +1.000 | # end of program\n# passed: 3 of 3 tests, return 1.000\n")
    assert running.endswith("   1  +0.000 | x\n   2  +0.000 | y\n")
    if mode is AutoresetMode.DISABLED:
        env.reset(options={"reset_mask": np.array([True, False])})
    elif mode is AutoresetMode.NEXT_STEP:
        env.step(("ignored", "z"))
    env.step(("new", "ignored" if env.episodes[1].over else "z"))
    assert env.rewards[0] == (0.0,)
    assert "   1  +0.000 | new\n" in env.render()[0]


def test_rendering_without_a_mode_warns(judge):
    env = make(1, judge)
    env.reset()
    with pytest.warns(UserWarning, match="render mode"):
        assert env.render() is None


def test_sync_vector_environments_are_there_for_the_asking(judge):
    env = gym.make_vec("CodeGen-v0", 2, "sync", tasks=[DOUBLE], judge=judge)
    assert isinstance(env, SyncVectorEnv)
    env.reset(seed=0)
    assert env.step((END_OF_PROGRAM, "x"))[2].tolist() == [True, False]


def test_async_vector_environments_work_without_shared_memory():
    make_env = partial(CodeGenEnv, tasks(20), ScriptedJudge(returns_y), max_lines=3)
    env = AsyncVectorEnv([make_env] * 2, shared_memory=False)
    twin = make(2, ScriptedJudge(returns_y))
    try:
        assert same(env.reset(seed=3), twin.reset(seed=3))
        for actions in (("    return y", "x"), (END_OF_PROGRAM, "y"), ("z", "w")):
            assert all(map(same, env.step(actions), twin.step(actions)))
    finally:
        env.close()


def test_async_vector_environments_refuse_shared_memory():
    make_env = partial(CodeGenEnv, tasks(2), ScriptedJudge(returns_y))
    with pytest.raises((ValueError, gym.error.CustomSpaceError)):
        AsyncVectorEnv([make_env] * 2)


def test_the_local_judge_judges_programs_side_by_side():
    env = gym.make_vec("CodeGen-v0", 3, tasks=[DOUBLE], judge="local", judge_options={"workers": 1})
    env.reset(seed=0)
    env.step(("    return x + x", "    return x", "    return x +"))
    *_, infos = env.step([END_OF_PROGRAM] * 3)
    assert infos["verdict"].tolist() == ["passed", "wrong_answer", "syntax_error"]
    env.close()
