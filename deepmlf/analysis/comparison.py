"""Means of several groups compared at once."""

import numpy as np
from scipy.stats import studentized_range

_CONFIDENCE = 0.95


def differ(groups: list[list[float]], best: int) -> list[bool]:
    """Which groups have another mean than one of them that was picked by its mean, beyond what chance may do.

    As any of them might have been the one to be picked, all pairs count: where all means are equal, one of them is said
    to differ in 5 % of cases at most. Two tests must agree: Tukey's honestly significant difference, whose spread is
    that of all groups together, and Games and Howell's, whose spread is that of the two, so that a group that varies
    more than the others is not taken for a different one.

    >>> differ([[1.0, 1.1, 0.9], [1.1, 1.0, 1.2], [2.0, 2.1, 1.9]], best=0)
    [False, False, True]

    Args:
        groups: Values of each, two at least.
        best: Index of the one that the others are compared with.
    """
    sizes = np.array([len(values) for values in groups])
    means = np.array([np.mean(values) for values in groups])
    spreads = np.array([np.var(values, ddof=1) for values in groups])
    freedom = float(sizes.sum() - len(groups))
    pooled = float((spreads * (sizes - 1)).sum() / freedom)
    found = []
    for index in range(len(groups)):
        gap, errors = abs(means[index] - means[best]), spreads[[index, best]] / sizes[[index, best]]
        tukey = np.sqrt(pooled * (1 / sizes[[index, best]]).sum())
        own = np.sqrt(errors.sum())
        own_freedom = errors.sum() ** 2 / (errors**2 / (sizes[[index, best]] - 1)).sum() if own > 0 else freedom
        found.append(
            index != best
            and bool(gap > _reach(len(groups), freedom) * tukey > 0)
            and bool(gap > _reach(len(groups), own_freedom) * own)
        )
    return found


def _reach(groups: int, freedom: float) -> float:
    """How many standard errors two means of so many may lie apart."""
    return float(studentized_range.ppf(_CONFIDENCE, groups, freedom)) / np.sqrt(2)
