import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from codegym.errors import UnknownNameError
from prm.heads import (
    HEADS,
    clipped_scores,
    first_error_hazard,
    logit_scores,
    make_head,
    newline_bce,
    newline_mse,
    read_at_newline,
    sum_over_tokens,
    survival_scores,
    until_first_error,
)

OUTPUTS = torch.tensor([[0.5, 1.0, 2.0, 4.0, 8.0], [16.0, 32.0, 64.0, 0.25, 0.25]])
LINE_OF_TOKEN = torch.tensor([[-1, 0, 0, 1, 1], [-1, -1, 0, -1, -1]])
LINE_ENDS = torch.tensor([[2, 4], [2, 0]])


def every(shape: torch.Tensor) -> torch.Tensor:
    return torch.ones_like(shape, dtype=torch.bool)


def test_a_newline_head_reads_the_token_that_ends_the_line() -> None:
    assert read_at_newline(OUTPUTS, LINE_OF_TOKEN, LINE_ENDS)[0].tolist() == [2.0, 8.0]


def test_a_token_sum_head_adds_the_tokens_of_a_line_and_leaves_out_prompt_and_padding() -> None:
    assert sum_over_tokens(OUTPUTS, LINE_OF_TOKEN, LINE_ENDS).tolist() == [[3.0, 12.0], [64.0, 0.0]]


def test_every_token_of_a_line_gets_the_gradient_of_its_sum() -> None:
    outputs = OUTPUTS.clone().requires_grad_()
    sum_over_tokens(outputs, LINE_OF_TOKEN, LINE_ENDS)[0, 1].backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[0, 0, 0, 1, 1], [0, 0, 0, 0, 0]]


def test_lines_count_up_to_and_including_the_first_wrong_one() -> None:
    labels = torch.tensor([[1.0, -1.0, -1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [-1.0, 1.0, -1.0, 1.0]])
    assert until_first_error(labels, every(labels)).tolist() == [
        [True, True, False, False],
        [True, True, True, True],
        [True, False, False, False],
    ]


def test_a_neutral_line_cannot_be_the_first_error() -> None:
    labels = torch.tensor([[1.0, -1.0, -1.0, -1.0]])
    scored = torch.tensor([[True, False, True, True]])
    assert until_first_error(labels, scored).tolist() == [[True, False, True, False]]


@given(st.lists(st.sampled_from([-1.0, 0.5, 1.0]), min_size=1, max_size=8))
def test_exactly_one_wrong_line_counts_if_there_is_any(labels: list[float]) -> None:
    row = torch.tensor([labels])
    kept = until_first_error(row, every(row))
    assert int((kept & (row < 0)).sum()) == int((row < 0).any())


def test_mse_by_hand() -> None:
    outputs = torch.tensor([[0.5, -1.0, 3.0], [0.0, 0.0, 9.0]])
    labels = torch.tensor([[1.0, -1.0, 0.0], [0.25, -1.0, 0.0]])
    present = torch.tensor([[True, True, True], [True, True, False]])
    loss = newline_mse(outputs, labels, present, present)
    assert loss.total.item() == pytest.approx(0.25 + 0 + 9 + 0.0625 + 1)  # the 9.0 is padding
    assert loss.n_lines.item() == 5
    assert loss.mean.item() == pytest.approx(10.3125 / 5)


def test_mse_regresses_neutral_lines_to_zero_as_the_paper_does() -> None:
    outputs, labels = torch.tensor([[2.0]]), torch.tensor([[0.0]])
    assert newline_mse(outputs, labels, every(labels), ~every(labels)).total.item() == 4.0


def test_bce_by_hand() -> None:
    outputs, labels = torch.tensor([[0.0, math.log(3.0)]]), torch.tensor([[1.0, -1.0]])
    loss = newline_bce(outputs, labels, every(labels), every(labels))
    assert loss.total.item() == pytest.approx(math.log(2) + math.log(4))  # -log 1/2, -log(1 - 3/4)


def test_bce_takes_a_soft_label_as_a_probability() -> None:
    outputs, labels = torch.tensor([[math.log(3.0)]]), torch.tensor([[0.5]])
    loss = newline_bce(outputs, labels, every(labels), every(labels))
    assert loss.total.item() == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_bce_skips_neutral_lines() -> None:
    outputs, labels = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    loss = newline_bce(outputs, labels, every(labels), torch.tensor([[False, True]]))
    assert (loss.total.item(), loss.n_lines.item()) == (pytest.approx(math.log(2)), 1)


def test_hazard_is_the_likelihood_of_where_a_program_first_fails() -> None:
    chances = torch.tensor([[0.9, 0.6, 0.2, 0.7]])
    labels = torch.tensor([[1.0, 1.0, -1.0, -1.0]])
    loss = first_error_hazard(torch.logit(chances), labels, every(labels), every(labels))
    assert loss.total.item() == pytest.approx(-math.log(0.9 * 0.6 * (1 - 0.2)), rel=1e-5)
    assert loss.n_lines.item() == 3


def test_what_follows_the_first_error_has_no_gradient() -> None:
    outputs = torch.zeros(1, 4, requires_grad=True)
    labels = torch.tensor([[1.0, -1.0, -1.0, 1.0]])
    first_error_hazard(outputs, labels, every(labels), every(labels)).total.backward()  # type: ignore[no-untyped-call]
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[-0.5, 0.5, 0.0, 0.0]]


