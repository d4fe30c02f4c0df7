import json
import pickle
import socket
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from multiprocessing.connection import Connection

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv

from codegym import (
    END_OF_PROGRAM,
    CallTest,
    Episode,
    LineScorer,
    RewardWrapper,
    ScorerError,
    Task,
    make_scheme,
)
from codegym.rewards.process import ProcessReward
from codegym.rewards.remote import RemoteScorer, connect, receive, send
from codegym.testing import ScriptedJudge, ScriptedScorer, judgement
from prm.serving import ScorerServer

TASK = Task(
    task_id="t",
    prompt="def f():\n",
    entry_point="f",
    tests=(CallTest(args=(), expected=1),),
    reference=" a = 1\n return a\n",
)
PROGRAMS = ([" a = 2", " # why", " return a"], [" return 1"], [], [" x = '\ud800\u2028\x00é'", "\t\r"])
CLIENT = """
import json, sys, time
from pathlib import Path
from codegym import Episode, Task
from codegym.rewards.remote import RemoteScorer
path, number = sys.argv[1], int(sys.argv[2])
scorer = RemoteScorer(path)
Path(path).with_name(f"ready{number}").touch()
while len(list(Path(path).parent.glob("ready*"))) < 4:
    time.sleep(0.01)
found = []
for turn in range(10):
    lines = (f" a = {number}", f" return {turn}")
    task = Task(task_id="t", prompt="def f():\\n", entry_point="f", tests=())
    found.append([scores.tolist() for scores in scorer.score([Episode(task=task, lines=lines)])])
print(json.dumps(found))
assert "torch" not in sys.modules
"""


def episodes(programs=PROGRAMS):
    return [Episode(task=TASK, lines=tuple(lines)) for lines in programs]


class Counting:
    """A scorer that takes its time and remembers the size of each batch."""

    def __init__(self, scorer, seconds=0.0):
        self.scorer, self.seconds, self.batches = scorer, seconds, []

    def score(self, episodes):
        self.batches.append(len(episodes))
        time.sleep(self.seconds)
        return self.scorer.score(episodes)


LENGTHS = ScriptedScorer(lambda episode: [len(line) / 100 for line in episode.lines])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "prm.socket"


def test_scores_are_those_of_the_model(random_model, path):
    model = random_model()
    with ScorerServer(model, path), RemoteScorer(path) as remote:
        assert isinstance(remote, LineScorer)
        for local, served in zip(model.score(episodes()), remote.score(episodes()), strict=True):
            assert served.dtype == np.float64
            assert served == pytest.approx(local, abs=1e-6)
        assert remote.score([]) == []


def test_numbers_travel_unchanged(path):
    rng = np.random.default_rng(0)
    numbers = [*rng.uniform(-1, 1, size=50).tolist(), -0.0, 5e-324, 1.0]
    scripted = ScriptedScorer(lambda episode: numbers[: len(episode.lines)])
    with ScorerServer(scripted, path), RemoteScorer(path) as remote:
        (served,) = remote.score([Episode(task=TASK, lines=("x",) * len(numbers))])
    assert served.tolist() == numbers


def test_the_scorer_sees_the_very_text(path):
    seen = []

    def score(episode):
        seen.append((episode.task.prompt, episode.lines))
        return [0.0] * len(episode.lines)

    with ScorerServer(ScriptedScorer(score), path), RemoteScorer(path) as remote:
        remote.score(episodes())
    assert seen == [(TASK.prompt, tuple(lines)) for lines in PROGRAMS]


