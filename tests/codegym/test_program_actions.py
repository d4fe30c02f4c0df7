"""Whole programs as actions, and what all wrappers that send lines share."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import (
    END_OF_PROGRAM,
    CodeSpace,
    LineChoices,
    ProgramActions,
    RewardWrapper,
    SandboxError,
    TokenActions,
)
from codegym.testing import DOUBLE, ScriptedJudge, judgement

RIGHT = "    y = x + x\n    return y\n"
WRAPPERS = {
    "program": lambda env: ProgramActions(env),
    "token": lambda env: TokenActions(env),
    "choice": lambda env: LineChoices(env, "lines", 2, proposer_options={"lines": ["    return y"]}),
}


class Steps:
    """Pays 1, 2, 3... while a program is written, and in hindsight 10 for each action."""

    def step(self, episodes):
        return np.array([float(len(e.lines)) for e in episodes])

    def credit(self, episodes):
        return [np.full(e.n_actions, 10.0) for e in episodes]


@pytest.fixture
def judge():
    return ScriptedJudge(lambda task, source: judgement(task, 3 if "return y" in source else 1))


@pytest.fixture
def line_env(judge):
    return gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge, max_lines=4)


def test_a_program_is_one_step(line_env, judge):
    env = ProgramActions(line_env)
    text, info = env.reset(seed=0)
    assert (text, info) == ("def double(x):\n", {"task_id": "check/double"})
    text, reward, terminated, truncated, info = env.step(RIGHT)
    assert text == "def double(x):\n" + RIGHT
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert info["action_rewards"] == (0.0, 0.0, 1.0)
    assert info["verdict"] == "passed"
    assert len(judge.batches) == 1


@pytest.mark.parametrize(
    ("program", "lines"),
    [
        ("", ()),
        ("\n", ("",)),
        ("a", ("a",)),
        ("a\n", ("a",)),
        ("a\n\n", ("a", "")),
        ("a\r\nb", ("a\r", "b")),
        (np.str_("a\nb"), ("a", "b")),
    ],
)
def test_a_newline_at_the_end_is_no_further_line(line_env, program, lines):
    env = ProgramActions(line_env)
    env.reset()
    env.step(program)
    assert env.episode.lines == lines
    assert env.episode.terminated


def test_the_reward_is_the_sum_over_the_lines_of_any_scheme(line_env):
    env = ProgramActions(RewardWrapper(line_env, Steps()))
    env.reset()
    _, reward, _, _, info = env.step(RIGHT)
    assert reward == 30.0
    assert info["action_rewards"] == (10.0, 10.0, 10.0)


def test_lines_beyond_the_limit_are_not_written(line_env):
    env = ProgramActions(line_env)
    env.reset()
    text, reward, terminated, truncated, info = env.step("a\nb\nc\n    return y\nraise\n")
    assert text == "def double(x):\na\nb\nc\n    return y\n"
    assert (reward, terminated, truncated) == (1.0, False, True)
    assert info["action_rewards"] == (0.0, 0.0, 0.0, 1.0)


@pytest.mark.parametrize("action", ["a\0b", END_OF_PROGRAM, f"a\n{END_OF_PROGRAM}", 3, None, b"x", ["x"]])
def test_a_bad_program_is_named_and_harms_nothing(line_env, action):
    env = ProgramActions(line_env)
    env.reset()
    with pytest.raises(ValueError, match="an action is the text of a program") as caught:
        env.step(action)
    assert repr(action) in str(caught.value)
    assert env.episode.lines == ()
    assert env.step(RIGHT)[1] == 1.0


def test_the_action_space_holds_programs(line_env):
    env = ProgramActions(line_env)
    assert env.action_space == CodeSpace(is_source=True)
    env.reset(seed=0)
    env.step(env.action_space.sample())


@settings(max_examples=60)
@given(st.text(st.characters(exclude_characters="\0") | st.just("\n"), max_size=30))
def test_a_program_earns_what_its_lines_earn(program):
    judge = ScriptedJudge(lambda task, source: judgement(task, 3 if "a" in source else 1))
    whole = ProgramActions(RewardWrapper(gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge), Steps()))
    lines = RewardWrapper(gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge), Steps())
    whole.reset(seed=0)
    lines.reset(seed=0)
    text, reward, terminated, truncated, info = whole.step(program)
    results = [lines.step(line) for line in program.removesuffix("\n").split("\n") if program]
    results.append(lines.step(END_OF_PROGRAM))
    assert reward == sum(result[1] for result in results)
    assert (text, terminated, truncated, info) == (results[-1][0], *results[-1][2:])


@pytest.mark.parametrize("name", WRAPPERS)
def test_stepping_needs_a_program(line_env, name):
    env = WRAPPERS[name](line_env)
    action = env.action_space.sample()
    with pytest.raises(ResetNeeded):
        env.step(action)
    env.reset(seed=0)
    while not env.episode.over:
        env.step({"program": "a", "token": 256, "choice": 1}[name])
    with pytest.raises(ResetNeeded):
        env.step(action)


@pytest.mark.parametrize("name", WRAPPERS)
def test_only_lines_can_be_wrapped_and_rewards_go_inside(line_env, name):
    wrapped = WRAPPERS[name](line_env)
    for outer in WRAPPERS.values():
        with pytest.raises(TypeError, match="needs CodeGen-v0 with lines as actions"):
            outer(wrapped)
        with pytest.raises(TypeError, match="needs CodeGen-v0 with lines as actions"):
            outer(gym.make("CartPole-v1"))
    with pytest.raises(TypeError, match="put it inside"):
        RewardWrapper(wrapped, "pass_fail")


@pytest.mark.parametrize("name", WRAPPERS)
def test_after_a_failure_of_the_judge_the_step_goes_on_where_it_stopped(name):
    failures = []

    def decide(task, source):
        if failures:
            raise failures.pop()
        return judgement(task, 3)

    def make():
        line_env = gym.make("CodeGen-v0", tasks=[DOUBLE], judge=ScriptedJudge(decide), max_lines=3)
        return WRAPPERS[name](RewardWrapper(line_env, Steps()))

    actions = {"program": [RIGHT], "token": [*b"a\nb", 256], "choice": [0, 0, 0]}[name]
    other = {"program": "a\n", "token": ord("\n"), "choice": 1}[name]
    twin, env = make(), make()
    for each in (twin, env):
        each.reset(seed=0)
        for action in actions[:-1]:
            each.step(action)
    expected = twin.step(actions[-1])
    failures.append(SandboxError("worker lost"))
    with pytest.raises(SandboxError):
        env.step(actions[-1])
    if name != "choice":  # the only other choice would end the program, which is over for it
        with pytest.raises(ValueError, match="repeat that step's action"):
            env.step(other)
    assert repr(env.step(actions[-1])) == repr(expected)
    failures.append(SandboxError("worker lost"))
    env.reset()
    for action in actions[:-1]:
        env.step(action)
    with pytest.raises(SandboxError):
        env.step(actions[-1])
    env.reset()  # a reset forgets the failed step
    assert env.episode.lines == ()
    env.step(other)


@pytest.mark.parametrize("name", WRAPPERS)
def test_spec_survives_json_with_every_wrapper(name, monkeypatch):
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: [DOUBLE])
    env = WRAPPERS[name](RewardWrapper(gym.make("CodeGen-v0", tasks="stepwise", max_lines=5), "pass_fail"))
    twin = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert type(twin) is type(env)
    assert type(twin.env) is RewardWrapper
    assert twin.spec == env.spec
    assert twin.action_space == env.action_space
    assert twin.observation_space == env.observation_space


@pytest.mark.parametrize("name", WRAPPERS)
def test_info_is_fresh_every_step(line_env, name):
    env = WRAPPERS[name](line_env)
    _, info = env.reset(seed=0)
    info["task_id"] = "spoiled"
    info = env.step({"program": "a", "token": ord("a"), "choice": 0}[name])[-1]
    assert info["task_id"] == "check/double"


@pytest.mark.parametrize("name", WRAPPERS)
def test_rendering_passes_through(judge, name):
    env = WRAPPERS[name](gym.make("CodeGen-v0", tasks=[DOUBLE], judge=judge, render_mode="ansi"))
    env.reset(seed=0)
    assert env.render() == "# check/double\ndef double(x):\n"
