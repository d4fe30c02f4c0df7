"""Labels by completion in the main job: each program by its own checkpoint, every completion kept."""

from dataclasses import replace

import pytest

from agents.config import SCALES, LabelConfig
from agents.run_folder import open_run
from agents.stages import Context
from agents.stages.context import load_sampler
from agents.stages.labels import COMPLETIONS, CheckpointLabeler, make_labeler
from codegym import UnknownNameError
from codegym.testing import ScriptedJudge, judgement
from prm.collect import collect
from prm.full_scan import FullScanLabeler
from prm.labeling import BinarySearchLabeler
from prm.reference import ReferenceLabeler
from prm.store import CompletionStore

POLICIES = ("baseline/step-1", "baseline/step-2")


def never(task, source):
    return judgement(task, 0)


@pytest.fixture
def context(tmp_path, toy):
    """A run folder with two untrained checkpoints and a judge that passes nothing."""
    config = SCALES["smoke"]
    config = replace(
        config,
        rl=replace(config.rl, max_new_tokens=6),
        label=replace(config.label, k=2, source="binary_search"),
    )
    context = Context(open_run(tmp_path / "run", {}), config)
    context._judge = ScriptedJudge(never)
    context.__dict__["train_tasks"] = toy.tasks()
    for seed, policy in enumerate(POLICIES):
        toy.model(seed).save_pretrained(context.path / policy)
        toy.tokenizer().save_pretrained(context.path / policy)
    return context


@pytest.fixture
def programs(context, toy):
    tasks = toy.tasks()[:3]
    return [
        program
        for policy in POLICIES
        for program in collect(
            load_sampler(context, context.path / policy)[0], tasks, context.judge, toy.tokenizer(),
            policy=policy, n=2, max_new_tokens=6, seed=1,
        )
    ]  # fmt: skip


@pytest.mark.parametrize("source", ["binary_search", "full_scan"])
def test_each_program_is_completed_by_the_checkpoint_that_wrote_it(context, programs, source):
    tasks = {task.task_id: task for task in context.train_tasks}
    mixed = programs[::2] + programs[1::2]
    labels = CheckpointLabeler(context, source).label(mixed, tasks)
    assert [row.program for row in labels] == mixed
    assert {row.source for row in labels} == {source}
    completers = {
        policy: {row.completer for row in labels if row.program.policy == policy and row.completer}
        for policy in POLICIES
    }
    assert [len(names) for names in completers.values()] == [1, 1]
    assert completers[POLICIES[0]] != completers[POLICIES[1]]
    drawn = sum(len(p.draws) for turn in CompletionStore(context.path / COMPLETIONS) for p in turn.probes)
    assert drawn == sum(row.cost["completions"] for row in labels) > 0


def test_a_second_labeler_finds_the_completions_of_the_first(context, programs):
    tasks = {task.task_id: task for task in context.train_tasks}
    first = CheckpointLabeler(context).label(programs, tasks)
    n_turns = len(CompletionStore(context.path / COMPLETIONS))
    assert CheckpointLabeler(context).label(programs, tasks) == first
    assert len(CompletionStore(context.path / COMPLETIONS)) == n_turns


@pytest.mark.parametrize(
    ("source", "labeler"),
    [("binary_search", BinarySearchLabeler), ("full_scan", FullScanLabeler), ("reference", ReferenceLabeler)],
)
def test_the_settings_choose_the_labeler(context, toy, source, labeler):
    context.config = replace(context.config, label=replace(context.config.label, source=source))
    made = make_labeler(context, load_sampler(context, context.path / POLICIES[0])[0])
    assert type(made) is labeler
    assert made.source == source
    if source != "reference":
        assert made.k == 2
        assert made.prober.store is None
        assert type(make_labeler(context)) is CheckpointLabeler
        assert make_labeler(context).source == source


def test_an_unknown_source_lists_the_choices():
    with pytest.raises(UnknownNameError, match="choose from binary_search, full_scan, reference"):
        LabelConfig(source="full scan")
