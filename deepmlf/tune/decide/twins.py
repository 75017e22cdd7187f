"""Trials that train the same although their settings differ: in what has no effect, or none beside the rest.

All trials of a search share a seed, so that such trials have the same learning curve, bit for bit.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from deepmlf.training.metrics import CONTINUOUS
from deepmlf.training.reports import VALID

_EPOCHS = 2  # that agree before two trials are taken for the same
_AT_LEAST = 2  # twins, before something is concluded from how far apart they are

Beginning = tuple[tuple[int, float], ...]
"""The first fusion epochs of a curve and their values."""


def beginning(curve: Mapping[int, float]) -> Beginning | None:
    """What twins have in common; None of a curve that is too short to say.

    >>> beginning({1: 0.9, 2: 0.8, 3: 0.7})
    ((1, 0.9), (2, 0.8))
    """
    return tuple(sorted(curve.items())[:_EPOCHS]) if len(curve) >= _EPOCHS else None


def tells_apart(objective: str) -> bool:
    """Whether trainings that differ never report the same values; of an accuracy on some hundred labels they may."""
    return objective.removeprefix(VALID) in CONTINUOUS


class Twins:
    """Finds trials that train what another one has begun to train."""

    def __init__(self) -> None:
        self._first: dict[Beginning, int] = {}

    def has_another(self, number: int, curve: Mapping[int, float]) -> bool:
        """Whether another trial's curve began like this one's; if not, this one is known from now on."""
        begun = beginning(curve)
        return begun is not None and self._first.setdefault(begun, number) != number


def no_effect_within(places: np.ndarray, curves: Sequence[Mapping[int, float]]) -> float:
    """How far apart settings are that make no difference: the median distance from a twin to its nearest other.

    Args:
        places: Encoded settings [trials, columns].
        curves: What each trial has reported, by fusion epoch.

    Returns:
        0 as long as there are fewer than two twins.
    """
    known: dict[Beginning, list[int]] = {}
    distances = []
    for row, curve in enumerate(curves):
        begun = beginning(curve)
        if begun is None:
            continue
        others = known.setdefault(begun, [])
        if others:
            distances.append(float(np.linalg.norm(places[others] - places[row], axis=1).min()))
        others.append(row)
    return float(np.median(distances)) if len(distances) >= _AT_LEAST else 0.0
