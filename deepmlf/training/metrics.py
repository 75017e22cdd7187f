"""Metrics by task: of published datasets by MMSA's definitions, of others the usual ones."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import numpy as np

from deepmlf.data.own_metrics import OwnMetrics
from deepmlf.data.task import METRICS_OF, Direction, Task

ATTENTION = "attention/"
"""Section of a report that has a list over frames for each MM block."""
LOWER_IS_BETTER = frozenset({"MAE", "RMSE", "cross_entropy", "trained_parameters"})
CONTINUOUS = frozenset({"MAE", "RMSE", "cross_entropy"})
"""Metrics that two trainings do not have in common by chance; accuracies, and a correlation that is undefined, are."""
SENTIMENT_CLASSES = ("negative", "neutral", "positive")
_SIMS_BOUNDS = {
    count: np.array(bounds, np.float32)  # as MMSA compares them: in float64, float32's 0.1 lies above 0.1
    for count, bounds in {2: [0.0], 3: [-0.1, 0.1], 5: [-0.7, -0.1, 0.1, 0.7]}.items()
}
"""Upper bounds of the classes of SIMS, inclusive, by the number of classes."""


def metric_names(task: Task) -> tuple[str, ...]:
    """The metrics of a task, the user's own last."""
    return METRICS_OF[task.metrics] + tuple(task.own)


def main_metric(task: Task) -> str:
    """What trials are compared by unless another metric is asked for."""
    return "weighted_F1" if task.is_classification else "MAE"


def error_metric(task: Task) -> str:
    """What is nearest to the loss: the stage that trains one modality alone is judged by it."""
    return "cross_entropy" if task.is_classification else "MAE"


def direction_of(metric: str, own: Mapping[str, Direction] = MappingProxyType({})) -> Direction:
    """Which way a metric is better.

    Args:
        metric: With or without its section, as in ``valid/MAE``.
        own: The user's own; see `Task.own`.
    """
    name = metric.rpartition("/")[2]
    return own.get(name) or ("minimize" if name in LOWER_IS_BETTER else "maximize")


def is_better(value: float, than: float | None, direction: Direction) -> bool:
    """Whether a value beats another one, or is the first."""
    return than is None or (value < than if direction == "minimize" else value > than)


def sentiment_classes(task: Task, values: np.ndarray) -> list[str]:
    """``negative``, ``neutral`` or ``positive`` for each of [N] numbers: by the side of the middle of the range that it
    is on, for SIMS by Mult_acc_3's bounds."""
    values = values.astype(np.float32)
    if task.metrics == "sims":
        classes = np.searchsorted(_SIMS_BOUNDS[3], values)
    else:
        classes = np.sign(values - np.float32(task.middle)).astype(int) + 1
    return [SENTIMENT_CLASSES[index] for index in classes]


def compute_metrics(
    task: Task,
    predictions: np.ndarray,
    labels: np.ndarray,
    own: OwnMetrics | None = None,
    *,
    may_be_undefined: bool = False,
) -> dict[str, float]:
    """All metrics of a task, unrounded.

    MOSI and MOSEI: ``Has0`` counts zero as positive-or-neutral against negative, ``Non0`` leaves labels of exactly zero
    out. Other numbers: ``acc_2`` and ``F1_score`` (weighted) are of the side of the range's middle, labels of exactly
    the middle left out. ``Corr`` is Pearson's, 0 where predictions or labels are constant and it is undefined.

    Classes: the likeliest one counts. ``weighted_F1`` weighs classes by how often they are labels, ``macro_F1`` all
    that occur as labels or predictions alike; ``cross_entropy`` is in nats.

    Args:
        task: The task.
        predictions: As `Task.values` gives them: numbers [N], or probabilities [N, classes].
        labels: [N]
        own: The user's, if there are any.
        may_be_undefined: Leave out those of the user's that are not finite, as a correlation with a constant is not.

    Raises:
        DataError: If one of the user's own cannot be computed.
    """
    if task.is_classification:
        metrics = _of_classes(predictions, labels.astype(int).ravel())
    else:
        metrics = _of_numbers(task, predictions.astype(np.float32).ravel(), labels.astype(np.float32).ravel())
    found = {name: metrics[name] for name in METRICS_OF[task.metrics]}
    return found if own is None else found | own.compute(predictions, labels, may_be_undefined=may_be_undefined)


def _of_numbers(task: Task, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    if task.metrics == "sims":  # MMSA clips before every metric of SIMS, MAE and Corr included
        predictions, labels = predictions.clip(-1, 1), labels.clip(-1, 1)
    errors = predictions - labels
    own = {"mosi": _mosi, "sims": _sims}.get(task.metrics)
    return {
        "MAE": float(np.abs(errors).mean(dtype=np.float64)),
        "RMSE": float(np.sqrt(np.square(errors).mean(dtype=np.float64))),
        "Corr": _correlation(predictions, labels),
    } | (own(predictions, labels) if own else _sides(predictions - task.middle, labels - task.middle))


def _of_classes(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    predicted = probabilities.argmax(axis=1)
    likelihoods = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return {
        "accuracy": _agreement(predicted, labels),
        "weighted_F1": _f1(labels, predicted),
        "macro_F1": _f1(labels, predicted, "macro"),
        "cross_entropy": float(-np.log(np.maximum(likelihoods, np.finfo(np.float32).tiny)).mean()),
    }


def _sides(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    decided = labels != 0
    predicted, true = predictions[decided] > 0, labels[decided] > 0
    return {"acc_2": _agreement(predicted, true), "F1_score": _f1(true, predicted)}


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
        metrics[f"{name}_F1_score"] = _f1(true, predicted)
    return metrics


def _sims(predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    classes = {
        count: (np.searchsorted(edges, predictions), np.searchsorted(edges, labels))
        for count, edges in _SIMS_BOUNDS.items()
    }
    metrics = {f"Mult_acc_{count}": _agreement(*pair) for count, pair in classes.items()}
    predicted, true = classes[2]
    return metrics | {"F1_score": _f1(true, predicted)}


def _agreement(predicted: np.ndarray, true: np.ndarray) -> float:
    return float((predicted == true).mean()) if len(true) else 0.0


def _f1(true: np.ndarray, predicted: np.ndarray, average: Literal["weighted", "macro"] = "weighted") -> float:
    # Here, because it takes half a second, and a search's driver needs the names of metrics alone.
    from sklearn.metrics import f1_score

    return float(f1_score(true, predicted, average=average, zero_division=0)) if len(true) else 0.0


def _correlation(predictions: np.ndarray, labels: np.ndarray) -> float:
    if np.ptp(predictions) == 0 or np.ptp(labels) == 0:  # their standard deviation need not come out as 0
        return 0.0
    return float(np.corrcoef(predictions, labels)[0, 1])
