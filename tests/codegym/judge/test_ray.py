"""The Ray judge on a real cluster of several one-CPU nodes on this machine; `pytest -m ray`."""

import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from codegym import (
    AssertionTest,
    CallTest,
    SandboxError,
    StdioTest,
    Task,
    TaskError,
    Verdict,
    load_tasks,
    make_judge,
)
from codegym.testing import check_judge

pytestmark = [pytest.mark.ray, pytest.mark.timeout(180)]

STORE = 80 * 2**20
TASK = Task(
    task_id="double",
    prompt="",
    entry_point="f",
    tests=tuple(CallTest(args=(n,), expected=2 * n) for n in range(3)),
)
RIGHT = "def f(n):\n    return n + n\n"
WRONG = "def f(n):\n    return n\n"
SLOW = "import time\ntime.sleep(0.02)\ndef f(n):\n    return n + n\n"


@pytest.fixture(scope="module")
def cluster():
    """Two one-CPU nodes."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 1, "object_store_memory": STORE, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    cluster.add_node(num_cpus=1, object_store_memory=STORE)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def judge(cluster):
    with make_judge("ray", address=cluster.address) as judge:
        yield judge


@pytest.fixture
def connected(cluster):
    """The user's own connection."""
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    yield ray
    ray.shutdown()


def mixed(count, program=SLOW):
    return [(TASK, (program if n % 2 else WRONG) + f"# {n}\n") for n in range(count)]


def expected(count):
    return [Verdict.PASSED if n % 2 else Verdict.WRONG_ANSWER for n in range(count)]


def verdicts(judgements):
    return [judgement.verdict for judgement in judgements]


def ask(member, question):
    """What a function of the actor's node pool returns, run in the actor."""
    import ray

    return ray.get(member.actor.__ray_call__.remote(question), timeout=30)


def actor_pid(member):
    return ask(member, lambda pool: os.getpid())


def jobs_seen(member):
    """How many jobs the member's workers were handed."""
    return ask(member, lambda pool: int(repr(pool._judge._numbers).strip("count()")))


def wait_working(members, seconds=60.0):
    """Wait until programs run on each of them."""
    stop = time.monotonic() + seconds
    while not all(jobs_seen(member) > 2 for member in members) and time.monotonic() < stop:
        time.sleep(0.05)


def wait_members(judge, count, seconds=30.0):
    stop = time.monotonic() + seconds
    while len(members := judge._fleet.ready()) < count and time.monotonic() < stop:
        time.sleep(0.05)
    assert len(members) == count
    return members


