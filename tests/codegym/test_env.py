"""The contract of `CodeGen-v0`."""

import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env
from hypothesis import given, settings
from hypothesis import strategies as st

import codegym
from codegym import END_OF_PROGRAM, CodeGenEnv, SandboxError, Task, TaskError, UnknownNameError, Verdict
from codegym.episode import CUT_PROGRAM
from codegym.task import CallTest
from codegym.testing import DOUBLE, ScriptedJudge, judgement

RIGHT = ["    y = x + x", "    return y"]


def returns_y(task, source):
    return judgement(task, len(task.tests) if "return y" in source else 1)


@pytest.fixture
def judge():
    return ScriptedJudge(returns_y)


@pytest.fixture
def env(judge):
    return gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge)


def tasks(n):
    return [
        Task(
            task_id=f"t/{i}",
            prompt=f"def f{i}(x):\n",
            entry_point=f"f{i}",
            tests=(CallTest(args=(1,), expected=2),),
        )
        for i in range(n)
    ]


def play(env, actions, **reset):
    """Every step's result, reset included."""
    results = [env.reset(**reset)]
    for action in actions:
        results.append(env.step(action))
    return results


def test_a_right_program_line_by_line(env):
    (text, info), first, second, last = play(env, [*RIGHT, END_OF_PROGRAM])
    assert (text, info) == ("def double(x):\n", {"task_id": "check/double"})
    assert first == ("def double(x):\n    y = x + x\n", 0.0, False, False, {"task_id": "check/double"})
    assert second[0] == "def double(x):\n    y = x + x\n    return y\n"
    text, reward, terminated, truncated, info = last
    assert text == second[0]
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info == {
        "task_id": "check/double",
        "verdict": "passed",
        "tests_passed": 3,
        "tests_total": 3,
        "is_success": True,
        "error_line": 0,
        "action_rewards": (0.0, 0.0, 1.0),
        "reward_parts": {"outcome": 1.0},
    }


def test_a_wrong_program_earns_nothing(env):
    _, _, (_, reward, terminated, truncated, info) = play(env, ["    return x", END_OF_PROGRAM])
    assert (reward, terminated, truncated) == (0.0, True, False)
    assert info["verdict"] is Verdict.WRONG_ANSWER
    assert (info["tests_passed"], info["tests_total"], info["is_success"]) == (1, 3, False)
    assert info["action_rewards"] == (0.0, 0.0)


def test_truncation_by_lines_judges_the_program(judge):
    env = gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge, max_lines=2)
    *_, (_, reward, terminated, truncated, info) = play(env, RIGHT)
    assert (reward, terminated, truncated) == (1.0, False, True)
    assert info["action_rewards"] == (0.0, 1.0)
    assert judge.batches == [[(DOUBLE, "def double(x):\n    y = x + x\n    return y\n")]]


def test_truncation_by_characters_counts_newlines(judge):
    for max_chars, expected in ((14, True), (15, False)):
        env = gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge, max_chars=max_chars)
        env.reset()
        assert env.step("    y = x + x"[:13])[3] is expected  # 13 characters and a newline


def test_ending_at_once_is_judged(env, judge):
    *_, (_, reward, terminated, _, info) = play(env, [END_OF_PROGRAM])
    assert (reward, terminated, info["action_rewards"]) == (0.0, True, (0.0,))
    assert judge.batches == [[(DOUBLE, "def double(x):\n")]]


def test_a_prompt_that_is_no_code_is_not_judged(judge):
    task = Task(
        task_id="p", prompt="Double x.\n", entry_point="double", tests=DOUBLE.tests, prompt_is_code=False
    )
    env = gym.make("CodeGen-v0", tasks=[task], judge=judge)
    play(env, ["def double(x): return y", END_OF_PROGRAM])
    assert judge.batches[-1][0][1] == "def double(x): return y\n"
    assert env.unwrapped.episode.text == "Double x.\ndef double(x): return y\n"


@pytest.mark.parametrize(
    "action",
    ["a\nb", "a\n", "\n", "a\0", "\0", "\0end", END_OF_PROGRAM + "x", 3, None, b"x = 1", ["x"], float("nan")],
)
def test_a_bad_action_is_named_and_harms_nothing(env, action):
    env.reset()
    env.step(RIGHT[0])
    before = env.unwrapped.episode
    with pytest.raises(ValueError, match="an action is") as caught:
        env.step(action)
    assert repr(action) in str(caught.value)
    assert env.unwrapped.episode is before
    assert play(env, [*RIGHT, END_OF_PROGRAM])[-1][1] == 1.0


