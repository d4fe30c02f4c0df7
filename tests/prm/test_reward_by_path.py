"""A saved process reward model pays an environment's rewards, given nothing but its folder."""

import gymnasium as gym
import numpy as np
import pytest

from codegym import END_OF_PROGRAM, CallTest, RewardWrapper, Task, make_scheme
from codegym.testing import ScriptedJudge, judgement

TASK = Task(
    task_id="t",
    prompt="def f():\n",
    entry_point="f",
    tests=(CallTest(args=(), expected=1),),
    reference=" a = 1\n return a\n",
)
LINES = (" a = 2", " # why", " return a")


@pytest.fixture
def folder(random_model, tmp_path):
    random_model().save_pretrained(tmp_path / "prm")
    return str(tmp_path / "prm")


@pytest.mark.parametrize("form", ["progress", "mean"])
def test_by_path_equals_by_object(random_model, folder, form):
    judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    env = RewardWrapper(gym.make("CodeGen-v0", tasks=[TASK], judge=judge), "process", prm=folder, form=form)
    env.reset()
    rewards = [env.step(line)[1] for line in LINES]
    *_, info = env.step(END_OF_PROGRAM)
    episode = env.unwrapped.episode
    (scores,) = random_model().score([episode])
    assert scores[1] == 0
    assert len(set(np.round(scores, 6))) == 3
    if form == "progress":
        gains = [(scores[0] + 1) / 4, 0, (scores[2] + 1) / 4]
        expected = np.diff(np.minimum(np.cumsum(gains), 0.95), prepend=0)
        assert rewards == pytest.approx(expected.tolist(), abs=1e-6)
    else:
        expected = 0.25 * scores / 3
    assert info["action_rewards"] == pytest.approx((*expected, 0.0), abs=1e-6)
    spec = gym.envs.registration.WrapperSpec
    assert env.spec.additional_wrappers == (
        spec(
            "RewardWrapper",
            "codegym.rewards.wrapper:RewardWrapper",
            {"scheme": "process", "prm": folder, "form": form},
        ),
    )


def test_a_folder_without_a_model_is_an_error_at_the_first_line(tmp_path):
    scheme = make_scheme("process", prm=str(tmp_path / "nowhere"))
    env = RewardWrapper(
        gym.make("CodeGen-v0", tasks=[TASK], judge=ScriptedJudge(lambda t, s: judgement(t, 0))), scheme
    )
    env.reset()
    with pytest.raises((OSError, ValueError), match="nowhere"):
        env.step(LINES[0])
