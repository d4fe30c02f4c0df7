"""Very many verdicts with a hostile mix, and processes that are killed at any moment."""

import os
import random
import runpy
import signal
import threading
import time
from itertools import count
from pathlib import Path
from statistics import median

import pytest

from codegym import CallTest, Task, Verdict
from codegym.judge.pool import LocalJudge

LIMIT_S = 0.25
VERDICTS = 20_000
BATCH = 500
# Hostile programs that run into a limit, or nearly, would make the soak wait instead of work.
QUICK_S = 0.05
LIMITS = {Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT, Verdict.OUTPUT_LIMIT}
# What the resident memory of a grader or a zygote may move between the first and the last quarter.
SLACK_KIB = 1024
CORPUS = runpy.run_path(str(Path(__file__).with_name("test_attacks.py")))
TASK, RIGHT, WRONG = CORPUS["TASK"], CORPUS["RIGHT"], CORPUS["WRONG"]
HOSTILE = [program for programs in CORPUS["GROUPS"].values() for program in programs.values()]


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def wait_gone(pids, seconds=5.0):
    """Give processes some time to end; return those that did not."""
    stop = time.monotonic() + seconds
    while (left := [pid for pid in pids if alive(pid)]) and time.monotonic() < stop:
        time.sleep(0.02)
    return left


def alive(pid):
    try:
        return state(pid) != "Z"
    except FileNotFoundError:
        return False


def resident_kib(pid):
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


def graders_of(judge):
    return sorted(worker.pid for worker in [*judge._crew.idle, *judge._crew.busy])


def processes_of(judge):
    """Graders and zygotes; their children come and go."""
    return [pid for grader in graders_of(judge) for pid in (grader, *children_of(grader))]


def marks():
    """Files and shared memory that the hostile programs try to leave behind."""
    folders = (Path(folder) for folder in ("/tmp", "/var/tmp", "/dev/shm", Path.home(), Path.cwd()))
    files = {path for folder in folders for path in folder.iterdir() if "mark" in path.name}
    return files, Path("/proc/sysvipc/shm").read_text(), Path("/proc/sysvipc/msg").read_text()


def quick_programs(judge):
    """The hostile programs that end soon."""
    judgements = judge.judge([(TASK, program) for program in HOSTILE])
    assert not any(judgement.passed for judgement in judgements)
    return [
        program for program, judgement in zip(HOSTILE, judgements, strict=True) if judgement.wall_s < QUICK_S
    ]


def hostile_mix(programs):
    """Endless jobs: an attack, a right program, a wrong one, and so on; no two are equal."""
    numbers = count()
    while True:
        for program in programs:
            for source in (program, RIGHT, WRONG):
                yield TASK, f"{source}\n# {next(numbers)}"


def assert_verdicts(judgements, first):
    """Check a stretch of the hostile mix that starts with job number `first`."""
    for number, judgement in enumerate(judgements, start=first):
        seen = judgement.verdict, judgement.results
        if number % 3 == 0:
            assert judgement.verdict is not Verdict.PASSED, number
        elif number % 3 == 1:
            assert seen == (Verdict.PASSED, (True,) * 4), (number, judgement)
        else:
            assert seen == (Verdict.WRONG_ANSWER, (False, True, True, False)), (number, judgement)


def test_the_mix_is_an_attack_a_right_and_a_wrong_program_in_turn():
    mix = hostile_mix(["attack"])
    assert [source for _, source in (next(mix) for _ in range(4))] == [
        "attack\n# 0",
        f"{RIGHT}\n# 1",
        f"{WRONG}\n# 2",
        "attack\n# 3",
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_twenty_thousand_verdicts_of_a_hostile_mix_are_right_and_leave_nothing():
    before = descriptors("self"), marks(), set(children_of(os.getpid()))
    samples = []
    with LocalJudge(workers=2, time_limit_s=LIMIT_S, memory_limit_mb=96, cache=False) as judge:
        programs = quick_programs(judge)
        assert len(programs) >= 50
        mix = hostile_mix(programs)
        restarts = judge.statistics.restarts
        pids = processes_of(judge)
        for first in range(0, VERDICTS, BATCH):
            assert_verdicts(judge.judge([next(mix) for _ in range(BATCH)]), first)
            samples.append([(resident_kib(pid), descriptors(pid)) for pid in pids])
            zombies = [child for pid in pids for child in children_of(pid) if not alive(child)]
            # The zygote waits for a child when it forks the next one: never more than one each.
            assert len(zombies) <= 2
        assert judge.statistics.restarts == restarts
        assert processes_of(judge) == pids
        scratch = [Path(worker._scratch) for worker in judge._crew.idle]
    quarter = len(samples) // 4
    for process in range(len(pids)):
        memory = [sample[process][0] for sample in samples]
        assert median(memory[-quarter:]) - median(memory[:quarter]) < SLACK_KIB, memory
        assert len({sample[process][1] for sample in samples}) <= 2, "descriptors"
        assert samples[-1][process][1] <= samples[0][process][1] + 1
    assert (descriptors("self"), marks(), set(children_of(os.getpid()))) == before
    assert wait_gone(pids) == []
    assert not any(folder.exists() for folder in scratch)


KILL_TASK = Task(
    task_id="double",
    prompt="",
    entry_point="f",
    tests=tuple(CallTest(args=(n,), expected=2 * n) for n in range(5)),
)


class Killer(threading.Thread):
    """Kills a random grader or zygote at random moments, but nobody who is only just starting."""

    def __init__(self, judge, seed):
        super().__init__()
        self.judge = judge
        self.random = random.Random(seed)
        self.done = threading.Event()
        self.victims = {"grader": 0, "zygote": 0}

    def run(self):
        # A program is given up with an error after two deaths: leave time to finish what was started again.
        while not self.done.wait(self.random.uniform(0.1, 0.4)):
            restarts = self.judge.statistics.restarts
            kind = self.random.choice(sorted(self.victims))
            if self.kill_one(kind):
                self.victims[kind] += 1
                self.wait_replaced(restarts)

    def kill_one(self, kind):
        working = [worker for worker in list(self.judge._crew.busy) if worker.tier >= 0 and worker.waiting]
        if not working:
            return False
        grader = self.random.choice(working).pid
        try:
            os.kill(grader if kind == "grader" else children_of(grader)[0], signal.SIGKILL)
        except (FileNotFoundError, ProcessLookupError, IndexError):
            return False
        return True

    def wait_replaced(self, restarts):
        while not self.done.wait(0.01):
            workers = list(self.judge._crew.busy)
            if self.judge.statistics.restarts > restarts and all(w.tier >= 0 and w.waiting for w in workers):
                return


@pytest.mark.slow
def test_processes_killed_at_random_moments_cost_no_verdict():
    program = "import time\ndef f(n):\n    time.sleep(0.001)\n    return {factor} * n\n"
    jobs = [(KILL_TASK, program.format(factor=2 - n % 2) + f"# {n}") for n in range(800)]
    expected = [Verdict.WRONG_ANSWER if n % 2 else Verdict.PASSED for n in range(len(jobs))]
    with LocalJudge(workers=2, cache=False) as judge:
        judge.judge(jobs[:2])
        killer = Killer(judge, seed=0)
        killer.start()
        try:
            judgements = judge.judge(jobs)
        finally:
            killer.done.set()
            killer.join()
        restarts = judge.statistics.restarts
        pids = processes_of(judge)
    assert [judgement.verdict for judgement in judgements] == expected
    assert min(killer.victims.values()) >= 2, killer.victims
    assert restarts <= sum(killer.victims.values())
    assert wait_gone(pids) == []
