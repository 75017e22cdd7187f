"""Means of several groups compared at once."""

from functools import lru_cache

import numpy as np
from scipy.stats import studentized_range


def differ(groups: list[list[float]], best: int, confidence: float) -> list[bool]:
    """Which groups have another mean than one of them that was picked by its mean, beyond what chance may do.

    As any of them might have been the one to be picked, all pairs count (Tukey and Kramer's honestly significant
    difference): where all means are equal, one of them is said to differ in ``1 - confidence`` of cases at most. The
    spread is that of all groups together, or that of the two where it is greater, so that a group that varies more than
    the others is not taken for a different one. A seed that does the same to all groups only makes it stricter.

    >>> differ([[1.0, 1.1, 0.9], [1.1, 1.0, 1.2], [2.0, 2.1, 1.9]], best=0, confidence=0.95)
    [False, False, True]

    Args:
        groups: Values of each, two at least.
        best: Index of the one that the others are compared with.
        confidence: Of all comparisons together.
    """
    sizes = np.array([len(values) for values in groups])
    means = np.array([np.mean(values) for values in groups])
    spreads = np.array([np.var(values, ddof=1) for values in groups])
    freedom = float(sizes.sum() - len(groups))
    pooled = (spreads * (sizes - 1)).sum() / freedom
    if pooled == 0:  # of a metric that takes few values it may be by chance
        return [False] * len(groups)
    errors = np.maximum(pooled / sizes + pooled / sizes[best], spreads / sizes + spreads[best] / sizes[best])
    reach = _reach(confidence, len(groups), freedom)
    return [bool(apart) for apart in np.abs(means - means[best]) > reach * np.sqrt(errors)]


@lru_cache
def _reach(confidence: float, groups: int, freedom: float) -> float:
    """Standard errors that two means are apart at least; found by integrating numerically, which takes a while."""
    return float(studentized_range.ppf(confidence, groups, freedom) / np.sqrt(2))