@pytest.mark.parametrize("name", HEADS)
def test_padding_changes_no_loss(name: str) -> None:
    head = HEADS[name]
    outputs, labels = torch.tensor([[0.3, -0.4, 1.0]]), torch.tensor([[1.0, 1.0, -1.0]])
    padded = torch.tensor([[0.3, -0.4, 1.0, 7.0, -7.0]]), torch.tensor([[1.0, 1.0, -1.0, 0.0, 0.0]])
    present = torch.tensor([[True, True, True, False, False]])
    alone = head.loss(outputs, labels, every(labels), every(labels))
    with_padding = head.loss(*padded, present, present)
    assert with_padding.total.item() == pytest.approx(alone.total.item())
    assert with_padding.n_lines.item() == alone.n_lines.item()


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_without_lines_that_count_has_loss_zero(name: str) -> None:
    nothing = torch.zeros(2, 3, dtype=torch.bool)
    loss = HEADS[name].loss(torch.ones(2, 3), torch.zeros(2, 3), nothing, nothing)
    assert (loss.total.item(), loss.n_lines.item(), loss.mean.item()) == (0.0, 0, 0.0)


def test_scores_by_hand() -> None:
    outputs = torch.tensor([[math.log(3.0), -5.0, 0.0]])  # sigmoids 3/4, neutral, 1/2
    scored = torch.tensor([[True, False, True]])
    assert survival_scores(outputs, scored)[0].tolist() == pytest.approx([0.5, 0.0, -0.25])
    assert logit_scores(outputs, scored)[0].tolist() == pytest.approx([0.5, 0.0, 0.0])
    assert clipped_scores(outputs, scored)[0].tolist() == pytest.approx([1.0, 0.0, 0.0])


@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=12), st.data())
def test_scores_are_finite_bounded_and_zero_on_neutral_lines(
    outputs: list[float], data: st.DataObject
) -> None:
    scored = torch.tensor([data.draw(st.lists(st.booleans(), min_size=len(outputs), max_size=len(outputs)))])
    for head in HEADS.values():
        scores = head.score(torch.tensor([outputs]), scored)
        assert bool(torch.isfinite(scores).all())
        assert float(scores.abs().max()) <= 1.0
        assert not bool(scores[~scored].any())


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=12))
def test_survival_never_rises(outputs: list[float]) -> None:
    row = torch.tensor([outputs])
    assert bool((survival_scores(row, every(row)).diff() <= 1e-6).all())


def test_an_unknown_head_lists_the_choices() -> None:
    with pytest.raises(UnknownNameError, match=r"'tokensum' \(did you mean 'token_sum'\?\).*newline_bce"):
        make_head("tokensum")
