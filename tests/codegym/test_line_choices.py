"""`LineChoices`: a pick among proposed lines, seen as numbers."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.error import ResetNeeded
from hypothesis import given, settings
from hypothesis import strategies as st

from codegym import END_OF_PROGRAM, LineChoices, RewardWrapper, UnknownNameError, load_tasks
from codegym.testing import DOUBLE, ScriptedJudge, judgement
from codegym.wrappers.features import crossed
from codegym.wrappers.proposers import FixedLines, Proposal, Proposer, make_proposer

LINES = {"lines": ["    y = x + x", "    return y"]}


class Scripted:
    """Proposes what a function of the number of lines says."""

    def __init__(self, propose):
        self._propose = propose

    def propose(self, episode, k, rng):
        return Proposal(candidates=tuple(self._propose(len(episode.lines), rng)), request="return y")


class Steps:
    """Pays 1, 2, 3... while a program is written, and in hindsight 10 for each action."""

    def step(self, episodes):
        return np.array([float(len(e.lines)) for e in episodes])

    def credit(self, episodes):
        return [np.full(e.n_actions, 10.0) for e in episodes]


def line_env(**options):
    judge = ScriptedJudge(lambda task, source: judgement(task, 3 if "return y" in source else 1))
    return gym.make("CodeGen-v0", **{"tasks": [DOUBLE], "judge": judge, "max_lines": 8, **options})


def make(proposer="lines", k=3, **options):
    if proposer == "lines":
        options = {"proposer_options": LINES, **options}
    return LineChoices(line_env(), proposer, k, **{"n_features": 16, **options})


def test_picking_lines_writes_a_program():
    env = make()
    _, info = env.reset(seed=0)
    assert info["candidates"] == (*LINES["lines"], END_OF_PROGRAM)
    assert info["request"] == DOUBLE.prompt
    assert env.step(0)[1:4] == (0.0, False, False)
    env.step(np.int64(1))
    _, reward, terminated, truncated, info = env.step(2)
    assert (reward, terminated, truncated) == (1.0, True, False)
    assert env.episode.lines == tuple(LINES["lines"])
    assert "candidates" not in info
    assert info["action_rewards"] == (0.0, 0.0, 1.0)


def test_a_candidate_of_several_lines_is_written_whole_and_paid_in_one():
    env = LineChoices(RewardWrapper(line_env(), Steps()), Scripted(lambda n, rng: ["a\nb\nc"]), 2)
    env.reset(seed=0)
    assert env.step(0)[1] == 6.0
    assert env.episode.lines == ("a", "b", "c")


def test_the_line_limit_cuts_within_a_candidate():
    env = LineChoices(line_env(max_lines=2), Scripted(lambda n, rng: ["a\nb\nc"]), 2)
    env.reset(seed=0)
    observation, _, terminated, truncated, info = env.step(0)
    assert (terminated, truncated) == (False, True)
    assert env.episode.lines == ("a", "b")
    assert observation[-1] == 1.0
    assert len(info["action_rewards"]) == 2


def test_the_observation_has_features_presence_and_position():
    env = make(Scripted(lambda n, rng: ["    return y", "# why"]), k=3)
    observation, _ = env.reset(seed=0)
    blocks = observation[:-1].reshape(3, 17)
    assert blocks[:, -1].tolist() == [1, 1, 0]
    assert np.array_equal(blocks[0, :-1], crossed("return y", "    return y", 16))
    assert np.array_equal(blocks[1, :-1], crossed("return y", "# why", 16))
    assert not blocks[2].any()
    assert observation[-1] == 0.0
    assert env.step(0)[0][-1] == pytest.approx(1 / 8)
    assert observation in env.observation_space
    assert observation.dtype == np.float32


def test_actions_without_a_candidate_stand_for_one_and_are_masked():
    env = make(Scripted(lambda n, rng: ["a", "b"]), k=5)
    assert env.action_masks().tolist() == [True] * 5
    env.reset(seed=0)
    assert env.action_masks().tolist() == [True, True, False, False, False]
    for action in (0, 1, 2, 3, 4):
        env.step(action)
    assert env.episode.lines == ("a", "b", "a", "b", "a")


@pytest.mark.parametrize("action", [-1, 3, 0.5, "a", None])
def test_a_bad_choice_is_named_and_harms_nothing(action):
    env = make()
    env.reset(seed=0)
    with pytest.raises(ValueError, match="0 to 2"):
        env.step(action)
    assert env.episode.lines == ()


def test_there_is_nothing_to_choose_from_without_a_program():
    env = make()
    with pytest.raises(ResetNeeded):
        _ = env.proposal
    env.reset(seed=0)
    env.step(2)
    with pytest.raises(ResetNeeded):
        _ = env.proposal


@pytest.mark.parametrize("candidates", [[], ["a", "b", "c", "d"]])
def test_a_proposer_is_held_to_its_contract(candidates):
    env = make(Scripted(lambda n, rng: candidates))
    with pytest.raises(ValueError, match="Scripted must propose 1 to 3 candidates"):
        env.reset(seed=0)


def test_chance_is_seeded_and_does_not_move_the_tasks():
    def tasks_and_picks(seed):
        env = LineChoices(
            line_env(tasks=load_tasks("stepwise", limit=50)), "stepwise", 4, proposer_options={}
        )
        infos = [env.reset(seed=seed)[1], *(env.reset()[1] for _ in range(5))]
        return [info["task_id"] for info in infos], [info["candidates"] for info in infos]

    assert tasks_and_picks(3) == tasks_and_picks(3)
    assert tasks_and_picks(3) != tasks_and_picks(4)
    plain = line_env(tasks=load_tasks("stepwise", limit=50))
    tasks = [plain.reset(seed=3)[1]["task_id"], *(plain.reset()[1]["task_id"] for _ in range(5))]
    assert tasks_and_picks(3)[0] == tasks


def test_fixed_lines_must_fit():
    with pytest.raises(ValueError, match="3 lines do not fit k=2"):
        make(k=2).reset(seed=0)
    with pytest.raises(ValueError, match="at least one line"):
        FixedLines([])


def test_proposers_come_by_name_or_as_objects():
    assert isinstance(make_proposer("lines", **LINES), Proposer)
    assert isinstance(make_proposer("stepwise"), Proposer)
    with pytest.raises(UnknownNameError, match="lines, stepwise"):
        make("words")
    with pytest.raises(TypeError, match="go with a proposer's name"):
        make(FixedLines(["a"]), proposer_options={"lines": ["b"]})
    for wrong in (None, FixedLines, object()):
        with pytest.raises(TypeError, match="proposer must be a Proposer, an object with propose, got"):
            make(wrong)


@pytest.mark.parametrize("options", [{"k": 0}, {"n_features": 0}])
def test_bad_numbers_are_named(options):
    with pytest.raises(ValueError, match="=0"):
        make(**options)


def test_spec_survives_json_with_the_proposers_options(monkeypatch):
    monkeypatch.setattr("codegym.env.load_tasks", lambda name, **options: [DOUBLE])
    env = LineChoices(gym.make("CodeGen-v0"), "lines", 3, n_features=5, proposer_options=LINES)
    twin = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert np.array_equal(twin.reset(seed=0)[0], env.reset(seed=0)[0])
    assert twin.spec == env.spec


def test_features_tell_what_goes_with_what():
    """The pair (last, [ -) is in both requests' features; numbers count only by whether they agree."""
    same = crossed("keep the last 7", "    v1 = v0[-7:]", 512)
    assert np.array_equal(same, crossed("keep the last 8", "    v1 = v0[-8:]", 512))
    assert np.array_equal(same, crossed("keep the last 7", "    v1 = v0[-7:]", 512))
    for request, candidate in (
        ("keep the last 7", "    v1 = v0[-8:]"),
        ("keep the first 7", "    v1 = v0[-7:]"),
        ("keep the last 7", "    v1 = v0[:7]"),
        ("keep the last 7", "    v1 = v0[7:-]"),
    ):
        assert not np.allclose(same, crossed(request, candidate, 512))


def test_features_name_the_variable_asked_for():
    right = crossed("v2: negate each", "    v2 = [-x for x in v1]", 512)
    wrong = crossed("v2: negate each", "    v3 = [-x for x in v1]", 512)
    assert not np.allclose(right, wrong)
    assert np.array_equal(right, crossed("v5: negate each", "    v5 = [-x for x in v4]", 512))


@settings(max_examples=60)
@given(st.text(max_size=20), st.text(max_size=20), st.integers(1, 64))
def test_features_of_any_text_are_of_length_one_or_zero_and_repeatable(request_, candidate, size):
    features = crossed(request_, candidate, size)
    assert features.shape == (size,)
    assert features.dtype == np.float32
    norm = float(np.linalg.norm(features))
    assert norm == pytest.approx(1.0, abs=1e-5) or norm == 0.0
    crossed.cache_clear()
    assert np.array_equal(features, crossed(request_, candidate, size))
    with pytest.raises(ValueError, match="read-only"):
        features[0] = 1