def test_four_processes_share_batches_and_get_their_own_scores(random_model, path):
    model = random_model()
    counting = Counting(model, seconds=0.02)
    with ScorerServer(counting, path, window_s=0.02) as server:
        clients = [
            subprocess.Popen(
                [sys.executable, "-c", CLIENT, str(path), str(number)], stdout=subprocess.PIPE, text=True
            )
            for number in range(4)
        ]
        outputs = [client.communicate(timeout=120)[0] for client in clients]
    assert [client.returncode for client in clients] == [0] * 4
    assert server.statistics.requests == server.statistics.programs == sum(counting.batches) == 40
    assert server.statistics.batches == len(counting.batches) < 40
    assert max(counting.batches) >= 2
    for number, output in enumerate(outputs):
        programs = [(f" a = {number}", f" return {turn}") for turn in range(10)]
        local = model.score(episodes(programs))
        served = [scores[0] for scores in json.loads(output)]
        assert np.array(served) == pytest.approx(np.array(local), abs=1e-6)


def test_what_arrives_together_is_one_batch(path):
    counting = Counting(LENGTHS, seconds=0.05)

    def ask(number):
        with RemoteScorer(path) as remote:
            remote.score(episodes([["x"]]))  # connected
            all_connected.wait()
            return remote.score(episodes([["x" * number]]))[0].tolist()

    with ScorerServer(counting, path, window_s=0.0) as server, ThreadPoolExecutor(6) as pool:
        all_connected = threading.Barrier(6, action=lambda: setattr(server, "window_s", 30.0))
        began = time.monotonic()
        found = list(pool.map(ask, range(6)))
        # once every client waits, the window is closed
        assert time.monotonic() - began < 20.0
    assert found == [[number / 100] for number in range(6)]
    assert counting.batches[-1] == 6


def test_a_lone_client_waits_for_nobody(path):
    with ScorerServer(LENGTHS, path, window_s=30.0), RemoteScorer(path) as remote:
        began = time.monotonic()
        remote.score(episodes())
        assert time.monotonic() - began < 10.0


def test_a_full_batch_waits_for_no_more(path):
    counting = Counting(LENGTHS)
    with (
        ScorerServer(counting, path, window_s=30.0, max_programs=2),
        RemoteScorer(path) as idle,
        RemoteScorer(path) as remote,
    ):
        idle.score(episodes([["x"], ["x"]]))
        began = time.monotonic()
        remote.score(episodes([["x"], ["x"], ["x"]]))
        assert time.monotonic() - began < 10.0
    assert counting.batches == [2, 3]


def test_who_sends_what_cannot_be_scored_is_told_and_the_others_are_scored(path):
    def score(episode):
        if episode.lines == ("bad",):
            raise ValueError("a program of 9 tokens does not fit")
        return [0.5] * len(episode.lines)

    def ask(line):
        with RemoteScorer(path) as remote:
            remote.score(episodes([["x"]]))
            all_connected.wait()
            try:
                return remote.score(episodes([[line]]))[0].tolist()
            except ScorerError as error:
                # and may go on asking
                assert remote.score(episodes([["x"]]))[0].tolist() == [0.5]
                return str(error)

    with ScorerServer(ScriptedScorer(score), path, window_s=0.0) as server, ThreadPoolExecutor(3) as pool:
        all_connected = threading.Barrier(3, action=lambda: setattr(server, "window_s", 0.2))
        first, told, last = pool.map(ask, ["good", "bad", "fine"])
    assert first == last == [0.5]
    assert "failed: ValueError: a program of 9 tokens does not fit" in told


def test_a_scorer_that_breaks_its_contract_is_no_score(path):
    broken = ScriptedScorer(lambda episode: [float("nan")])
    with (
        ScorerServer(broken, path),
        RemoteScorer(path) as remote,
        pytest.raises(ScorerError, match="must return 1 finite scores"),
    ):
        remote.score(episodes([["x"]]))


# --- what goes wrong ----------------------------------------------------------------------------------------


def serve_lengths(path):
    with ScorerServer(LENGTHS, path):
        time.sleep(60)