@pytest.mark.parametrize(
    "line", ["", "\r", "    λ = '文😀'", "\u2028", "\x1b[31m", "\ud800", "\t" * 50, "x" * 10_000]
)
def test_any_other_string_is_a_line(env, line):
    env.reset()
    text, *_ = env.step(line)
    assert text == f"def double(x):\n{line}\n"
    assert text in env.observation_space


def test_numpy_strings_are_actions(env):
    env.reset()
    lines = np.array([*RIGHT, END_OF_PROGRAM])
    *_, (_, reward, terminated, _, _) = [env.step(line) for line in lines]
    assert (reward, terminated) == (1.0, True)
    assert all(type(line) is str for line in env.unwrapped.episode.lines)


def test_step_and_render_need_a_program(judge):
    env = CodeGenEnv([DOUBLE], judge, render_mode="ansi")
    with pytest.raises(ResetNeeded, match="reset"):
        env.step("x")
    with pytest.raises(ResetNeeded):
        env.render()
    with pytest.raises(ResetNeeded):
        _ = env.episode
    env.reset()
    env.step(END_OF_PROGRAM)
    with pytest.raises(ResetNeeded, match="ended"):
        env.step("x")
    env.reset()
    env.step("x")


def test_a_failing_judge_leaves_the_episode_so_that_the_step_can_be_repeated():
    failures = [SandboxError("worker lost")]

    def decide(task, source):
        if failures:
            raise failures.pop()
        return judgement(task, 3)

    env = CodeGenEnv([DOUBLE], ScriptedJudge(decide))
    env.reset()
    env.step(RIGHT[0])
    with pytest.raises(SandboxError):
        env.step(END_OF_PROGRAM)
    assert not env.episode.over
    assert env.episode.judgement is None
    assert env.step(END_OF_PROGRAM)[1:4] == (1.0, True, False)


def test_reset_picks_a_task_by_id_or_draws_with_the_seed(judge):
    env = gym.make("CodeGen-v0", tasks=tasks(50), judge=judge)
    assert env.reset(options={"task_id": "t/7"})[1] == {"task_id": "t/7"}
    env.reset(seed=3)
    drawn = [env.reset()[1]["task_id"] for _ in range(40)]
    env.reset(seed=3)
    assert drawn == [env.reset()[1]["task_id"] for _ in range(40)]
    assert len(set(drawn)) > 15


def test_reset_refuses_what_it_does_not_know(judge):
    env = gym.make("CodeGen-v0", tasks=tasks(3000), judge=judge)
    with pytest.raises(
        UnknownNameError, match=r"no task 't/77777' among 3000; the closest are t/777"
    ) as caught:
        env.reset(options={"task_id": "t/77777"})
    assert len(str(caught.value)) < 200
    with pytest.raises(ValueError, match=r"\['task'\]"):
        env.reset(options={"task": "t/7"})


def test_info_is_fresh_every_step(env):
    infos = [result[-1] for result in play(env, [*RIGHT, END_OF_PROGRAM])]
    assert len({id(info) for info in infos}) == 4
    infos[0]["task_id"] = "spoiled"
    assert env.reset()[1] == {"task_id": "check/double"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_lines": 0}, "max_lines=0"),
        ({"max_chars": -1}, "max_chars=-1"),
        ({"render_mode": "jpeg"}, "one of ansi, html, rgb_array, human, got 'jpeg'"),
        ({"task_options": {"split": "train"}}, "options for tasks go with a name"),
        ({"judge_options": {"workers": 2}}, "options for judge go with a name"),
    ],
)
def test_bad_arguments_are_named(judge, options, message):
    with pytest.raises(ValueError, match=message):
        CodeGenEnv([DOUBLE], judge, **options)


def test_bad_task_sets_are_refused(judge):
    with pytest.raises(TaskError, match="at least one"):
        CodeGenEnv([], judge)
    with pytest.raises(TaskError, match="'t/0' occurs more than once"):
        CodeGenEnv([*tasks(2), *tasks(1)], judge)
    with pytest.raises(TaskError, match="'bare' has no tests"):
        CodeGenEnv([Task(task_id="bare", prompt="", entry_point=None, tests=())], judge)


