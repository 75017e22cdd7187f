"""What scales features: mean and standard deviation, and the features in which a few odd values decide both."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from deepmlf.data.frames import blocks_of, lengths_of

_STD_FLOOR = 1e-6  # a feature that never changes is not scaled up to noise
_ODD_SHARE = 1000  # at most one in so many values, at either end, can be odd
_SQUEEZED = 10.0  # as many times wider than all other values together


@dataclass(frozen=True)
class OddFeature:
    """A feature whose scale a few values decide, so that all others become one and the same."""

    feature: int
    std: float
    std_of_others: float
    row: int
    """Of the oddest value, among the sequences given."""
    frame: int
    value: float


def mean_and_std(sequences: Sequence[np.ndarray], dim: int) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each feature over all frames; 1 for a feature that never changes.

    Args:
        sequences: Arrays [frames, dim].
        dim: Features.
    """
    mean, std = _moments(sequences, dim)
    return mean.tolist(), np.where(std < _STD_FLOOR, 1.0, std).tolist()


def odd_features(sequences: Sequence[np.ndarray], dim: int) -> list[OddFeature]:
    """The features that a few values scale, by the range that all others lie in.

    A feature that is the same in nearly all frames is none: it may be one that is rarely active.

    Args:
        sequences: Arrays [frames, dim].
        dim: Features.
    """
    lengths = lengths_of(sequences)
    count = sum(lengths)
    odd = max(1, count // _ODD_SHARE)
    if count <= 2 * odd:
        return []
    lowest, highest = _extremes(sequences, odd + 1)
    usual = highest.min(0) - lowest.max(0)
    std = _moments(sequences, dim)[1]
    ends, found = np.cumsum(lengths), []
    for column in np.flatnonzero((usual > 0) & (std > _SQUEEZED * usual)):
        values = np.concatenate([block[:, column] for block in blocks_of(sequences)]).astype(np.float64)
        worst = int(np.abs(values - np.median(values)).argmax())
        others = np.sort(values)[odd : count - odd].std()
        row = int(np.searchsorted(ends, worst, side="right"))
        frame = worst - int(ends[row] - lengths[row])
        found.append(OddFeature(int(column), float(std[column]), float(others), row, frame, float(values[worst])))
    return found


def _moments(sequences: Sequence[np.ndarray], dim: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, [dim]; 0 and 1 without a frame."""
    count = sum(lengths_of(sequences))
    if not count:
        return np.zeros(dim), np.ones(dim)
    mean = _sum(block.astype(np.float64) for block in blocks_of(sequences)) / count
    # Deviations, not squares: where values are large and alike, those would lose all digits.
    return mean, np.sqrt(_sum((block - mean) ** 2 for block in blocks_of(sequences)) / count)


def _sum(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """The sum over all rows, added up in the order of one array that holds them all."""
    total = None
    for block in blocks:
        if total is not None:
            block[0] += total
        total = block.sum(0)
    assert total is not None
    return total


def _extremes(sequences: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The smallest and the largest values of each feature in any order, [count, features] each; there are more."""
    lowest = highest = None
    for block in blocks_of(sequences):
        low = block if lowest is None else np.concatenate([lowest, block])
        high = block if highest is None else np.concatenate([highest, block])
        lowest = np.partition(low, count - 1, axis=0)[:count] if len(low) > count else low
        highest = np.partition(high, -count, axis=0)[-count:] if len(high) > count else high
    assert lowest is not None
    assert highest is not None
    return lowest.astype(np.float64), highest.astype(np.float64)
