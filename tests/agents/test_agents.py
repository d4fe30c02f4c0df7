"""Every agent of the table keeps the same contract."""

import hashlib
import json
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy

from agents.agent import Agent
from agents.policy_agent import PolicyAgent
from agents.table import AGENTS, load_agent, make_agent
from codegym.episode import END_OF_PROGRAM, Episode
from codegym.errors import UnknownNameError
from codegym.rewards.process import ProcessReward
from codegym.rewards.wrapper import RewardWrapper
from codegym.table import resolve
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement

KINDS = {name: resolve(AGENTS, name, "agent") for name in AGENTS}
TRAINERS = [name for name, kind in KINDS.items() if issubclass(kind, PolicyAgent)]
SETTINGS = {
    "n_iterations": 4,
    "rollouts_per_iteration": 16,
    "samples_per_task": 4,
    "max_new_tokens": 5,
    "warmup_iterations": 1,
    "learning_rate": 3e-3,
    "micro_batch_tokens": 64,
}


def odd(episode):
    """Scores that even an untrained policy earns in different amounts."""
    return [1.0 if len(line) % 2 else -1.0 for line in episode.lines]


@pytest.fixture
def dense(toy):
    return lambda: RewardWrapper(toy.env(), ProcessReward.from_scorer(ScriptedScorer(odd)))


@pytest.fixture
def make(toy):
    def build(name, env=None, **options):
        if name in TRAINERS:
            options = {**SETTINGS, **options}
        if name != "random":
            options = {"tokenizer": toy.tokenizer(), "device": "cpu", **options}
        policy = options.pop("policy", None) or toy.model()
        return make_agent(name, policy, env or toy.env(), **options)

    return build


def digest(agent):
    sha = hashlib.sha256()
    for _, learner in sorted(agent.learners.items()):
        for name, tensor in sorted(learner.network.state_dict().items()):
            sha.update(name.encode() + tensor.numpy().tobytes())
        for _, slots in sorted(learner.optimizer.state_dict()["state"].items()):
            for name, tensor in sorted(slots.items()):
                sha.update(name.encode() + tensor.numpy().tobytes())
    return sha.hexdigest()


class StopAfter(BaseCallback):
    def __init__(self, iteration):
        super().__init__()
        self.iteration = iteration

    def _on_step(self):
        return self.model.iteration < self.iteration


def play(agent, env):
    text, _ = env.reset(seed=1)
    lines = []
    while True:
        action, state = agent.predict(text, deterministic=True)
        assert state is None
        lines.append(action)
        text, _, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            return lines, info


# --- all agents ---


def test_there_are_the_method_three_rivals_and_the_floor():
    assert list(AGENTS) == ["psgpo", "grpo", "rloo", "best_of_n", "random"]
    assert TRAINERS == ["psgpo", "grpo", "rloo"]
    assert all(issubclass(kind, Agent) for kind in KINDS.values())


def test_an_unknown_agent_is_named_with_the_choices(toy):
    with pytest.raises(UnknownNameError, match=r"unknown agent 'grop' \(did you mean 'grpo'\?\)"):
        make_agent("grop", toy.model(), toy.env())


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_plays_an_episode_to_its_verdict(make, toy, name):
    _, info = play(make(name), toy.env())
    assert "verdict" in info


@pytest.mark.parametrize("name", AGENTS)
def test_the_same_agent_plays_the_same_episode(make, toy, name):
    assert play(make(name), toy.env())[0] == play(make(name), toy.env())[0]


@pytest.mark.parametrize("name", AGENTS)
def test_a_batch_of_observations_gets_a_batch_of_lines(make, name):
    actions, state = make(name).predict(np.array(["a\n", "b\n", "c\n"], dtype=object), state="kept")
    assert state == "kept"
    assert actions.shape == (3,)
    assert all(isinstance(line, str) and "\n" not in line for line in actions)


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_learns_is_saved_and_loaded_and_plays_on_as_before(make, toy, tmp_path, name):
    agent = make(name)
    assert agent.learn(total_timesteps=1) is agent
    agent.save(tmp_path / "agent")
    loaded = load_agent(tmp_path / "agent", toy.env())
    assert type(loaded) is type(agent)
    assert loaded.num_timesteps == agent.num_timesteps
    assert play(loaded, toy.env())[0] == play(agent, toy.env())[0]
    assert not [path for path in tmp_path.rglob("*") if path.suffix in (".pt", ".pth", ".pkl", ".bin")]