def test_unknown_names_list_the_choices(judge):
    with pytest.raises(UnknownNameError, match="stepwise"):
        CodeGenEnv("stepwize", judge)
    env = CodeGenEnv([DOUBLE], "lokal")
    env.reset()
    with pytest.raises(UnknownNameError, match="local"):
        env.step(END_OF_PROGRAM)


def test_a_named_judge_starts_when_needed_and_stops_with_close(monkeypatch):
    started = []

    def start(name, **options):
        started.append((name, options, ScriptedJudge(returns_y)))
        return started[-1][2]

    monkeypatch.setattr("codegym.env.make_judge", start)
    env = CodeGenEnv([DOUBLE], "local", judge_options={"workers": 3})
    play(env, RIGHT)
    assert started == []
    env.step(END_OF_PROGRAM)
    play(env, [END_OF_PROGRAM])
    ((name, options, judge),) = started
    assert (name, options, judge.closed) == ("local", {"workers": 3}, False)
    env.close()
    env.close()
    assert judge.closed


def test_a_judge_given_as_an_object_is_left_open(env, judge):
    play(env, [END_OF_PROGRAM])
    env.close()
    assert not judge.closed


def test_gymnasium_check_env_is_clean(judge):
    env = gym.make("CodeGen-v0", tasks=[*tasks(3), DOUBLE], judge=judge)
    check_env(env.unwrapped)


def test_make_by_module_name(judge):
    assert isinstance(gym.make("codegym:CodeGen-v0", tasks=[DOUBLE], judge=judge).unwrapped, CodeGenEnv)


@pytest.mark.parametrize("wrong", [None, object(), ScriptedJudge])
def test_what_is_no_judge_is_refused(wrong):
    with pytest.raises(TypeError, match="judge must be a Judge, an object with judge and close, got"):
        gym.make("CodeGen-v0", tasks=[DOUBLE], judge=wrong)


def test_spec_survives_json(monkeypatch):
    asked = []

    def load(name, **options):
        asked.append((name, options))
        return tasks(4)

    monkeypatch.setattr("codegym.env.load_tasks", load)
    env = gym.make("CodeGen-v0", tasks="stepwise", judge="local", max_lines=7, task_options={"split": "test"})
    spec = gym.envs.registration.EnvSpec.from_json(env.spec.to_json())
    twin = gym.make(spec)
    assert twin.spec == env.spec
    assert twin.unwrapped.max_lines == 7
    assert asked == [("stepwise", {"split": "test"})] * 2
    json.loads(env.spec.to_json())


def test_the_same_seed_and_actions_give_the_same_everything(judge):
    runs = [
        play(gym.make("CodeGen-v0", tasks=tasks(9), judge=judge), [*RIGHT, END_OF_PROGRAM], seed=5)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]


@settings(max_examples=60)
@given(st.lists(st.text(st.characters(exclude_characters="\n\0"), max_size=12), max_size=8), st.booleans())
def test_the_episode_holds_exactly_the_lines_written(lines, terminate):
    env = CodeGenEnv([DOUBLE], ScriptedJudge(returns_y), max_lines=8)
    text, _ = env.reset()
    for line in lines:
        text, _, terminated, _, _ = env.step(line)
        assert not terminated
    if terminate and len(lines) < 8:
        text, *_ = env.step(END_OF_PROGRAM)
    episode = env.episode
    assert list(episode.lines) == lines
    assert text == episode.text == DOUBLE.prompt + "".join(line + "\n" for line in lines)
    assert episode.over == (len(lines) == 8 or terminate)
    assert (episode.judgement is not None) == episode.over
    assert episode.n_actions == len(lines) + episode.terminated


