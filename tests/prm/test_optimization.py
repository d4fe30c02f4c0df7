from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prm.batching import encode_labeled
from prm.heads import HEADS
from prm.model import ProcessRewardModel
from prm.optimization import gradient_step, make_optimizer, program_order, refresh_prm, training_programs
from prm.program import LabeledProgram

MakeModel = Callable[..., ProcessRewardModel]
Digits = Callable[[range], list[LabeledProgram]]


def gradients_of(
    model: ProcessRewardModel, labeled: list[LabeledProgram], *, budget: int
) -> list[torch.Tensor]:
    programs = [encode_labeled(item, model.newlines) for item in labeled]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    gradient_step(model, optimizer, programs, micro_batch_tokens=budget, max_grad_norm=1e9)
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("head", HEADS)
def test_micro_batches_change_no_gradient(random_model: MakeModel, digits: Digits, head: str) -> None:
    model, labeled = random_model(head), digits(range(12))
    whole, parts = gradients_of(model, labeled, budget=10_000), gradients_of(model, labeled, budget=1)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_the_step_reports_the_mean_loss_per_line(random_model: MakeModel, digits: Digits) -> None:
    model = random_model()
    programs = [encode_labeled(item, model.newlines) for item in digits(range(6))]
    batch = model.batch(programs)
    expected = model.line_head.loss(model.line_outputs(batch), batch.labels, batch.present, batch.scored).mean
    optimizer = make_optimizer(model, learning_rate=1e-3)
    loss = gradient_step(model, optimizer, programs, micro_batch_tokens=20, max_grad_norm=1.0)
    assert loss == pytest.approx(expected.item(), rel=1e-5)


def test_long_gradients_are_scaled_down(random_model: MakeModel, digits: Digits) -> None:
    model = random_model()
    programs = [encode_labeled(item, model.newlines) for item in digits(range(6))]
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = torch.cat([parameter.detach().flatten().clone() for parameter in model.parameters()])
    gradient_step(model, optimizer, programs, micro_batch_tokens=100, max_grad_norm=0.01)
    after = torch.cat([parameter.detach().flatten() for parameter in model.parameters()])
    assert (after - before).norm().item() == pytest.approx(0.01, rel=1e-3)


def test_cutting_after_the_first_error_changes_no_gradient(random_model: MakeModel, digits: Digits) -> None:
    model, labeled = random_model("token_sum"), digits(range(12))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    cut = training_programs(model, labeled)
    assert sum(program.n_tokens for program in cut) < sum(
        encode_labeled(item, model.newlines).n_tokens for item in labeled
    )
    gradient_step(model, optimizer, cut, micro_batch_tokens=10_000, max_grad_norm=1e9)
    of_cut = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    for one, other in zip(of_cut, gradients_of(model, labeled, budget=10_000), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


def test_a_regression_is_trained_on_every_line(random_model: MakeModel, digits: Digits) -> None:
    labeled = digits(range(12))
    programs = training_programs(random_model("newline"), labeled)
    assert [program.n_lines for program in programs] == [len(item.labels) for item in labeled]


def test_programs_without_lines_are_left_out(random_model: MakeModel, digits: Digits) -> None:
    labeled = digits(range(2))
    end = labeled[0].program.token_ids[-1:]
    empty = replace(labeled[0], program=replace(labeled[0].program, token_ids=end, completion=""), labels=())
    model = random_model()
    assert len(training_programs(model, [empty, labeled[1]])) == 1
    assert refresh_prm(model, [empty]).n_steps == 0


def test_a_batch_that_teaches_nothing_moves_nothing(random_model: MakeModel, digits: Digits) -> None:
    model, labeled = random_model(), digits(range(1))[0]
    program = replace(
        encode_labeled(labeled, model.newlines), scored=np.zeros(len(labeled.labels), dtype=bool)
    )
    before = model.identity
    optimizer = make_optimizer(model, learning_rate=1.0)
    assert gradient_step(model, optimizer, [program], micro_batch_tokens=99, max_grad_norm=1.0) == 0.0
    assert model.identity == before


@given(st.integers(1, 30), st.floats(0.1, 3.5), st.integers(0, 5))
def test_an_epoch_takes_every_program_once(n_programs: int, epochs: float, seed: int) -> None:
    order = program_order(n_programs, epochs, seed)
    assert order.tolist() == program_order(n_programs, epochs, seed).tolist()
    assert 0 <= len(order) - n_programs * epochs < 1
    for start in range(0, len(order), n_programs):
        epoch = order[start : start + n_programs].tolist()
        assert len(set(epoch)) == len(epoch)
        assert set(epoch) <= set(range(n_programs))


def test_epochs_and_seeds_differ_in_order() -> None:
    order = program_order(50, 2.0, 0)
    assert order[:50].tolist() != order[50:].tolist()
    assert order[:50].tolist() != program_order(50, 1.0, 1).tolist()


def test_a_refresh_learns_and_repeats(random_model: MakeModel, digits: Digits) -> None:
    labeled = digits(range(64))
    model, twin = random_model(), random_model()
    report = refresh_prm(model, labeled, seed=3)
    assert report.n_steps == 2
    assert report.n_programs == 64
    refresh_prm(twin, labeled, seed=3)
    assert model.identity == twin.identity
    again = refresh_prm(model, labeled, epochs=4.0, seed=4)
    assert again.loss < report.loss


def test_a_refresh_without_programs_changes_nothing(random_model: MakeModel) -> None:
    model = random_model()
    before = model.identity
    assert refresh_prm(model, []).n_programs == 0
    assert model.identity == before


def test_a_carried_optimizer_resumes_exactly(random_model: MakeModel, digits: Digits) -> None:
    straight, resumed = random_model(), random_model()
    optimizer = make_optimizer(straight, learning_rate=1e-3)
    for seed in (0, 1):
        refresh_prm(straight, digits(range(32)), seed=seed, optimizer=optimizer)
    first = make_optimizer(resumed, learning_rate=1e-3)
    refresh_prm(resumed, digits(range(32)), seed=0, optimizer=first)
    second = make_optimizer(resumed, learning_rate=9.0)
    second.load_state_dict(first.state_dict())
    refresh_prm(resumed, digits(range(32)), seed=1, optimizer=second)
    assert resumed.identity == straight.identity
