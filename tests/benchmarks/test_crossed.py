import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.crossed import crossed_interval, difference, share_of_gain

ONES, ZEROS = np.ones((3, 4)), np.zeros((3, 4))


def identity(rate):
    return rate


def test_an_arm_that_always_passes_has_no_spread():
    interval = crossed_interval(identity, ONES)
    assert (interval.value, interval.low, interval.high) == pytest.approx((1.0, 1.0, 1.0))


def test_the_difference_of_an_arm_with_itself_is_exactly_zero():
    arm = np.random.default_rng(0).integers(2, size=(5, 40)).astype(float)
    interval = difference(arm, arm)
    assert (interval.value, interval.low, interval.high) == (0.0, 0.0, 0.0)
    assert not interval.low > 0


def test_what_seeds_and_tasks_have_in_common_cancels():
    """Tasks differ a lot, the arms by exactly .25 on each: the interval of the difference has no width."""
    easy = np.linspace(0, 0.75, 30)[None, :].repeat(4, axis=0)
    interval = difference(easy + 0.25, easy)
    assert (interval.low, interval.high) == pytest.approx((0.25, 0.25))
    assert interval.low > 0
    assert crossed_interval(identity, easy).high - crossed_interval(identity, easy).low > 0.1


def test_seeds_that_disagree_widen_the_interval_however_many_tasks_there_are():
    """Two seeds, one at 0 and one at 1: resampled means are 0, 1/2 and 1 with 1/4, 1/2 and 1/4."""
    arm = np.concatenate([np.zeros((1, 1000)), np.ones((1, 1000))])
    interval = crossed_interval(identity, arm)
    assert (interval.value, interval.low, interval.high) == pytest.approx((0.5, 0.0, 1.0))


def test_one_seed_leaves_the_spread_of_tasks():
    """100 tasks, half of them pass: the standard error is .05."""
    arm = np.tile([0.0, 1.0], 50)[None, :]
    interval = crossed_interval(identity, arm, n_resamples=20_000)
    assert interval.high - interval.low == pytest.approx(4 * 0.98 * 0.05, abs=0.02)


def test_the_share_of_the_oracle_s_gain_by_hand():
    share = share_of_gain(ZEROS + 0.45, ZEROS + 0.1, ZEROS + 0.6)
    assert (share.value, share.low, share.high) == pytest.approx((0.7, 0.7, 0.7))


def test_without_a_gain_there_is_no_share():
    assert np.isnan(share_of_gain(ONES, ONES, ONES).value)


def test_the_draws_depend_on_the_seed_alone():
    arm = np.random.default_rng(1).random((5, 20))
    assert crossed_interval(identity, arm, seed=3) == crossed_interval(identity, arm, seed=3)
    assert crossed_interval(identity, arm, seed=3) != crossed_interval(identity, arm, seed=4)


@given(arrays(np.float64, (4, 6), elements=st.floats(0, 1)))
def test_the_interval_lies_among_the_values(arm):
    interval = crossed_interval(identity, arm, n_resamples=50)
    slack = 1e-9
    assert arm.min() - slack <= interval.low <= interval.high <= arm.max() + slack
    assert interval.value == pytest.approx(arm.mean())


@pytest.mark.parametrize("arms", [(), (np.zeros((0, 3)),), (np.zeros(3),)])
def test_nothing_to_measure_is_an_error(arms):
    with pytest.raises(ValueError, match="at least one arm"):
        crossed_interval(identity, *arms)


def test_arms_that_are_not_paired_are_an_error():
    with pytest.raises(ValueError, match=r"\(3, 4\), \(3, 5\)"):
        difference(ONES, np.ones((3, 5)))
