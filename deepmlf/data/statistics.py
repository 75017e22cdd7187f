"""What scales features: mean and standard deviation, and the features in which a few odd values decide both."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_STD_FLOOR = 1e-6  # a feature that never changes is not scaled up to noise
_BLOCK = 16  # features at a time: in float64, all of them would need more memory than the pickle
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
    means, stds = np.zeros(dim), np.ones(dim)
    for start, values in _blocks(sequences, dim):
        part, std = slice(start, start + values.shape[1]), values.std(0)
        means[part], stds[part] = values.mean(0), np.where(std < _STD_FLOOR, 1.0, std)
    return means.tolist(), stds.tolist()


def odd_features(sequences: Sequence[np.ndarray], dim: int) -> list[OddFeature]:
    """The features that a few values scale, by the range that all others lie in.

    A feature that is the same in nearly all frames is none: it may be one that is rarely active.

    Args:
        sequences: Arrays [frames, dim].
        dim: Features.
    """
    found = []
    ends = np.cumsum([len(frames) for frames in sequences])
    for start, values in _blocks(sequences, dim):
        odd = max(1, len(values) // _ODD_SHARE)
        if len(values) <= 2 * odd:
            continue
        ordered = np.partition(values, (odd, len(values) - odd - 1), axis=0)
        usual = ordered[len(values) - odd - 1] - ordered[odd]
        std = values.std(0)
        for column in np.flatnonzero((usual > 0) & (std > _SQUEEZED * usual)):
            worst = int(np.abs(values[:, column] - np.median(values[:, column])).argmax())
            row = int(np.searchsorted(ends, worst, side="right"))
            others = np.sort(values[:, column])[odd : len(values) - odd].std()
            frame = worst - int(ends[row] - len(sequences[row]))
            value = float(values[worst, column])
            found.append(OddFeature(start + int(column), float(std[column]), float(others), row, frame, value))
    return found


def _blocks(sequences: Sequence[np.ndarray], dim: int) -> Iterator[tuple[int, np.ndarray]]:
    """The first feature of each block, and the block's values [frames of all sequences, features], float64."""
    filled = [frames for frames in sequences if len(frames)]
    for start in range(0, dim if filled else 0, _BLOCK):
        part = slice(start, start + _BLOCK)
        yield start, np.concatenate([frames[:, part] for frames in filled]).astype(np.float64)