def descendants(pid):
    """The process and everything below it; graders, zygotes and programs too."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in (task / "children").read_text().split():
            found += descendants(int(child))
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pids, seconds=10.0):
    stop = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < stop:
        time.sleep(0.05)
    return [pid for pid in pids if alive(pid)]


class Judging(threading.Thread):
    """A batch on its way; raises its SandboxError in `result`."""

    def __init__(self, judge, jobs):
        super().__init__()
        self.work = lambda: judge.judge(jobs)
        self.judgements = self.error = None
        self.start()

    def run(self):
        try:
            self.judgements = self.work()
        except SandboxError as error:
            self.error = error

    def result(self):
        self.join(120)
        assert not self.is_alive()
        if self.error is not None:
            raise self.error
        return self.judgements


def test_the_ray_judge_conforms(judge):
    check_judge(judge)


def mixture():
    """Some hundred programs over every kind of test: references, some without a line, and broken ones."""
    jobs = []
    for task in load_tasks("stepwise", limit=60):
        lines = task.reference.splitlines(keepends=True)
        cut = ["".join(lines[:n] + lines[n + 1 :]) for n in range(min(4, len(lines)))]
        jobs += [(task, task.assemble(text)) for text in (task.reference, *cut)]
    echo = Task(
        task_id="echo", prompt="", entry_point=None, tests=(StdioTest(stdin="3\n4\n", stdout="3 4\n"),)
    )
    assertion = replace(
        TASK, tests=(AssertionTest(code="assert f(2) == 4"), AssertionTest(code="assert f(0)"))
    )
    jobs += [(echo, f"print(input(), input()){'[' * n}") for n in range(2)]
    jobs += [(assertion, RIGHT), (assertion, WRONG), (TASK, ""), (TASK, "f = 3"), (TASK, "raise KeyError(1)")]
    return jobs


def test_judgements_are_those_of_the_local_judge(judge):
    jobs = mixture()
    assert len(jobs) > 200
    with make_judge("local") as local:
        for job, here, there in zip(jobs, local.judge(jobs), judge.judge(jobs), strict=True):
            assert (here.verdict, here.results, here.error_line, here.message, here.tier) == (
                there.verdict,
                there.results,
                there.error_line,
                there.message,
                there.tier,
            ), job


def test_every_node_works_on_a_batch_and_none_imports_torch(judge):
    members = wait_members(judge, 2)
    assert verdicts(judge.judge(mixed(60))) == expected(60)
    assert all(jobs_seen(member) >= 30 for member in members)
    assert not any(ask(member, lambda pool: "torch" in sys.modules) for member in members)
    assert {member.workers for member in members} == {1}


def test_order_duplicates_and_cache(judge):
    jobs = mixed(40)
    assert verdicts(judge.judge(jobs + jobs[::-1])) == expected(40) + expected(40)[::-1]
    assert verdicts(judge.judge(jobs[:10])) == expected(10)
    statistics = judge.statistics
    assert (statistics.judged, statistics.duplicates, statistics.cache_hits) == (40, 40, 10)
    assert statistics.verdicts == {"passed": 45, "wrong_answer": 45}
    assert judge.judge([]) == []


def test_threads_share_a_judge(judge):
    batches = [Judging(judge, mixed(20 + number)) for number in range(4)]
    assert [verdicts(batch.result()) for batch in batches] == [expected(20 + number) for number in range(4)]


@pytest.mark.parametrize("victims", [1, 2])
def test_killed_actors_cost_no_verdict(judge, victims):
    members = wait_members(judge, 2)
    batch = Judging(judge, mixed(300))
    wait_working(members)
    actors = [actor_pid(member) for member in members[:victims]]
    pids = [pid for actor in actors for pid in descendants(actor)]
    assert len(pids) >= 3 * victims  # with a grader and a zygote each
    for actor in actors:
        os.kill(actor, signal.SIGKILL)
    assert batch.is_alive()
    assert verdicts(batch.result()) == expected(300)
    assert judge.statistics.restarts == victims
    assert judge.statistics.judged == 300
    assert wait_gone(pids) == []
    fresh = wait_members(judge, 2)
    assert len({member.node for member in fresh} & {member.node for member in members}) == 2


@pytest.fixture
def add_node(cluster):
    added = []

    def add():
        added.append(cluster.add_node(num_cpus=1, object_store_memory=STORE))
        return added[-1]

    yield add
    for node in added:
        if node in cluster.list_all_nodes():
            cluster.remove_node(node)


def test_a_lost_node_costs_no_verdict(judge, cluster, add_node):
    node = add_node()
    members = wait_members(judge, 3)
    batch = Judging(judge, mixed(500, SLOW.replace("0.02", "0.05")))
    wait_working(members)
    cluster.remove_node(node)
    assert batch.is_alive()
    assert verdicts(batch.result()) == expected(500)
    assert (judge.statistics.judged, judge.statistics.restarts) == (500, 1)
    assert verdicts(judge.judge(mixed(30, RIGHT))) == expected(30)


def test_a_node_that_joins_later_gets_work(judge, add_node):
    members = wait_members(judge, 2)
    batch = Judging(judge, mixed(600, SLOW.replace("0.02", "0.1")))
    add_node()
    assert verdicts(batch.result()) == expected(600)
    (new,) = [member for member in wait_members(judge, 3) if member not in members]
    assert jobs_seen(new) > 0
    assert judge.statistics.restarts == 0


def test_a_batch_whose_actors_always_die_is_an_error_and_not_a_verdict(judge):
    stop = threading.Event()

    def kill_actors():
        import ray

        while not stop.is_set():
            for member in judge._fleet.ready():
                ray.kill(member.actor)
            time.sleep(0.05)

    killer = threading.Thread(target=kill_actors)
    killer.start()
    try:
        with pytest.raises(SandboxError, match="failed on Ray 2 times"):
            judge.judge(mixed(200))
    finally:
        stop.set()
        killer.join()
    assert verdicts(judge.judge(mixed(20))) == expected(20)
    assert judge.statistics.judged == 20


def break_down(pool):
    def fail(jobs):
        raise SandboxError("out of order")

    pool._judge.judge_packed = fail


def test_what_fails_on_one_node_is_judged_on_another_and_then_an_error(judge):
    one, other = wait_members(judge, 2)
    ask(one, break_down)
    assert verdicts(judge.judge(mixed(300))) == expected(300)
    assert jobs_seen(other) >= 300
    ask(other, break_down)
    with pytest.raises(SandboxError, match="failed on Ray 2 times: out of order"):
        judge.judge([(TASK, RIGHT)])
    assert judge.statistics.restarts == 0


def test_a_task_without_tests_is_refused_before_anything_starts(cluster):
    with make_judge("ray", address=cluster.address) as judge:
        with pytest.raises(TaskError, match="no tests"):
            judge.judge([(TASK, RIGHT), (replace(TASK, tests=()), RIGHT)])
        assert judge._fleet.starting() == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers must be positive, got 0"),
        ({"time_limit_s": -1}, "time_limit_s must be positive, got -1"),
        ({"min_tier": 4}, "min_tier must be 0, 1, 2 or 3, got 4"),
    ],
)
def test_bad_options_are_refused_before_connecting(options, message):
    import ray

    with pytest.raises(ValueError, match=message):
        make_judge("ray", **options)
    assert not ray.is_initialized()


def test_options_reach_every_node(cluster):
    with make_judge(
        "ray", address=cluster.address, workers=2, time_limit_s=0.3, min_tier=1, max_tier=1, cache=False
    ) as judge:
        endless, right = judge.judge([(TASK, "while True: pass"), (TASK, RIGHT)])
        assert (endless.verdict, right.verdict) == (Verdict.TIME_LIMIT, Verdict.PASSED)
        assert endless.cpu_s < 1.0
        assert (endless.tier, right.tier) == (1, 1)
        assert {member.workers for member in wait_members(judge, 2)} == {2}
        judge.judge([(TASK, RIGHT)])
        assert judge.statistics.judged == 3


def test_too_little_isolation_is_refused_at_once_and_says_why(cluster):
    import ray

    with pytest.raises(SandboxError, match=r"no Ray node can judge: node .*tier 2 wanted, 1 found"):
        make_judge("ray", address=cluster.address, min_tier=2, max_tier=1)
    assert not ray.is_initialized()


@pytest.mark.parametrize("address", ["127.0.0.1:9", "nowhere.invalid:6379", "127.0.0.1:port"])
def test_an_address_where_nobody_listens_is_an_error_at_once(address):
    began = time.monotonic()
    with pytest.raises(SandboxError, match=f"no Ray cluster at address '{address}'"):
        make_judge("ray", address=address)
    assert time.monotonic() - began < 30


def test_the_users_connection_is_used_and_left_open(connected, cluster):
    for address in (None, "auto", cluster.address):
        with make_judge("ray", address=address) as judge:
            assert judge.judge([(TASK, RIGHT)])[0].passed
        assert connected.is_initialized()
    with pytest.raises(ValueError, match=r"address is '10\.0\.0\.1:1', but this process is connected"):
        make_judge("ray", address="10.0.0.1:1")


def test_judges_share_a_connection_that_ends_with_the_last(cluster):
    import ray

    first = make_judge("ray", address=cluster.address)
    second = make_judge("ray", address=cluster.address)
    first.close()
    first.close()
    assert second.judge([(TASK, RIGHT)])[0].passed
    second.close()
    assert not ray.is_initialized()
    with pytest.raises(SandboxError, match="closed"):
        second.judge([(TASK, WRONG)])
    assert not ray.is_initialized()


def test_closing_ends_every_process_and_running_batches(connected):
    judge = make_judge("ray")
    members = wait_members(judge, 2)
    batch = Judging(judge, mixed(400))
    wait_working(members)
    pids = [pid for member in members for pid in descendants(actor_pid(member))]
    assert len(pids) >= 6
    judge.close()
    with pytest.raises(SandboxError, match="closed"):
        batch.result()
    assert wait_gone(pids) == []


def test_a_forgotten_judge_leaves_no_process(connected):
    judge = make_judge("ray")
    judge.judge([(TASK, RIGHT)])
    pids = [actor_pid(member) for member in judge._fleet.ready()]
    del judge
    assert wait_gone(pids) == []


def test_nothing_works_behind_the_back_of_a_user_who_shut_ray_down(cluster):
    import ray

    ray.init(address=cluster.address, log_to_driver=False)
    judge = make_judge("ray")
    ray.shutdown()
    with pytest.raises(SandboxError, match="closed"):
        judge.judge([(TASK, RIGHT)])
    judge.close()
    assert not ray.is_initialized()


OWN = """
import sys, ray
from codegym import CallTest, Task, make_judge
task = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(), expected=1),))
with make_judge("ray", address="local") as judge:
    assert [j.passed for j in judge.judge([(task, "def f(): return 1"), (task, "def f(): return 2")])] == [True, False]
    print(*ray._private.worker._global_node.all_processes["raylet"][0].process.args[-1:], flush=True)
    print(ray._private.worker._global_node.all_processes["raylet"][0].process.pid, flush=True)
