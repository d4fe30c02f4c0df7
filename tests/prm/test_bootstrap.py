import numpy as np
import pytest
from numpy.typing import NDArray

from prm.bootstrap import Estimate, bootstrap


def mean_of(values: list[float]):
    def measure(weights: NDArray[np.float64]) -> dict[str, float | None]:
        return {"mean": float(np.average(values, weights=weights))}

    return measure


def test_the_value_is_that_of_the_sample_itself() -> None:
    found = bootstrap(mean_of([1.0, 2.0, 6.0]), ["a", "b", "c"], n_resamples=50)
    assert found["mean"].value == 3.0
    assert found["mean"].low is not None
    assert 1.0 <= found["mean"].low < 3.0 < (found["mean"].high or 0) <= 6.0


def test_without_resamples_there_is_no_interval() -> None:
    assert bootstrap(mean_of([1.0, 2.0]), ["a", "b"], n_resamples=0) == {"mean": Estimate(value=1.5)}


def test_programs_of_one_task_are_drawn_together() -> None:
    seen = []

    def measure(weights: NDArray[np.float64]) -> dict[str, float | None]:
        seen.append(weights.tolist())
        return {}

    bootstrap(measure, ["a", "b", "a"], n_resamples=40, seed=3)
    *resamples, whole = seen
    assert whole == [1.0, 1.0, 1.0]
    assert {tuple(weights) for weights in resamples} == {(2.0, 0.0, 2.0), (0.0, 2.0, 0.0), (1.0, 1.0, 1.0)}


def test_an_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(100):
        values = rng.normal(size=60).tolist()
        found = bootstrap(mean_of(values), [str(i) for i in range(60)], n_resamples=100, seed=trial)["mean"]
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= 0.0 <= found.high
    assert 0.86 <= covered / 100 <= 1.0


def test_resamples_without_a_value_are_left_out() -> None:
    def measure(weights: NDArray[np.float64]) -> dict[str, float | None]:
        return {"share": float(weights[0]) if weights[0] else None, "never": None}

    found = bootstrap(measure, ["a", "b"], n_resamples=30)
    assert found["share"].low == 1.0
    assert found["never"] == Estimate(value=None)


def test_the_same_seed_gives_the_same_interval() -> None:
    first, second, other = (
        bootstrap(mean_of([1.0, 2.0, 6.0, 9.0]), list("abcd"), n_resamples=20, seed=seed)
        for seed in (1, 1, 2)
    )
    assert first == second
    assert first != other


@pytest.mark.parametrize(
    ("estimate", "text"),
    [
        (Estimate(value=0.5, low=0.25, high=0.75), "0.500 [0.250, 0.750]"),
        (Estimate(value=0.5), "0.500"),
        (Estimate(value=None), "-"),
    ],
)
def test_an_estimate_prints_its_interval(estimate: Estimate, text: str) -> None:
    assert str(estimate) == text
