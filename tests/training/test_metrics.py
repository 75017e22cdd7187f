"""Metrics against MMSA's own values."""

import json
from pathlib import Path

import numpy as np
import pytest

from deepmlf.data.task import KNOWN, Task
from deepmlf.training.metrics import compute_metrics, main_metric, metric_names, sentiment_classes


def test_metrics_equal_mmsa_to_four_decimals(shared: Path) -> None:
    cases = json.loads((shared / "parity" / "metrics.json").read_text())
    assert {case["dataset"] for case in cases} == set(KNOWN)
    for case in cases:
        metrics = compute_metrics(KNOWN[case["dataset"]], np.array(case["predictions"]), np.array(case["labels"]))
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
            assert compute_metrics(KNOWN["sims"], values, labels)[f"Mult_acc_{count}"] == 1.0
            assert compute_metrics(KNOWN["sims"], labels, values)[f"Mult_acc_{count}"] == 1.0
    assert sentiment_classes(KNOWN["sims"], np.array([-0.1, 0.1])) == ["negative", "neutral"]


@pytest.mark.parametrize("constant", [0.0, -0.7351, 0.1, 1 / 3])
def test_constant_predictions_have_no_correlation(constant: float) -> None:
    """In float32 the standard deviation of many equal values is not exactly zero."""
    labels = np.linspace(-3, 3, 229, dtype=np.float32)
    assert compute_metrics(KNOWN["mosi"], np.full(229, constant, np.float32), labels)["Corr"] == 0.0


def test_the_classes_of_sims_have_a_neutral_band() -> None:
    values = np.array([-0.11, -0.05, 0.0, 0.05, 0.11])
    assert sentiment_classes(KNOWN["sims"], values) == ["negative", "neutral", "neutral", "neutral", "positive"]
    assert sentiment_classes(KNOWN["mosei"], values) == ["negative", "negative", "neutral", "positive", "positive"]


def test_numbers_of_any_range_are_judged_about_its_middle() -> None:
    task = Task.number(1, 5)
    labels, predictions = np.array([1.0, 2, 3, 4, 5]), np.array([1.5, 3.5, 4.5, 3.5, 5])
    metrics = compute_metrics(task, predictions, labels)
    # Errors 0.5, 1.5, 1.5, 0.5, 0; the label in the middle counts for no side, of the others one is on the wrong one.
    assert metrics["MAE"] == pytest.approx(0.8)
    assert metrics["RMSE"] == pytest.approx(1.0)
    assert metrics["acc_2"] == 0.75
    assert metrics["F1_score"] == pytest.approx(0.5 * 2 / 3 + 0.5 * 4 / 5)  # one class of F1 2/3, one of 4/5, two each
    assert metrics["Corr"] == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    assert sentiment_classes(task, np.array([2.9, 3.0, 3.1])) == ["negative", "neutral", "positive"]


def test_classes_are_judged_by_the_likeliest_one() -> None:
    task = Task.choice(("anger", "joy", "fear"))
    probabilities = np.array([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.25, 0.5, 0.25]], np.float32)
    metrics = compute_metrics(task, probabilities, np.array([0.0, 1.0, 1.0, 1.0]))
    assert tuple(metrics) == metric_names(task)
    assert metrics["accuracy"] == 0.75
    f1 = {"anger": 2 / 3, "joy": 4 / 5}  # of anger 1 of 2 predictions is right, of joy 2 of 3 labels are found
    assert metrics["weighted_F1"] == pytest.approx(0.25 * f1["anger"] + 0.75 * f1["joy"])
    assert metrics["macro_F1"] == pytest.approx((f1["anger"] + f1["joy"]) / 2)  # fear does not occur
    assert metrics["cross_entropy"] == pytest.approx(-np.log([0.7, 0.4, 0.8, 0.5]).mean())
    certain = compute_metrics(task, np.eye(3, dtype=np.float32)[[0, 1]], np.array([0.0, 2.0]))
    assert np.isfinite(certain["cross_entropy"])
    assert main_metric(task) in metrics
