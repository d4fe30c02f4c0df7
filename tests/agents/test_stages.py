from dataclasses import replace

import pytest

from agents.config import SCALES
from agents.evaluation import EvaluationRow
from agents.run_folder import open_run
from agents.stages import STAGES, Context
from agents.stages.evaluate import _choose
from agents.stages.labels import _audited, make_labeler, policies_to_label
from agents.stages.rl import _summary
from agents.stages.sft import corpus
from agents.training import keep_rows
from codegym import Verdict
from codegym.storage import append_rows, read_rows
from prm.program import SampledProgram


def program(number: int, passed: bool) -> SampledProgram:
    return SampledProgram(
        program_id=f"p/{number}",
        task_id="t",
        policy="p",
        prompt_ids=(1,),
        token_ids=(2,),
        completion="x\n",
        finished=True,
        verdict=Verdict.PASSED if passed else Verdict.WRONG_ANSWER,
        results=(passed,),
    )


def row(task_id: str, horizon: int, tests_passed: int) -> EvaluationRow:
    return EvaluationRow(
        arm="psgpo",
        decoding="sampled",
        task_id=task_id,
        horizon=horizon,
        completion="x\n",
        finished=True,
        verdict="passed" if tests_passed == 8 else "wrong_answer",
        tests_passed=tests_passed,
        tests_total=8,
        lines=1,
        tokens=3,
    )


@pytest.fixture
def context(tmp_path) -> Context:
    return Context(open_run(tmp_path / "run", {}), SCALES["smoke"])


def test_every_stage_needs_only_earlier_ones():
    names = list(STAGES)
    for name, stage in STAGES.items():
        assert all(names.index(needed) < names.index(name) for needed in stage.needs)


def test_the_audit_takes_failing_programs_spread_over_the_list():
    programs = [program(number, passed=number % 4 == 0) for number in range(40)]
    chosen = _audited(programs, 10)
    assert len(chosen) == 10
    assert not any(item.passed for item in chosen)
    numbers = [int(item.program_id.split("/")[1]) for item in chosen]
    assert numbers == sorted(set(numbers))
    assert numbers[0] < 4
    assert numbers[-1] > 30
    assert len(_audited(programs, 1000)) == 30
    assert _audited(programs, 0) == []


def test_a_curve_is_cut_back_to_the_checkpoint(tmp_path):
    path = tmp_path / "curve.jsonl"
    append_rows(path, ({"iteration": number, "success_rate": 0.5} for number in range(1, 6)))
    keep_rows(path, 3)
    assert [item["iteration"] for item in read_rows(path)] == [1, 2, 3]
    keep_rows(tmp_path / "absent.jsonl", 3)
    assert not (tmp_path / "absent.jsonl").exists()


def test_a_summary_averages_what_was_measured():
    rows = [{"iteration": n, "success_rate": n / 10, "verdicts_per_s": 100.0 * n} for n in range(1, 9)]
    summary = _summary(rows)
    assert summary["iterations"] == 8
    assert summary["first_success_rate"] == pytest.approx(0.25)
    assert summary["last_success_rate"] == pytest.approx(0.65)
    assert summary["verdicts_per_s"] == pytest.approx(450.0)
    assert summary["sampling_tokens_per_s"] is None


def test_sample_programs_are_three_different_ones():
    rows = [row("a", 12, 8), row("b", 12, 0), row("c", 11, 2), row("d", 10, 7), row("e", 2, 8)]
    assert [(item.task_id, item.passed) for _, item in _choose(rows)] == [
        ("a", True),
        ("b", False),
        ("d", False),
    ]
    assert [item.task_id for _, item in _choose(rows[1:4])] == ["b", "d", "c"]
    assert [item.task_id for _, item in _choose([rows[0], rows[4]])] == ["a", "e"]
    assert _choose([]) == []


def test_checkpoints_are_found_oldest_first(context):
    for step in (20, 6, 13):
        (context.path / "baseline" / f"step-{step}").mkdir(parents=True)
    assert policies_to_label(context) == ["baseline/step-6", "baseline/step-13", "baseline/step-20"]


def test_programs_of_the_start_alone_need_no_checkpoints(context):
    label = replace(context.config.label, policies="start")
    context.config = replace(context.config, label=label)
    assert policies_to_label(context) == ["sft"]


def test_the_corpus_of_a_bundled_source_is_its_own(context):
    pairs = corpus(context)
    assert len(pairs) == context.config.sft_programs
    assert all(prompt.startswith("def ") and completion.endswith("\n") for prompt, completion in pairs[:50])


def test_held_out_tasks_are_none_of_the_training_tasks(context):
    trained = {
        (tuple(t.metadata["operations"]), tuple(t.metadata["parameters"])) for t in context.train_tasks
    }
    held_out = {
        (tuple(t.metadata["operations"]), tuple(t.metadata["parameters"])) for t in context.test_tasks
    }
    assert not trained & held_out
    assert len(context.test_tasks) == context.config.eval_tasks


def test_labels_by_reference_need_a_trace(context):
    bare = [replace(task, metadata={}) for task in context.train_tasks]
    context.__dict__["train_tasks"] = bare
    assert context.arms == ["sft", "baseline", "psgpo"]
    with pytest.raises(ValueError, match=r"carry no trace .* --label\.source binary_search"):
        make_labeler(context)