@pytest.mark.parametrize("name", AGENTS)
def test_the_zip_that_stable_baselines_names_is_a_folder(make, toy, tmp_path, name):
    make(name).save(tmp_path / "agent_1_steps.zip")
    assert [path.name for path in tmp_path.iterdir()] == ["agent_1_steps"]
    assert type(KINDS[name].load(tmp_path / "agent_1_steps.zip", toy.env())) is KINDS[name]


@pytest.mark.parametrize("name", AGENTS)
def test_stock_evaluate_policy_takes_any_agent(make, toy, name):
    rewards, lengths = evaluate_policy(
        make(name), toy.env(), n_eval_episodes=4, warn=False, return_episode_rewards=True
    )
    assert len(rewards) == len(lengths) == 4
    assert all(reward in (0, 1) for reward in rewards)


def test_a_folder_of_another_agent_is_refused(make, toy, tmp_path):
    make("random").save(tmp_path / "agent")
    with pytest.raises(ValueError, match="holds an agent of kind RandomAgent, not GRPO"):
        KINDS["grpo"].load(tmp_path / "agent", toy.env())
    state = tmp_path / "agent" / "state.json"
    state.write_text(state.read_text().replace("RandomAgent", "Stranger"))
    with pytest.raises(ValueError, match="holds an agent 'Stranger', which is none of psgpo, grpo"):
        load_agent(tmp_path / "agent", toy.env())


# --- those that train ---


@pytest.mark.parametrize("name", TRAINERS)
def test_stopping_saving_and_going_on_is_never_having_stopped(make, dense, tmp_path, name):
    straight = make(name, env=dense()).learn()
    stopped = make(name, env=dense()).learn(callback=StopAfter(2))
    assert stopped.iteration == 2
    stopped.save(tmp_path / "agent")
    resumed = load_agent(tmp_path / "agent", dense(), device="cpu").learn()
    assert resumed.iteration == straight.iteration == 4
    assert digest(resumed) == digest(straight) != digest(stopped)