def test_a_server_that_is_killed_is_an_error_and_no_reward(path):
    server = get_context("fork").Process(target=serve_lengths, args=(path,), daemon=True)
    server.start()
    env = make_env(path)
    env.reset()
    assert env.step(" a = 1")[1] == pytest.approx((0.06 + 1) / 4)
    server.kill()
    server.join()
    with pytest.raises(ScorerError, match=r"no scores from the scorer at .*prm\.socket"):
        env.step(" return a")
    with pytest.raises(ScorerError, match="ConnectionRefusedError"):
        RemoteScorer(path, connect_timeout_s=0.1).score(episodes())
    # the socket of the dead server is in nobody's way
    with ScorerServer(LENGTHS, path), RemoteScorer(path) as remote:
        assert remote.score(episodes([["x"]]))[0].tolist() == [0.01]


def test_where_nobody_serves_there_is_an_error_that_says_how(path):
    with pytest.raises(ScorerError, match=r"is it running\? \(codegym serve-prm\)"):
        RemoteScorer(path, connect_timeout_s=0.0).score(episodes())


def test_a_client_waits_for_a_server_that_is_starting(path):
    server = ScorerServer(LENGTHS, path)
    starting = threading.Timer(0.3, server.start)
    starting.start()
    with RemoteScorer(path, connect_timeout_s=20.0) as remote:
        assert remote.score(episodes([["x"]]))[0].tolist() == [0.01]
    starting.join()
    server.close()


def test_closing_ends_conversations_and_a_new_server_is_found_again(path):
    remote = RemoteScorer(path, connect_timeout_s=0.0)
    with ScorerServer(LENGTHS, path) as server:
        remote.score(episodes())
    assert not path.exists()
    server.close()
    with pytest.raises(ScorerError):
        remote.score(episodes())
    with ScorerServer(LENGTHS, path):
        assert remote.score(episodes([["x"]]))[0].tolist() == [0.01]
    remote.close()


def test_closing_waits_until_what_was_asked_is_answered(path):
    counting = Counting(LENGTHS, seconds=0.2)
    lines = ["x"] * 100_000  # an answer that takes a while to write

    def ask():
        with RemoteScorer(path) as remote:
            return remote.score(episodes([lines]))[0]

    with ThreadPoolExecutor(1) as pool, ScorerServer(counting, path):
        asked = pool.submit(ask)
        while not counting.batches:
            time.sleep(0.01)
    assert len(asked.result()) == len(lines)


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one(path):
    slow = Counting(LENGTHS, seconds=0.5)
    with ScorerServer(slow, path), RemoteScorer(path, timeout_s=0.1) as remote:
        with pytest.raises(ScorerError, match=r"no answer within 0\.1 s"):
            remote.score(episodes([["x" * 7]]))
        slow.seconds = 0.0
        remote.timeout_s = 20.0
        assert remote.score(episodes([["x"]]))[0].tolist() == [0.01]


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"programs": 3},
        {"programs": [{"prompt": "x"}]},
        {"programs": [{"prompt": 1, "lines": []}]},
        {"programs": [{"prompt": "", "lines": ["a\nb"]}]},
        {"programs": [{"prompt": "", "lines": [None]}]},
        {"programs": [7]},
    ],
)
def test_what_is_no_request_is_answered_with_an_error(path, message):
    with ScorerServer(LENGTHS, path), connect(str(path), 0.0) as connection:
        send(connection, message)
        assert "not a scoring request" in receive(connection)["error"]
        send(connection, {"programs": [{"prompt": "", "lines": ["x"]}]})
        assert receive(connection) == {"scores": [[0.01]]}


@pytest.mark.parametrize("data", [b"\x80\x04N.", b"[]", b"{", b"\xff", pickle.dumps({"programs": []})])
def test_nothing_but_json_is_read_and_only_the_sender_suffers(path, data):
    with ScorerServer(LENGTHS, path), RemoteScorer(path) as remote:
        remote.score(episodes())
        with connect(str(path), 0.0) as connection:
            connection.send_bytes(data)
            with pytest.raises((EOFError, ConnectionResetError)):
                connection.recv_bytes()
        assert remote.score(episodes([["x"]]))[0].tolist() == [0.01]


