"""Means compared at once."""

import numpy as np
import pytest

from deepmlf.analysis.statistics.comparison import differ


def test_the_reach_is_tukeys() -> None:
    """Three groups of three, variance 1: the studentised range is 4.339 at 95 % and 6 degrees of freedom."""
    reach = 4.339 / 3**0.5
    for gap, is_apart in ((reach - 0.01, False), (reach + 0.01, True)):
        groups = [[0.0, 1.0, 2.0], [0.5, 1.5, 2.5], [gap, 1 + gap, 2 + gap]]
        assert differ(groups, best=0, confidence=0.95) == [False, False, is_apart]


def test_a_group_that_varies_more_is_held_to_its_own_spread() -> None:
    groups = [[0.0, 0.1, 0.2], [0.1, 0.2, 0.3], [0.0, 0.2, 0.1], [0.0, 3.0, 6.0]]
    assert differ(groups, best=0, confidence=0.95) == [False] * 4
    steady = [*groups[:3], [2.9, 3.0, 3.1]]
    assert differ(steady, best=0, confidence=0.95) == [False, False, False, True]


@pytest.mark.parametrize("sizes", [(3, 3), (3, 5, 4)])
def test_groups_of_unequal_size_without_spread_are_not_told_apart(sizes: tuple[int, ...]) -> None:
    assert not any(differ([[float(index)] * size for index, size in enumerate(sizes)], best=0, confidence=0.95))
    assert any(
        differ([(index + np.linspace(0, 0.1, size)).tolist() for index, size in enumerate(sizes)], 0, confidence=0.95)
    )