assert not ray.is_initialized() and "torch" not in sys.modules
"""  # noqa: E501


def test_a_cluster_of_its_own_is_quiet_and_ends_with_the_judge():
    ended = subprocess.run([sys.executable, "-c", OWN], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    assert wait_gone([int(ended.stdout.split()[-1])]) == []


def test_the_command_line_judges_on_ray(cluster, tmp_path):
    task = load_tasks("stepwise", limit=1)[0]
    right, wrong = tmp_path / "right.py", tmp_path / "wrong.py"
    right.write_text(task.assemble(task.reference))
    wrong.write_text(task.assemble("    return None\n"))
    command = [sys.executable, "-c", "from agents.cli import entry; entry()", "judge", "--judge", "ray"]
    command += ["--task", task.task_id]
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    for files, status in (([right], 0), ([right, wrong], 1)):
        ended = subprocess.run(
            [*command, *map(str, files)], env=environment, capture_output=True, text=True, timeout=120
        )
        assert (ended.returncode, ended.stderr) == (status, "")
        assert ": passed" in ended.stdout


def test_calls_are_neither_small_nor_late():
    from codegym.judge.ray import call_size

    assert call_size(40, 0.5) == 20  # every node gets its share of a small batch
    assert call_size(1, 0.1) == 1
    assert call_size(200, 0.5) == 64
    assert call_size(1000, 0.5) == 125  # four calls per node
    assert call_size(100_000, 0.5) == 512
    assert call_size(512, 64 / 72) == 113  # a big node beside a small one
    assert call_size(512, 8 / 72) == 57