@pytest.mark.parametrize("name", TRAINERS)
def test_the_same_seed_gives_the_same_bits_and_another_one_others(make, dense, name):
    runs = [digest(make(name, env=dense(), seed=seed, n_iterations=2).learn()) for seed in (0, 0, 1)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("name", TRAINERS)
def test_an_adapted_kl_coefficient_survives_a_resume(make, dense, tmp_path, name):
    options = {"adaptive_kl_target": 5.0, "kl_coef": 0.1, "n_iterations": 3}
    straight = make(name, env=dense(), **options).learn()
    stopped = make(name, env=dense(), **options).learn(callback=StopAfter(1))
    # far below the target: the full step down, once per iteration
    assert stopped.kl_coef == pytest.approx(0.1 * 0.98)
    assert straight.kl_coef == pytest.approx(0.1 * 0.98**3)
    stopped.save(tmp_path / "agent")
    resumed = load_agent(tmp_path / "agent", dense(), device="cpu").learn()
    assert resumed.kl_coef == straight.kl_coef
    assert digest(resumed) == digest(straight)


@pytest.mark.parametrize("name", TRAINERS)
def test_before_the_first_update_the_kl_is_zero_and_the_ratio_one(make, name):
    options = {"critic_only_iterations": 0} if name == "psgpo" else {}
    metrics = make(name, n_minibatches=1, **options).iterate(0.0)
    assert metrics["train/kl_to_reference"] == pytest.approx(0, abs=1e-6)
    assert metrics["train/approx_kl"] == pytest.approx(0, abs=1e-9)
    assert metrics["train/clip_fraction"] == 0


@pytest.mark.parametrize("name", TRAINERS)
def test_settings_are_keywords_over_the_configuration(make, name):
    config = replace(KINDS[name].config_type(), learning_rate=0.5, samples_per_task=4)
    agent = make(name, config=config, clip_range=0.3)
    assert (agent.config.learning_rate, agent.config.clip_range) == (3e-3, 0.3)
    with pytest.raises(TypeError, match="learnin_rate"):
        make(name, learnin_rate=1.0)


@pytest.mark.parametrize("name", TRAINERS)
def test_the_reward_scheme_of_the_environment_decides_what_is_paid(make, dense, name):
    one, other = make(name), make(name, env=dense())
    paid = [agent.iterate(0.0)["rollout/ep_rew_mean"] for agent in (one, other)]
    assert paid[0] == 0 != paid[1]
    assert one.num_timesteps == other.num_timesteps
    for agent in (one, other):
        agent.iterate(0.0)
    assert digest(one) != digest(other)


def test_a_checkpoint_from_before_there_were_other_agents_still_loads(make, toy, tmp_path):
    agent = make("psgpo", n_iterations=2).learn()
    agent.save(tmp_path / "agent")
    path = tmp_path / "agent" / "state.json"
    state = json.loads(path.read_text())
    new = {"loss_mean", "truncated_programs", "kl_estimator", "adaptive_kl_target", "adaptive_kl_rate"}
    state["config"] = {
        key: value for key, value in state["config"].items() if key not in {*new, "normalize_advantage"}
    }
    old = {key: value for key, value in state.items() if key not in ("agent", "kl_coef", "frozen")}
    path.write_text(json.dumps(old))
    loaded = load_agent(tmp_path / "agent", toy.env(), device="cpu")
    assert loaded.kl_coef == agent.kl_coef == agent.config.kl_coef
    agent.iterate(0.5)
    loaded.iterate(0.5)
    assert digest(loaded) == digest(agent)


# --- those that do not ---


def test_best_of_n_by_tests_passes_if_any_of_its_programs_does(make, toy):
    def names_itself(task, source):
        return judgement(task, int(task.task_id in source.removeprefix(task.prompt)))

    env = gym.make("CodeGen-v0", tasks=toy.tasks(), judge=ScriptedJudge(names_itself), max_lines=5)
    once, often = make("best_of_n", env=env, n=1, max_new_tokens=5), make("best_of_n", env=env, n=64)
    assert not all(play(make("best_of_n", env=env, n=1, seed=s), env)[1]["is_success"] for s in range(3))
    assert play(often, env)[1]["is_success"]
    assert once.best([Episode(task=toy.tasks()[0], lines=("b",)), Episode(task=toy.tasks()[0], lines=("a",))])


def test_best_of_n_asks_the_scorer_and_keeps_its_favourite(make, toy):
    likes = ScriptedScorer(lambda episode: [1.0 if line[:1] == "h" else -1.0 for line in episode.lines])
    agent = make("best_of_n", n=64, scorer=likes, max_new_tokens=5)
    actions, _ = agent.predict(["a\n", "b\n"], deterministic=True)
    assert [line[0] for line in actions] == ["h", "h"]
    assert not agent.env.unwrapped.judge.batches


def test_best_of_n_scores_the_whole_program_also_when_asked_in_the_middle(make):
    seen = []

    def score(episode):
        seen.append(episode)
        return [1.0] * len(episode.lines)

    make("best_of_n", n=2, scorer=ScriptedScorer(score), max_new_tokens=5).predict("b\nx\n\n")
    assert {episode.task.task_id for episode in seen} == {"b"}
    assert {episode.lines[:2] for episode in seen} == {("x", "")}


def test_best_of_n_writes_anew_unless_deterministic(make):
    agent = make("best_of_n", n=1, max_new_tokens=5)
    assert len({agent.predict("a\n", deterministic=True)[0] for _ in range(6)}) == 1
    assert len({agent.predict("a\n")[0] for _ in range(12)}) > 1


def test_best_of_n_needs_a_prompt_of_the_environment(make):
    with pytest.raises(ValueError, match="no task of the environment has a prompt that 'elsewhere"):
        make("best_of_n").predict("elsewhere\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
        ({"aggregate": "median"}, "unknown aggregate 'median'"),
    ],
)
def test_a_bad_setting_of_best_of_n_is_named(make, options, message):
    with pytest.raises(ValueError, match=message):
        make("best_of_n", **options)


def test_the_random_agent_ends_as_often_as_it_should(make):
    agent = make("random", end_probability=0.25, seed=3)
    ends = [agent.predict("a\n")[0] == END_OF_PROGRAM for _ in range(400)]
    assert 70 < sum(ends) < 130
    with pytest.raises(ValueError, match=r"end_probability must be in \(0, 1\], got 0"):
        make("random", end_probability=0)
