from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prm.balance import UNBALANCED, Balance
from prm.batching import EncodedProgram, encode
from prm.heads import HEADS, LineLoss, first_error_hazard, newline_bce, newline_mse
from prm.model import ProcessRewardModel
from prm.optimization import gradient_step, training_programs
from prm.program import LabeledProgram

NEWLINES = np.array([0, 1])  # token 1 is a newline


def program(*labels: float, comment: bool = False) -> EncodedProgram:
    lines = ["#" if comment else "x"] * len(labels)
    return encode([0], [0, 1] * len(labels), lines, NEWLINES, labels)


def test_both_classes_get_half_of_the_weight_by_hand() -> None:
    # 3 right lines, 1 wrong: each right line weighs 4 / 6, the wrong one 4 / 2
    balance = Balance.of_programs([program(1, 1), program(1, -1)])
    assert balance == pytest.approx((4 / 6, 2.0))
    weights = balance.of_lines(torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.ones(2, 2, dtype=torch.bool))
    assert weights.flatten().tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])
    assert weights.sum().item() == pytest.approx(4.0)


def test_a_soft_label_is_partly_right_and_its_loss_is_weighted_as_a_whole() -> None:
    # (0.5 + 1) / 2 = 0.75 of a right line, and one wrong line: 0.75 right of 2
    balance = Balance.of_programs([program(0.5, -1)])
    assert balance == pytest.approx((2 / 1.5, 2 / 2.5))
    weights = balance.of_lines(torch.tensor([[0.5, -1.0]]), torch.ones(1, 2, dtype=torch.bool))
    assert weights[0].tolist() == pytest.approx([0.75 * 2 / 1.5 + 0.25 * 0.8, 0.8])


def test_neutral_lines_neither_count_nor_are_weighted() -> None:
    balance = Balance.of_programs([program(1, 1, 1, -1), program(0, 0, comment=True)])
    assert balance == pytest.approx((4 / 6, 2.0))
    weights = balance.of_lines(torch.tensor([[0.0, -1.0]]), torch.tensor([[False, True]]))
    assert weights.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize("labels", [(1.0, 1.0), (-1.0,), (0.0,)])
def test_one_class_alone_leaves_nothing_to_balance(labels: tuple[float, ...]) -> None:
    only = program(*labels, comment=labels == (0.0,))
    assert Balance.of_programs([only]) == UNBALANCED


@given(st.lists(st.sampled_from([1.0, 1.0, 1.0, -1.0]), min_size=1, max_size=30))
def test_hard_labels_of_both_classes_always_weigh_the_same(labels: list[float]) -> None:
    balance = Balance.of_programs([program(*labels)])
    row = torch.tensor([labels], dtype=torch.float64)
    weights = balance.of_lines(row, torch.ones_like(row, dtype=torch.bool))
    if len(set(labels)) == 2:
        assert weights[row > 0].sum().item() == pytest.approx(weights[row < 0].sum().item())
    assert weights.sum().item() == pytest.approx(len(labels))


def test_weighted_losses_by_hand() -> None:
    outputs, labels = torch.tensor([[0.0, 2.0, 0.0]]), torch.tensor([[1.0, -1.0, 1.0]])
    every, weights = torch.ones(1, 3, dtype=torch.bool), torch.tensor([[0.5, 3.0, 10.0]])

    def total(loss: Callable[..., LineLoss]) -> float:
        found = loss(outputs, labels, every, every, weights)
        return found.total.item()

    log2, wrong = 0.693147, 2.126928  # -log sigmoid(0), -log(1 - sigmoid(2))
    assert total(newline_mse) == pytest.approx(0.5 * 1 + 3 * 9 + 10 * 1)
    assert total(newline_bce) == pytest.approx(0.5 * log2 + 3 * wrong + 10 * log2, rel=1e-5)
    assert total(first_error_hazard) == pytest.approx(0.5 * log2 + 3 * wrong, rel=1e-5)
    counted = [
        loss(outputs, labels, every, every, weights).n_lines.item() for loss in (newline_mse, newline_bce)
    ]
    assert counted == [3, 3]


@pytest.mark.parametrize("head", HEADS)
def test_weights_of_one_change_no_loss(
    random_model: Callable[..., ProcessRewardModel],
    digits: Callable[[range], list[LabeledProgram]],
    head: str,
) -> None:
    losses = []
    for balance in (UNBALANCED, Balance(right=3.0, wrong=3.0)):
        model = random_model(head)
        losses.append(
            gradient_step(
                model,
                torch.optim.SGD(model.parameters(), lr=0.0),
                training_programs(model, digits(range(8))),
                micro_batch_tokens=100,
                max_grad_norm=1.0,
                balance=balance,
            )
        )
    assert losses[1] == pytest.approx(3 * losses[0], rel=1e-5)


def test_how_a_balanced_batch_is_split_changes_no_gradient(
    random_model: Callable[..., ProcessRewardModel], digits: Callable[[range], list[LabeledProgram]]
) -> None:
    gradients = []
    for budget in (10_000, 1):
        model = random_model()
        programs = training_programs(model, digits(range(12)))
        gradient_step(
            model,
            torch.optim.SGD(model.parameters(), lr=0.0),
            programs,
            micro_batch_tokens=budget,
            max_grad_norm=1e9,
            balance=Balance.of_programs(programs),
        )
        gradients.append([parameter.grad for parameter in model.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
