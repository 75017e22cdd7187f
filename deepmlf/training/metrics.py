"""The metrics of the field, by MMSA's definitions."""

from typing import Literal

import numpy as np

METRIC_NAMES = {
    "mosi": ("Has0_acc_2", "Has0_F1_score", "Non0_acc_2", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7", "MAE", "Corr"),
    "sims": ("Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score", "MAE", "Corr"),
}
METRIC_NAMES["mosei"] = METRIC_NAMES["mosi"]
ATTENTION = "attention/"
"""Section of a report that has a list over frames for each MM block."""
LOWER_IS_BETTER = frozenset({"MAE", "trained_parameters"})
CONTINUOUS = frozenset({"MAE"})
"""Metrics that two trainings do not have in common by chance; accuracies, and a correlation that is undefined, are."""
SENTIMENT_CLASSES = ("negative", "neutral", "positive")
_SIMS_BOUNDS = {
    count: np.array(bounds, np.float32)  # as MMSA compares them: in float64, float32's 0.1 lies above 0.1
    for count, bounds in {2: [0.0], 3: [-0.1, 0.1], 5: [-0.7, -0.1, 0.1, 0.7]}.items()
}
"""Upper bounds of the classes of SIMS, inclusive, by the number of classes."""


def direction_of(metric: str) -> Literal["minimize", "maximize"]:
    """Which way a metric is better; with or without its section, as in ``valid/MAE``."""
    return "minimize" if metric.rpartition("/")[2] in LOWER_IS_BETTER else "maximize"


def is_better(metric: str, value: float, than: float | None) -> bool:
    """Whether a metric's value beats another one, or is the first."""
    return than is None or (value < than if direction_of(metric) == "minimize" else value > than)


def sentiment_classes(dataset: str, values: np.ndarray) -> list[str]:
    """``negative``, ``neutral`` or ``positive`` for each of [N] values: by sign, for SIMS by Mult_acc_3's bounds."""
    values = values.astype(np.float32)
    classes = np.searchsorted(_SIMS_BOUNDS[3], values) if dataset == "sims" else np.sign(values).astype(int) + 1
    return [SENTIMENT_CLASSES[index] for index in classes]


def compute_metrics(dataset: str, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """All metrics of a dataset, unrounded.

    ``Has0`` counts zero as positive-or-neutral against negative, ``Non0`` leaves labels of exactly zero out. ``Corr``
    is 0 where predictions or labels are constant and correlation is undefined.

    Args:
        dataset: ``mosi``, ``mosei`` or ``sims``.
        predictions: [N]
        labels: [N]
    """
    predictions, labels = predictions.astype(np.float32).ravel(), labels.astype(np.float32).ravel()
    if dataset == "sims":  # MMSA clips before every metric of SIMS, MAE and Corr included
        predictions, labels = predictions.clip(-1, 1), labels.clip(-1, 1)
    shared = {
        "MAE": float(np.abs(predictions - labels).mean(dtype=np.float64)),
        "Corr": _correlation(predictions, labels),
    }
    metrics = _sims(predictions, labels) if dataset == "sims" else _mosi(predictions, labels)
    return {name: (metrics | shared)[name] for name in METRIC_NAMES[dataset]}


def _mosi(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    decided = labels != 0
    metrics = {
        f"Mult_acc_{2 * bound + 1}": _agreement(
            predictions.clip(-bound, bound).round(), labels.clip(-bound, bound).round()
        )
        for bound in (2, 3)
    }
    for name, predicted, true in (
        ("Has0", predictions >= 0, labels >= 0),
        ("Non0", predictions[decided] > 0, labels[decided] > 0),
    ):
        metrics[f"{name}_acc_2"] = _agreement(predicted, true)
        metrics[f"{name}_F1_score"] = _weighted_f1(true, predicted)
    return metrics


def _sims(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    classes = {
        count: (np.searchsorted(edges, predictions), np.searchsorted(edges, labels))
        for count, edges in _SIMS_BOUNDS.items()
    }
    metrics = {f"Mult_acc_{count}": _agreement(*pair) for count, pair in classes.items()}
    predicted, true = classes[2]
    return metrics | {"F1_score": _weighted_f1(true, predicted)}


def _agreement(predicted: np.ndarray, true: np.ndarray) -> float:
    return float((predicted == true).mean()) if len(true) else 0.0


def _weighted_f1(true: np.ndarray, predicted: np.ndarray) -> float:
    # Here, because it takes half a second, and a search's driver needs the names of metrics alone.
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, average="weighted", zero_division=0)) if len(true) else 0.0


def _correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:  # their standard deviation need not come out as 0
        return 0.0
    return float(np.corrcoef(predictions, labels)[0, 1])