@pytest.mark.parametrize("answer", [b"[1]", b"nonsense", b"{}", b'{"scores"'])
def test_a_server_that_talks_nonsense_is_an_error(path, answer):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def talk():
        client, _ = listener.accept()
        with Connection(client.detach()) as connection:
            connection.recv_bytes()
            connection.send_bytes(answer)

    talking = threading.Thread(target=talk)
    talking.start()
    with RemoteScorer(path) as remote, pytest.raises(ScorerError):
        remote.score(episodes())
    talking.join()
    listener.close()


def test_only_the_owner_may_connect(path):
    with ScorerServer(LENGTHS, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_path_that_is_taken_or_cannot_be_a_socket_is_refused(path, tmp_path):
    with ScorerServer(LENGTHS, path), pytest.raises(ValueError, match="is served by another process"):
        ScorerServer(LENGTHS, path).start()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="exists and is no socket"):
        ScorerServer(LENGTHS, tmp_path / "file").start()
    assert (tmp_path / "file").read_text() == "mine"
    with pytest.raises(ValueError, match="at most 107 bytes"):
        ScorerServer(LENGTHS, tmp_path / ("x" * 120)).start()


@pytest.mark.parametrize("options", [{"window_s": -1}, {"max_programs": 0}, {"window_s": float("nan")}])
def test_bad_options_are_refused(path, options):
    with pytest.raises(ValueError, match="must be"):
        ScorerServer(LENGTHS, path, **options)


@pytest.mark.parametrize("options", [{"timeout_s": -1}, {"connect_timeout_s": float("nan")}])
def test_bad_options_of_the_client_are_refused(path, options):
    with pytest.raises(ValueError, match="must be >= 0"):
        RemoteScorer(path, **options)


# --- in environments ----------------------------------------------------------------------------------------


def make_env(path):
    judge = ScriptedJudge(lambda task, source: judgement(task, 0))
    return RewardWrapper(gym.make("CodeGen-v0", tasks=[TASK], judge=judge), "process", prm=f"unix:{path}")


def test_environments_in_other_processes_pay_by_the_served_model(random_model, path):
    model = random_model()
    with ScorerServer(model, path) as server:
        envs = AsyncVectorEnv([lambda: make_env(path)] * 3, shared_memory=False)
        try:
            envs.reset(seed=0)
            lines = [" a = 1", " b = 2", " return 1"]
            rewards = envs.step(lines)[1]
            *_, infos = envs.step([END_OF_PROGRAM] * 3)
        finally:
            envs.close()
    scores = [score[0] for score in model.score(episodes([[line] for line in lines]))]
    assert rewards == pytest.approx([(score + 1) / 4 for score in scores], abs=1e-6)
    assert server.statistics.requests == 6
    assert [credit[0] for credit in infos["action_rewards"]] == pytest.approx(rewards.tolist(), abs=1e-6)


def test_a_scheme_around_the_client_survives_pickling_and_equals_the_local_one(random_model, path):
    model = random_model()
    ended = [
        Episode(task=TASK, lines=tuple(lines), terminated=True, judgement=judgement(TASK, 0))
        for lines in PROGRAMS[:2]
    ]
    with ScorerServer(model, path), RemoteScorer(path) as remote:
        remote.score(ended)
        copied = pickle.loads(pickle.dumps(remote))
        assert (copied.path, copied.timeout_s) == (remote.path, remote.timeout_s)
        for scheme in (
            ProcessReward.from_scorer(remote),
            ProcessReward.from_scorer(copied),
            make_scheme("process", prm=f"unix:{path}"),
        ):
            local = ProcessReward.from_scorer(model).credit(ended)
            for mine, theirs in zip(scheme.credit(ended), local, strict=True):
                assert mine == pytest.approx(theirs, abs=1e-6)
        copied.close()
