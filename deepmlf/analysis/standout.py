"""Does a setting stand out from chance? What importances are shown only after."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

SIGNIFICANCE = 0.01
"""How often a setting may stand out where none matters. One in a hundred and not one in twenty: of worlds in which a
setting matters little, too, most that name one are to name the right one."""
_PERMUTATIONS = 2000
_PARTS, _FEW = 3, 4  # numbers that took more than a few values are parted at their quantiles


def standout(
    drawn: Sequence[Mapping[str, Any]], values: Sequence[float], names: Sequence[str], seed: int
) -> str | None:
    """The setting by whose values an objective differs most, if it does so more than chance would have it.

    Of each setting the Kruskal-Wallis test is made over its values (numbers in three parts of about the same size; a
    trial without it is a part of its own). The smallest of the p-values is held against the smallest ones of permuted
    objectives, so that it does not count how many settings there are, nor how they go together.

    >>> drawn = [{"depth": index % 3, "rate": index / 7 % 1} for index in range(24)]
    >>> standout(drawn, [trial["depth"] + trial["rate"] / 10 for trial in drawn], ["depth", "rate"], seed=0)
    'depth'
    >>> standout(drawn, [index % 5 for index in range(24)], ["depth", "rate"], seed=0)

    Args:
        drawn: What each trial drew, by names.
        values: Its objective.
        names: Settings to look at.
        seed: Of the permutations.
    """
    ranks = stats.rankdata(values) - (len(values) + 1) / 2
    if not ranks.any():
        return None
    generator = np.random.default_rng(seed)
    permuted = np.stack([ranks, *(generator.permutation(ranks) for _ in range(_PERMUTATIONS))])
    found: dict[str, np.ndarray] = {}
    for name in names:
        member = _parts([trial.get(name) for trial in drawn])
        if member.shape[1] > 1:
            spread = ((permuted @ member) ** 2 / member.sum(0)).sum(1) / ranks.var(ddof=1)
            found[name] = stats.chi2.logsf(spread, member.shape[1] - 1)
    if not found:
        return None
    smallest = np.min(list(found.values()), axis=0)
    if np.mean(smallest <= smallest[0] + 1e-9) > SIGNIFICANCE:
        return None
    return min(found, key=lambda name: found[name][0])


def _parts(column: list[Any]) -> np.ndarray:
    """Which part of a column's values each trial is in, [trials, parts], as ones and zeros."""
    numbers = [value for value in column if isinstance(value, int | float)]
    if len(set(numbers)) > _FEW and len(numbers) + column.count(None) == len(column):
        cuts = np.quantile(numbers, np.arange(1, _PARTS) / _PARTS)
        labels = [None if value is None else int(np.searchsorted(cuts, value)) for value in column]
    else:
        labels = [None if value is None else str(value) for value in column]
    kinds = list(dict.fromkeys(labels))
    return np.array([[float(label == kind) for kind in kinds] for label in labels])
