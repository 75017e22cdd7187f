"""Metrics against MMSA's own values."""

import json
from pathlib import Path

import numpy as np
import pytest

from deepmlf.training.metrics import METRIC_NAMES, compute_metrics, sentiment_classes


def test_metrics_equal_mmsa_to_four_decimals(shared: Path) -> None:
    cases = json.loads((shared / "parity" / "metrics.json").read_text())
    assert {case["dataset"] for case in cases} == set(METRIC_NAMES)
    for case in cases:
        metrics = compute_metrics(case["dataset"], np.array(case["predictions"]), np.array(case["labels"]))
        assert {name: round(value, 4) for name, value in metrics.items()} == case["expected"]


def test_bounds_of_the_classes_of_sims_belong_to_the_class_below_in_float32() -> None:
    """MMSA compares float32 with a Python number, which numpy takes as float32; in float64 it is below."""
    bounds = np.array([-0.7, -0.1, 0.0, 0.1, 0.7], np.float32)
    above = np.nextafter(bounds, np.float32(2))
    for values, by_count in (
        (bounds, {2: [0, 0, 0, 1, 1], 3: [0, 0, 1, 1, 2], 5: [0, 1, 2, 2, 3]}),
        (above, {2: [0, 0, 1, 1, 1], 3: [0, 1, 1, 2, 2], 5: [1, 2, 2, 3, 4]}),
    ):
        for count, classes in by_count.items():
            centre = {2: [-0.5, 0.5], 3: [-0.5, 0.05, 0.5], 5: [-0.8, -0.4, 0.05, 0.4, 0.8]}[count]
            labels = np.array(centre)[classes]
            assert compute_metrics("sims", values, labels)[f"Mult_acc_{count}"] == 1.0
            assert compute_metrics("sims", labels, values)[f"Mult_acc_{count}"] == 1.0
    assert sentiment_classes("sims", np.array([-0.1, 0.1])) == ["negative", "neutral"]


@pytest.mark.parametrize("constant", [0.0, -0.7351, 0.1, 1 / 3])
def test_constant_predictions_have_no_correlation(constant: float) -> None:
    """In float32 the standard deviation of many equal values is not exactly zero."""
    labels = np.linspace(-3, 3, 229, dtype=np.float32)
    assert compute_metrics("mosi", np.full(229, constant, np.float32), labels)["Corr"] == 0.0


def test_the_classes_of_sims_have_a_neutral_band() -> None:
    values = np.array([-0.11, -0.05, 0.0, 0.05, 0.11])
    assert sentiment_classes("sims", values) == ["negative", "neutral", "neutral", "neutral", "positive"]
    assert sentiment_classes("mosei", values) == ["negative", "negative", "neutral", "positive", "positive"]
