import os
import signal
import threading

import pytest

from agents.cli import main
from codegym import Episode, ScorerError, Task
from codegym.rewards.remote import RemoteScorer
from prm.model import ProcessRewardModel

PROGRAM = Episode(task=Task(task_id="t", prompt="a\n", entry_point=None, tests=()), lines=("b", "c"))


@pytest.fixture
def model(toy):
    return ProcessRewardModel.from_backbone(toy.model(), toy.tokenizer())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_model_is_served_until_the_command_is_told_to_stop(number, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "prm")
    before = signal.getsignal(number)
    served = []

    def ask():
        with RemoteScorer(tmp_path / "socket", connect_timeout_s=60.0) as remote:
            served.extend(remote.score([PROGRAM] * 2))
        os.kill(os.getpid(), number)

    asking = threading.Thread(target=ask)
    asking.start()
    options = ["--prm", str(tmp_path / "prm"), "--socket", str(tmp_path / "socket"), "--threads", "1"]
    assert main(["serve-prm", *options]) == 0
    asking.join()
    assert signal.getsignal(number) is before
    (scores,) = model.score([PROGRAM])
    assert [mine.tolist() for mine in served] == [pytest.approx(scores.tolist(), abs=1e-6)] * 2
    output = capsys.readouterr().out
    assert f"{model.identity} at unix:{tmp_path}/socket\n" in output
    assert "1 requests, 2 programs in 1 batches of the model" in output
    with pytest.raises(ScorerError):
        RemoteScorer(tmp_path / "socket", connect_timeout_s=0.0).score([PROGRAM])


@pytest.mark.parametrize(
    ("prm", "path", "said"),
    [
        ("nowhere", "socket", "nowhere is not a folder"),
        ("prm", "prm", "exists and is no socket"),
        ("prm", "nowhere/socket", "no folder {tmp}/nowhere for the socket"),
    ],
)
def test_what_cannot_be_served_exits_2_and_says_why(prm, path, said, model, tmp_path, capsys):
    model.save_pretrained(tmp_path / "prm")
    options = ["--prm", str(tmp_path / prm), "--socket", str(tmp_path / path), "--threads", "1"]
    assert main(["serve-prm", *options]) == 2
    assert said.format(tmp=tmp_path) in capsys.readouterr().err
