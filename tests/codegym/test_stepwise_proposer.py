"""The stepwise proposer: the right next step is always there, and nothing gives it away."""

from collections import Counter

import numpy as np
import pytest

from codegym import END_OF_PROGRAM, Episode, TaskError, UnknownNameError, load_tasks, make_judge
from codegym.tasks.operations import OPERATIONS, render
from codegym.tasks.stepwise_proposer import StepwiseProposer
from codegym.testing import DOUBLE

KINDS = ("operations", "bugs")
TASKS = list(load_tasks("stepwise", limit=60, horizons=(1, 6)))


def right_of(episode, candidates):
    """The candidates that the reference goes on with."""
    return [c for c in candidates if episode.task.reference.startswith(f"{episode.completion}{c}\n")]


def follow_reference(task, proposer, k=4, seed=0):
    """Every proposal on the way along the reference."""
    episode, rng, proposals = Episode(task=task), np.random.default_rng(seed), []
    while True:
        proposal = proposer.propose(episode, k, rng)
        if proposal.candidates == (END_OF_PROGRAM,):
            return episode, proposals
        proposals.append(proposal)
        (right,) = right_of(episode, proposal.candidates)
        for line in right.split("\n"):
            episode = episode.write(line)


@pytest.mark.parametrize("kind", KINDS)
def test_the_reference_can_always_be_followed_to_its_end(kind):
    for task in TASKS:
        episode, proposals = follow_reference(task, StepwiseProposer(distractors=kind))
        assert episode.completion == task.reference
        assert len(proposals) == task.metadata["horizon"] + 1
        asked = task.prompt.split("\n")[2:-2]
        assert [p.request for p in proposals] == [line.strip() for line in asked]
        assert all(len(set(p.candidates)) == len(p.candidates) == 4 for p in proposals)


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_candidate_stands_anywhere(kind):
    places = Counter()
    for seed, task in enumerate(TASKS * 3):
        proposal = StepwiseProposer(distractors=kind).propose(
            Episode(task=task), 4, np.random.default_rng(seed)
        )
        places[proposal.candidates.index(right_of(Episode(task=task), proposal.candidates)[0])] += 1
    assert all(25 <= places[place] <= 65 for place in range(4))  # 180 draws of 4 places


def test_every_candidate_computes_the_variable_asked_for():
    for task in TASKS[:20]:
        _, proposals = follow_reference(task, StepwiseProposer())
        for number, proposal in enumerate(proposals[:-1], start=1):
            assert all(c.startswith(f"    v{number} = ") for c in proposal.candidates)
        assert all(c.startswith("    return ") for c in proposals[-1].candidates)


def test_bugs_are_those_of_the_operation_asked_for():
    for task in TASKS[:20]:
        name, k = task.metadata["operations"][0], task.metadata["parameters"][0]
        bugs = {render(t, a="v0", b="v1", k=k).removesuffix("\n") for t in OPERATIONS[name].wrong}
        proposal = StepwiseProposer(distractors="bugs").propose(
            Episode(task=task), 9, np.random.default_rng(0)
        )
        assert bugs <= set(proposal.candidates)
        other = StepwiseProposer().propose(Episode(task=task), 9, np.random.default_rng(0))
        assert len(other.candidates) == 9


def test_an_operation_that_takes_a_number_takes_the_one_asked_for():
    task = next(t for t in TASKS if t.metadata["parameters"][0] == 7)
    proposal = StepwiseProposer().propose(Episode(task=task), 12, np.random.default_rng(0))
    assert sum("7" in candidate for candidate in proposal.candidates) > 3
    assert not any(digit in "".join(proposal.candidates) for digit in "45689")


def test_it_goes_on_after_a_wrong_step():
    task = next(t for t in TASKS if t.metadata["horizon"] == 2)
    wrong = Episode(task=task, lines=("    v1 = []", "    for x in v0:", "        v1.append(v2 = 3)"))
    rng = np.random.default_rng(0)
    proposal = StepwiseProposer().propose(wrong, 4, rng)
    assert all(c.startswith("    v2 = ") for c in proposal.candidates)
    proposal = StepwiseProposer().propose(wrong.write("    v9 = v1"), 4, rng)
    assert all(c.startswith("    return ") for c in proposal.candidates)
    proposal = StepwiseProposer().propose(wrong.write("    return 3"), 4, rng)
    assert proposal.candidates == (END_OF_PROGRAM,)


@pytest.mark.parametrize("k", [1, 2, 40])
def test_any_number_of_candidates(k):
    for task in TASKS[:10]:
        proposal = StepwiseProposer().propose(Episode(task=task), k, np.random.default_rng(0))
        assert 1 <= len(proposal.candidates) <= k
        assert right_of(Episode(task=task), proposal.candidates)


def test_other_tasks_and_kinds_are_refused():
    with pytest.raises(TaskError, match="check/double"):
        StepwiseProposer().propose(Episode(task=DOUBLE), 4, np.random.default_rng(0))
    with pytest.raises(UnknownNameError, match="operations"):
        StepwiseProposer(distractors="typos")


def test_wrong_candidates_hardly_ever_pass():
    """The tests decide, not a label; but a choice must matter."""
    tasks = list(load_tasks("stepwise", limit=40, horizons=(1, 1)))
    jobs = []
    for kind in KINDS:
        for seed, task in enumerate(tasks):
            start = Episode(task=task)
            proposal = StepwiseProposer(distractors=kind).propose(start, 4, np.random.default_rng(seed))
            ending = task.reference.split("\n")[-2]
            wrong = set(proposal.candidates) - set(right_of(start, proposal.candidates))
            jobs += [(task, task.assemble(f"{candidate}\n{ending}\n")) for candidate in sorted(wrong)]
    with make_judge("local", workers=1) as judge:
        passed = [judgement.passed for judgement in judge.judge(jobs)]
    assert len(passed) == 240
    assert sum(passed) <= 6
