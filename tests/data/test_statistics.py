"""Mean and standard deviation of features, a few features at a time."""

import numpy as np

from deepmlf.data.statistics import mean_and_std, odd_features

DIM = 37  # more than a block, and no multiple of one


def sequences() -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    found = [generator.normal(5, 3, (int(n), DIM)).astype(np.float32) for n in generator.integers(0, 9, 60)]
    for frames in found:
        frames[:, 36] = 2
    return found


def test_the_statistics_are_those_of_all_frames_at_once() -> None:
    together = np.concatenate(sequences()).astype(np.float64)
    mean, std = mean_and_std(sequences(), DIM)
    assert mean == together.mean(0).tolist()
    assert std == [*together.std(0)[:36], 1.0]  # one that never changes is not scaled


def test_without_frames_nothing_is_scaled() -> None:
    assert mean_and_std([np.zeros((0, 2))], 2) == ([0, 0], [1, 1])
    assert odd_features([], 2) == []


def test_the_oddest_value_is_found_where_it_is() -> None:
    found = sequences()
    row = next(row for row, frames in enumerate(found) if row > 20 and len(frames) > 3)
    found[row][3, 20] = -1e9
    (odd,) = odd_features(found, DIM)
    assert (odd.feature, odd.row, odd.frame, odd.value) == (20, row, 3, -1e9)
    assert odd.std > 1e6 > 4 > odd.std_of_others > 2
