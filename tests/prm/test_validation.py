"""What held-out programs say while a reward model trains."""

import pytest

from prm.balance import UNBALANCED, Balance
from prm.evaluation import evaluate_prm
from prm.heads import HEADS
from prm.optimization import gradient_step, make_optimizer, training_programs
from prm.validation import METRICS, Validation


@pytest.mark.parametrize("balance", [UNBALANCED, Balance(right=0.7, wrong=1.9)])
@pytest.mark.parametrize("head", HEADS)
def test_its_loss_is_what_a_training_step_on_the_same_programs_reports(random_model, digits, head, balance):
    model, held_out = random_model(head=head), digits(range(40))
    measured = Validation(model, held_out, balance).measure()["validation_loss"]
    trained = gradient_step(
        model,
        make_optimizer(model, learning_rate=1e-3),
        training_programs(model, held_out),
        micro_batch_tokens=256,
        max_grad_norm=1.0,
        balance=balance,
    )
    assert measured == pytest.approx(trained, rel=1e-5)


@pytest.mark.parametrize("head", HEADS)
def test_what_follows_the_first_error_plays_no_part_in_its_metrics(random_model, digits, head):
    model, held_out = random_model(head=head), digits(range(40))
    assert any(item.labels[:2] == (-1.0, -1.0) for item in held_out)
    found, whole = Validation(model, held_out, UNBALANCED).measure(), evaluate_prm(model, held_out)
    for name in ("local_auc", "first_error_accuracy"):
        assert found[name] == pytest.approx(getattr(whole, name).value)
    assert found["brier"] != pytest.approx(whole.brier.value)


def test_without_held_out_programs_nothing_is_known(random_model):
    measured = Validation(random_model(), [], UNBALANCED).measure()
    assert measured == dict.fromkeys(("validation_loss", *METRICS))
