"""The ledger: distinct programs once, order kept, counts that add up; nothing is executed here."""

import threading
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from codegym import Judgement, TaskError, Verdict
from codegym.judge.ledger import JudgeStatistics, Ledger
from codegym.testing import DOUBLE


class Runner:
    """Answers with the program's own text as the message; keeps what it was asked."""

    def __init__(self, verdict=Verdict.PASSED):
        self.verdict = verdict
        self.batches = []

    def __call__(self, jobs):
        self.batches.append([job.source.decode() for job in jobs])
        return {
            job.digest: Judgement(verdict=self.verdict, results=(True,) * 3, message=job.source.decode())
            for job in jobs
        }


def judge(ledger, programs, run):
    return [judgement.message for judgement in ledger.judge([(DOUBLE, text) for text in programs], run)]


@given(batches=st.lists(st.lists(st.sampled_from("abcdef"), max_size=12), max_size=6), cache=st.booleans())
def test_every_job_gets_its_own_judgement_and_each_is_counted_once(batches, cache):
    ledger, run = Ledger(cache=cache), Runner()
    for batch in batches:
        assert judge(ledger, batch, run) == batch
    asked = [text for batch in run.batches for text in batch]
    assert all(len(set(batch)) == len(batch) for batch in run.batches)
    statistics = ledger.statistics
    total = sum(map(len, batches))
    assert statistics.judged == len(asked)
    assert statistics.judged + statistics.duplicates + statistics.cache_hits == total
    assert statistics.verdicts == ({"passed": total} if total else {})
    if cache:
        assert len(set(asked)) == len(asked)
    else:
        assert statistics.cache_hits == 0


def test_counts_of_a_known_sequence():
    ledger, run = Ledger(cache=True), Runner()
    judge(ledger, "aab", run)
    judge(ledger, "abcc", run)
    ledger.count_restart()
    assert run.batches == [["a", "b"], ["c"]]
    assert ledger.statistics == JudgeStatistics(
        judged=3, duplicates=2, cache_hits=2, restarts=1, verdicts={"passed": 7}
    )


@pytest.mark.parametrize("verdict", list(Verdict))
def test_only_verdicts_that_depend_on_the_machine_are_forgotten(verdict):
    ledger, run = Ledger(cache=True), Runner(verdict)
    judge(ledger, "a", run)
    judge(ledger, "a", run)
    assert len(run.batches) == (2 if verdict in {Verdict.TIME_LIMIT, Verdict.MEMORY_LIMIT} else 1)


def test_the_cache_forgets_what_was_used_longest_ago(monkeypatch):
    monkeypatch.setattr("codegym.judge.ledger._CACHED_JUDGEMENTS", 2)
    ledger, run = Ledger(cache=True), Runner()
    for batch in ("ab", "a", "c", "a", "b"):
        judge(ledger, batch, run)
    assert run.batches == [["a", "b"], ["c"], ["b"]]


def test_nothing_runs_for_an_empty_batch_or_one_with_a_task_that_cannot_be_judged():
    ledger, run = Ledger(cache=True), Runner()
    assert ledger.judge([], run) == []
    with pytest.raises(TaskError, match="no tests"):
        ledger.judge([(DOUBLE, "a"), (replace(DOUBLE, tests=()), "a")], run)
    assert run.batches == []
    assert ledger.statistics == JudgeStatistics()


def test_a_run_that_fails_leaves_no_trace():
    ledger, run = Ledger(cache=True), Runner()

    def fail(jobs):
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        judge(ledger, "ab", fail)
    assert ledger.statistics == JudgeStatistics()
    assert judge(ledger, "ab", run) == ["a", "b"]


def test_threads_share_a_ledger():
    ledger, run = Ledger(cache=True), Runner()
    found = {}

    def work(number):
        found[number] = [judge(ledger, f"{number % 3}ab", run) for _ in range(50)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(batch == [str(number % 3), "a", "b"] for number in range(6) for batch in found[number])
    statistics = ledger.statistics
    assert statistics.judged + statistics.cache_hits == 6 * 50 * 3
