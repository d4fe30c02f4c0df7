"""The judge as a whole: batches, cache, failures of its own, and its end."""

import copy
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import gymnasium as gym
import pytest
from gymnasium.utils.env_checker import check_env

import codegym
from codegym import CallTest, Judge, SandboxError, Task, Verdict, make_judge
from codegym.judge.pool import LocalJudge

TASK = Task(
    task_id="double",
    prompt="",
    entry_point="f",
    tests=tuple(CallTest(args=(n,), expected=2 * n) for n in range(5)),
)
RIGHT = "def f(n):\n    return n + n\n"
WRONG = "def f(n):\n    return n\n"
SLEEP = "import time\ndef f(n):\n    time.sleep(0.01)\n    return n + n\n"


@pytest.fixture
def judge():
    with LocalJudge(workers=2, time_limit_s=1.0) as judge:
        yield judge


def mixed(count, program=RIGHT):
    """Programs that are right and wrong in turn, all different."""
    return [(TASK, (program if n % 2 else WRONG) + f"# {n}\n") for n in range(count)]


def verdicts(judgements):
    return [judgement.verdict for judgement in judgements]


def processes_of(judge):
    """Graders and their zygotes."""
    graders = [worker.pid for worker in [*judge._crew.idle, *judge._crew.busy]]
    return {grader: children_of(grader) for grader in graders}


