import xml.etree.ElementTree as ET

import numpy as np
from numpy.testing import assert_allclose

from prm.plots import running_mean, training_curves

HISTORY = [
    {"step": 1, "loss": 0.7},
    {"step": 2, "loss": 0.5, "local_auc": 0.8, "auc": None},
    {"step": 3, "validation_loss": 0.6, "first_error_accuracy": 0.4},
]


def test_curves_are_svg_and_equal_numbers_give_equal_bytes() -> None:
    svg = training_curves(HISTORY)
    assert ET.fromstring(svg).tag.endswith("svg")
    assert svg == training_curves([dict(row) for row in HISTORY])
    assert svg != training_curves([*HISTORY, {"step": 4, "loss": 0.1}])


def test_what_was_not_measured_is_not_in_the_legend() -> None:
    svg = training_curves(HISTORY)
    assert "first-error accuracy" in svg
    assert "AUC over all lines" not in svg


def test_no_history_is_an_empty_plot() -> None:
    assert ET.fromstring(training_curves([])).tag.endswith("svg")


def test_a_running_mean_by_hand() -> None:
    assert_allclose(running_mean(np.array([4.0, 0.0, 2.0, 6.0, 8.0])), [4, 2, 2, 3, 4])
    assert_allclose(running_mean(np.array([1, 0, 1, 0, 1, 1])), [1, 0.5, 2 / 3, 0.5, 0.5, 0.75])
    assert running_mean(np.array([])).shape == (0,)
