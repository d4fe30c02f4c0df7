import json
from collections.abc import Callable

import pytest
import torch

from prm.batching import encode_labeled
from prm.bootstrap import Estimate
from prm.evaluation import MIN_TASKS, evaluate_prm
from prm.groupings import by_position
from prm.metrics import line_metrics, score_lines
from prm.model import ProcessRewardModel
from prm.program import LabeledProgram

MakeModel = Callable[..., ProcessRewardModel]
Digits = Callable[[range], list[LabeledProgram]]


@pytest.mark.parametrize("head", ["token_sum", "newline"])
def test_metrics_are_those_of_the_exact_tokens(random_model: MakeModel, digits: Digits, head: str) -> None:
    model, labeled = random_model(head), digits(range(40))
    metrics = evaluate_prm(model, labeled, n_bootstrap=0)
    encoded = [encode_labeled(item, model.newlines) for item in labeled]
    lines = score_lines(encoded, model.read(encoded), per_line=head == "token_sum")
    for name, value in line_metrics(lines).items():
        assert getattr(metrics, name) == Estimate(value=value)
    assert metrics.n_programs == 40
    assert metrics.n_lines == sum(len(item.labels) for item in labeled)
    assert (
        metrics.right_lines == sum(label > 0 for item in labeled for label in item.labels) / metrics.n_lines
    )


def test_intervals_hold_the_value_and_repeat_under_a_seed(random_model: MakeModel, digits: Digits) -> None:
    model, labeled = random_model(), digits(range(60))
    first = evaluate_prm(model, labeled, n_bootstrap=30, seed=1)
    assert first == evaluate_prm(model, labeled, n_bootstrap=30, seed=1)
    assert first.auc != evaluate_prm(model, labeled, n_bootstrap=30, seed=2).auc
    for estimate in (first.auc, first.local_auc, first.line_accuracy, first.brier):
        assert estimate.value is not None
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low <= estimate.value <= estimate.high


def test_copies_of_a_program_narrow_no_interval(random_model: MakeModel, digits: Digits) -> None:
    model, labeled = random_model(), digits(range(30))
    once = evaluate_prm(model, labeled, n_bootstrap=30)
    often = evaluate_prm(model, labeled * 4, n_bootstrap=30)
    assert often.line_accuracy.low == pytest.approx(once.line_accuracy.low)
    assert often.line_accuracy.high == pytest.approx(once.line_accuracy.high)


def test_groups_are_evaluated_apart(random_model: MakeModel, digits: Digits) -> None:
    model, labeled = random_model(), digits(range(40))
    metrics = evaluate_prm(
        model,
        labeled,
        n_bootstrap=0,
        groupings={
            "policy": lambda item: item.program.policy,
            "verdict": lambda item: str(item.program.verdict),
        },
    )
    assert set(metrics.groups["policy"]) == {"scripted/0", "scripted/1"}
    even = [item for item in labeled if item.program.policy == "scripted/0"]
    assert metrics.groups["policy"]["scripted/0"].auc == evaluate_prm(model, even, n_bootstrap=0).auc
    assert metrics.groups["verdict"]["passed"].first_error_accuracy.value is None
    assert sum(group.n_lines for group in metrics.groups["verdict"].values()) == metrics.n_lines


def test_lines_are_grouped_where_they_stand(random_model: MakeModel, digits: Digits) -> None:
    model, labeled = random_model(), digits(range(40))
    groups = evaluate_prm(model, labeled, n_bootstrap=0, groupings={"position": by_position}).groups[
        "position"
    ]
    assert list(groups) == ["1", "2", "3-4"]
    assert [group.n_lines for group in groups.values()] == [40, 40, 40]
    first_wrong = [([*item.labels, -1.0]).index(-1.0) for item in labeled]
    assert groups["1"].n_programs == first_wrong.count(0)
    assert groups["2"].n_programs == first_wrong.count(1)
    assert groups["3-4"].n_programs == first_wrong.count(2) + first_wrong.count(3)
    right = [item.labels[1] > 0 for item in labeled]
    assert groups["2"].right_lines == sum(right) / 40
    scores = [float(score[0]) for score in model.score_programs([item.program for item in labeled])]
    hits = [(score > 0) == (item.labels[0] > 0) for score, item in zip(scores, labeled, strict=True)]
    assert groups["1"].line_accuracy.value == pytest.approx(sum(hits) / 40)


def test_only_groups_of_many_tasks_have_intervals(random_model: MakeModel, digits: Digits) -> None:
    labeled = digits(range(60))
    small = {item.program.task_id for item in labeled[:5]}
    groups = evaluate_prm(
        random_model(),
        labeled,
        n_bootstrap=5,
        groupings={"size": lambda item: "small" if item.program.task_id in small else "big"},
    ).groups["size"]
    assert len({item.program.task_id for item in labeled} - small) >= MIN_TASKS
    assert groups["small"].brier.low is None
    assert groups["small"].brier.value is not None
    assert groups["big"].brier.low is not None


def test_groups_stand_in_natural_order(random_model: MakeModel, digits: Digits) -> None:
    names = {"scripted/0": "step-10", "scripted/1": "step-9"}
    metrics = evaluate_prm(
        random_model(),
        digits(range(10)),
        n_bootstrap=0,
        groupings={"step": lambda item: names[item.program.policy]},
    )
    assert list(metrics.groups["step"]) == ["step-9", "step-10"]


def test_groups_are_policies_unless_told(random_model: MakeModel, digits: Digits) -> None:
    assert set(evaluate_prm(random_model(), digits(range(10)), n_bootstrap=0).groups) == {"policy"}


def test_metrics_are_json(random_model: MakeModel, digits: Digits) -> None:
    row = evaluate_prm(random_model(), digits(range(10)), n_bootstrap=5).to_row()
    assert json.loads(json.dumps(row))["auc"]["value"] == row["auc"]["value"]


def test_nothing_to_evaluate_is_refused(random_model: MakeModel) -> None:
    with pytest.raises(ValueError, match="no labelled programs"):
        evaluate_prm(random_model(), [])


def test_evaluating_changes_no_weight(random_model: MakeModel, digits: Digits) -> None:
    model = random_model()
    before = model.identity
    evaluate_prm(model, digits(range(5)), n_bootstrap=2)
    assert model.identity == before
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.is_grad_enabled()