def children_of(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_gone(pids, seconds=5.0):
    stop = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < stop:
        time.sleep(0.02)
    return [pid for pid in pids if alive(pid)]


def test_the_table_makes_a_judge_that_keeps_the_protocol():
    with make_judge("local", workers=1) as judge:
        assert isinstance(judge, Judge)
        assert judge.judge([(TASK, RIGHT)])[0].passed


def test_a_batch_keeps_its_order(judge):
    expected = [Verdict.PASSED if n % 2 else Verdict.WRONG_ANSWER for n in range(60)]
    assert verdicts(judge.judge(mixed(60))) == expected


def test_an_empty_batch_starts_nothing(judge):
    assert judge.judge([]) == []
    assert judge.tier == -1


def test_equal_programs_of_a_batch_run_once(judge):
    judgements = judge.judge([(TASK, RIGHT), (TASK, WRONG), (TASK, RIGHT), (TASK, RIGHT)])
    assert [judgement.passed for judgement in judgements] == [True, False, True, True]
    statistics = judge.statistics
    assert (statistics.judged, statistics.duplicates, statistics.cache_hits) == (2, 2, 0)
    assert statistics.verdicts == {"passed": 3, "wrong_answer": 1}


def test_equal_programs_of_later_batches_come_from_the_cache(judge):
    first = judge.judge([(TASK, RIGHT)])
    assert judge.judge([(TASK, RIGHT), (TASK, WRONG)])[:1] == first
    assert (judge.statistics.judged, judge.statistics.cache_hits) == (2, 1)


def test_equal_programs_with_other_tests_are_not_equal(judge):
    other = Task(task_id="double", prompt="", entry_point="f", tests=(CallTest(args=(1,), expected=1),))
    assert verdicts(judge.judge([(TASK, WRONG), (other, WRONG)])) == [Verdict.WRONG_ANSWER, Verdict.PASSED]


def test_a_time_limit_is_not_remembered():
    with LocalJudge(workers=1, time_limit_s=0.1) as judge:
        for _ in range(2):
            assert judge.judge([(TASK, "while True: pass")])[0].verdict is Verdict.TIME_LIMIT
        assert judge.statistics.judged == 2


def test_without_a_cache_every_batch_runs():
    with LocalJudge(workers=1, cache=False) as judge:
        for _ in range(2):
            judge.judge([(TASK, RIGHT)])
        assert judge.statistics.judged == 2


@pytest.mark.parametrize(
    "options",
    [
        {"workers": 0},
        {"workers": -1},
        {"time_limit_s": 0},
        {"memory_limit_mb": -5},
        {"output_limit_mb": 0},
        {"min_tier": 4},
        {"max_tier": -1},
        {"min_tier": "2"},
    ],
)
def test_bad_options_are_value_errors_that_quote_them(options):
    with pytest.raises(
        ValueError, match=f"{next(iter(options))} must be .* got {next(iter(options.values()))!r}"
    ):
        LocalJudge(**options)


def test_too_little_isolation_is_refused_at_once_and_says_why():
    with pytest.raises(SandboxError, match="tier 2 wanted, 1 found"):
        LocalJudge(workers=1, min_tier=2, max_tier=1)
    with pytest.raises(SandboxError, match="tier 3 wanted"):
        LocalJudge(workers=1, min_tier=3)


@pytest.mark.parametrize("tier", [0, 1, 2])
def test_every_tier_judges_and_reports_itself(tier):
    with LocalJudge(workers=1, max_tier=tier) as judge:
        right, wrong = judge.judge([(TASK, RIGHT), (TASK, WRONG)])
        assert (right.verdict, wrong.verdict) == (Verdict.PASSED, Verdict.WRONG_ANSWER)
        assert right.tier == wrong.tier == judge.tier <= tier


def test_many_threads_share_a_judge(judge):
    found = {}

    def work(number):
        found[number] = verdicts(judge.judge(mixed(10 + number)))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(8):
        assert found[number] == [
            Verdict.PASSED if n % 2 else Verdict.WRONG_ANSWER for n in range(10 + number)
        ]


@pytest.mark.parametrize("victim", ["grader", "zygote"])
def test_a_killed_process_costs_no_verdict(judge, victim):
    judge.judge([(TASK, RIGHT), (TASK, WRONG)])
    found = []
    thread = threading.Thread(target=lambda: found.extend(judge.judge(mixed(60, SLEEP))))
    thread.start()
    time.sleep(0.3)
    grader, children = next(iter(processes_of(judge).items()))
    os.kill(grader if victim == "grader" else children[0], signal.SIGKILL)
    thread.join()
    assert verdicts(found) == [Verdict.PASSED if n % 2 else Verdict.WRONG_ANSWER for n in range(60)]
    assert judge.statistics.restarts == 1


def test_a_process_killed_between_batches_costs_no_verdict(judge):
    judge.judge(mixed(4))
    for grader in processes_of(judge):
        os.kill(grader, signal.SIGKILL)
    assert verdicts(judge.judge([(TASK, RIGHT), (TASK, WRONG)])) == [Verdict.PASSED, Verdict.WRONG_ANSWER]


def test_a_sandbox_that_fails_twice_on_a_program_is_an_error_and_not_a_verdict():
    with LocalJudge(workers=1) as judge:
        judge.judge([(TASK, RIGHT)])
        stop = threading.Event()

        def kill_graders():
            while not stop.is_set():
                for worker in list(judge._crew.busy):
                    if worker.tier >= 0 and worker.waiting:
                        os.kill(worker.pid, signal.SIGKILL)
                time.sleep(0.01)

        killer = threading.Thread(target=kill_graders)
        killer.start()
        try:
            with pytest.raises(SandboxError):
                judge.judge([(TASK, SLEEP)])
        finally:
            stop.set()
            killer.join()
        assert judge.judge([(TASK, RIGHT + "# later")])[0].passed


def test_without_isolation_a_program_that_kills_its_judge_twice_has_tampered():
    killer = "import os, signal, time\nos.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(9)\n"
    with LocalJudge(workers=1, max_tier=0) as judge:
        attack, right = judge.judge([(TASK, killer), (TASK, RIGHT)])
        assert attack.verdict is Verdict.TAMPERED
        assert attack.results == (False,) * 5
        assert right.passed


def test_closing_ends_every_process_and_twice_is_fine():
    judge = LocalJudge(workers=2)
    judge.judge(mixed(4))
    pids = [pid for grader, children in processes_of(judge).items() for pid in (grader, *children)]
    assert len(pids) == 4
    judge.close()
    judge.close()
    assert wait_gone(pids) == []
    with pytest.raises(SandboxError, match="closed"):
        judge.judge([(TASK, RIGHT)])


def test_a_forgotten_judge_leaves_no_process():
    judge = LocalJudge(workers=1)
    judge.judge([(TASK, RIGHT)])
    pids = list(processes_of(judge))
    del judge
    assert wait_gone(pids) == []


def test_an_interrupted_batch_does_not_leak_into_the_next(judge, monkeypatch):
    judge.judge(mixed(2))
    monkeypatch.setattr("codegym.judge.batch.Batch._collect", interrupt)
    with pytest.raises(KeyboardInterrupt):
        judge.judge(mixed(20, SLEEP))
    monkeypatch.undo()
    assert verdicts(judge.judge(mixed(30))) == [
        Verdict.PASSED if n % 2 else Verdict.WRONG_ANSWER for n in range(30)
    ]


def interrupt(*_):
    raise KeyboardInterrupt


TRAINER = """
import sys, threading, time
from codegym import CallTest, Task
from codegym.judge.pool import LocalJudge
task = Task(task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(), expected=1),))
judge = LocalJudge(workers=2, time_limit_s=30)
judge.judge([(task, "def f(): return 1"), (task, "def f(): return 2")])
pids = [worker.pid for worker in judge._crew.idle]
for pid in list(pids):
    pids += map(int, open(f"/proc/{pid}/task/{pid}/children").read().split())
print(*pids, flush=True)
judge.judge([(task, "import time\\ndef f(): time.sleep(%d)" % n) for n in (100, 101)])
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_end_of_the_trainer_is_the_end_of_its_workers(number):
    trainer = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(TRAINER)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    with trainer:
        pids = [int(word) for word in trainer.stdout.readline().split()]
        assert len(pids) == 4
        time.sleep(0.2)
        pids += [child for pid in pids for child in children_of(pid)]
        trainer.send_signal(number)
        trainer.wait()
    assert wait_gone(pids, 10.0) == []


def test_a_forked_copy_of_a_judge_starts_its_own_workers(judge):
    judge.judge([(TASK, RIGHT)])
    mine = set(processes_of(judge))
    pid = os.fork()
    if pid == 0:
        passed = judge.judge([(TASK, RIGHT + "# in the child")])[0].passed
        distinct = mine.isdisjoint(processes_of(judge))
        judge.close()
        os._exit(0 if passed and distinct else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert all(map(alive, mine))
    assert judge.judge([(TASK, RIGHT + "# in the parent")])[0].passed
    assert judge.statistics.restarts == 0


@pytest.mark.slow
def test_honest_programs_do_not_flip_on_a_busy_machine():
    spin = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(4 * (os.cpu_count() or 1))
    ]
    program = "def f(n):\n    return sum(1 for _ in range(10**6)) * 0 + n + n\n"
    try:
        with LocalJudge(time_limit_s=1.0) as judge:
            assert all(
                judgement.passed for judgement in judge.judge([(TASK, program + f"# {n}") for n in range(20)])
            )
    finally:
        for process in spin:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_a_worker_does_not_grow():
    with LocalJudge(workers=1, cache=False) as judge:
        judge.judge(mixed(200))
        [(grader, [zygote, *_])] = processes_of(judge).items()
        before = [(len(os.listdir(f"/proc/{pid}/fd")), resident(pid)) for pid in (grader, zygote)]
        judge.judge(mixed(3000))
        after = [(len(os.listdir(f"/proc/{pid}/fd")), resident(pid)) for pid in (grader, zygote)]
    for (descriptors, memory), (descriptors_later, memory_later) in zip(before, after, strict=True):
        assert descriptors_later <= descriptors
        assert memory_later < memory + 3000


def resident(pid):
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])


def test_an_environment_takes_a_running_judge_as_its_argument():
    task = Task(
        task_id="t", prompt="", entry_point="f", tests=(CallTest(args=(), expected=1),), prompt_is_code=False
    )
    with LocalJudge(workers=1) as judge:
        env = gym.make("CodeGen-v0", tasks=[task], judge=judge)
        assert copy.deepcopy(judge) is judge
        assert env.spec is not None
        check_env(env.unwrapped, skip_render_check=True)
        env.reset(seed=0)
        env.step("def f(): return 1")
        assert env.step(codegym.END_OF_PROGRAM)[1] == 1.0


def test_time_between_batches_is_not_a_workers_silence(judge):
    judge.judge(mixed(8))
    for worker in judge._crew.idle:
        worker.progress -= 1000.0  # as if the trainer had been busy elsewhere for long
    slow = SLEEP.replace("0.01", "0.1")
    # one worker answers while the other is still at its first job
    judgements = judge.judge([(TASK, slow), (TASK, WRONG + "#"), (TASK, RIGHT + "#"), (TASK, RIGHT + "##")])
    assert verdicts(judgements) == [Verdict.PASSED, Verdict.WRONG_ANSWER, Verdict.PASSED, Verdict.PASSED]
    assert judge.statistics.restarts == 0