def test_vector_environments_take_ragged_endings(judge):
    """Programs of different lengths that end in the same step: infos must join."""
    env = gym.make_vec("CodeGen-v0", 3, "sync", tasks=[DOUBLE], judge=judge, max_lines=3)
    env.reset(seed=0)
    env.step((RIGHT[0], END_OF_PROGRAM, "x"))
    env.step((RIGHT[1], "ignored: this step resets", "y"))
    _, rewards, terminated, truncated, infos = env.step((END_OF_PROGRAM, END_OF_PROGRAM, "z"))
    assert rewards.tolist() == [1.0, 0.0, 0.0]
    assert terminated.tolist() == [True, True, False]
    assert truncated.tolist() == [False, False, True]
    assert infos["action_rewards"].tolist() == [(0.0, 0.0, 1.0), (0.0,), (0.0, 0.0, 0.0)]
    env.close()


def test_vector_environments_take_error_lines_that_only_some_programs_have():
    def decide(task, source):
        found = judgement(task, 0, Verdict.RUNTIME_ERROR)
        return replace(found, error_line=2) if "bad" in source else found

    judge = ScriptedJudge(decide)
    env = gym.make_vec("CodeGen-v0", 2, "sync", tasks=[DOUBLE], judge=judge, max_lines=2)
    env.reset(seed=0)
    env.step(("bad", "x"))
    *_, infos = env.step((END_OF_PROGRAM, END_OF_PROGRAM))
    assert infos["error_line"].tolist() == [2, 0]
    env.close()


def test_a_cut_is_a_truncation_and_no_action(env, judge):
    *_, (_, reward, terminated, truncated, info) = play(env, [*RIGHT, CUT_PROGRAM])
    assert (reward, terminated, truncated) == (1.0, False, True)
    assert info["action_rewards"] == (0.0, 1.0)
    assert len(judge.batches) == 1
    with pytest.raises(ResetNeeded):
        env.step("x")


def test_the_rules_are_functions_of_episodes(judge):
    """Another environment can play by them: nothing is kept."""
    env = CodeGenEnv(tasks(5), judge, max_lines=2)
    start = env.start(np.random.default_rng(0), {"task_id": "t/3"})
    once = env.advance(start, "    return y")
    ended, cut = env.advance(once, END_OF_PROGRAM), env.advance(once, "x")
    assert (start.lines, once.lines, once.over) == ((), ("    return y",), False)
    assert (ended.terminated, ended.truncated, cut.terminated, cut.truncated) == (True, False, False, True)
    judged = env.judged([start, ended, once, cut])
    assert [e.judgement is not None for e in judged] == [False, True, False, True]
    assert [len(batch) for batch in judge.batches] == [2]
    assert env.judged([once]) == [once]
    assert len(judge.batches) == 1
    with pytest.raises(ResetNeeded):
        env.advance(ended, "x")
    with pytest.raises(ResetNeeded, match="no program"):
        _ = env.episode


def test_the_environment_is_registered_at_import_without_a_time_limit():
    spec = gym.spec("CodeGen-v0")
    assert spec.entry_point == "codegym.env:CodeGenEnv"
    assert spec.vector_entry_point == "codegym.vector:CodeGenVectorEnv"
    assert spec.max_episode_steps is None
    assert codegym.CodeGenEnv is CodeGenEnv


def test_bundled_tasks_and_judge_by_name_pass_check_env_and_reward_every_reference():
    env = gym.make(
        "CodeGen-v0",
        tasks="stepwise",
        judge="local",
        task_options={"limit": 6, "horizons": [2, 7]},
        judge_options={"workers": 1},
    )
    check_env(env.unwrapped)
    twin = gym.make(gym.envs.registration.EnvSpec.from_json(env.spec.to_json()))
    assert twin.unwrapped.tasks == env.unwrapped.tasks
    for task in env.unwrapped.tasks:
        right, wrong = task.reference.splitlines(), task.reference.splitlines()[:-1]
        for lines, expected in ((right, 1.0), (wrong, 0.0)):
            results = play(env, [*lines, END_OF_PROGRAM], options={"task_id": task.task_id})
            assert sum(result[1] for result in results[1:]) == expected
    env.close()
    twin.close()


def test_an_error_line_counts_from_the_top_of_the_judged_module():
    env = gym.make("CodeGen-v0", tasks=[DOUBLE], judge="local", judge_options={"workers": 1})
    *_, (_, _, _, _, info) = play(env, ["    y = x", "    return y // 0", END_OF_PROGRAM])
    assert (info["verdict"], info["error_line"]) == ("runtime_error", 3)
    assert env.unwrapped.episode.source.split("\n")[info["error_line"] - 1] == "    return y // 0"
    env.close()
