"""Does a setting stand out from chance? What importances are shown only after."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import betaincc
from scipy.stats import rankdata

SIGNIFICANCE = 0.01
"""How often a setting may stand out where none matters. One in a hundred and not one in twenty: of worlds in which a
setting matters little, too, most that name one are to name the right one."""
_BY_CHANCE = 0.95
_PERMUTATIONS = 2000
_ROUNDING = 1e-9
_FEW = 4  # numbers that took no more values than these are taken for categories


def standout(
    drawn: Sequence[Mapping[str, Any]], values: Sequence[float], names: Sequence[str], seed: int
) -> str | None:
    """The setting by whose values an objective differs most, if it does so more than chance would have it.

    The objective's ranks are explained by each setting alone: by a parabola over its ranks, or by its categories; a
    trial without it is a category of its own. The smallest of the p-values is held against the smallest ones of
    permuted objectives, so that it does not count how many settings there are, nor how they go together.

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
    explained, columns = _explained(drawn, values, names, seed)
    if not explained:
        return None
    # Of settings with as many columns the one that explains most has the smallest p-value.
    most = {count: np.max([explained[n] for n in columns if columns[n] == count], axis=0) for count in columns.values()}
    smallest = np.min([_p_value(shares, count, len(values)) for count, shares in most.items()], axis=0)
    if np.mean(smallest <= smallest[0] * (1 + _ROUNDING)) > SIGNIFICANCE:
        return None
    return min(explained, key=lambda name: float(_p_value(explained[name][0], columns[name], len(values))))


@dataclass(frozen=True)
class Effect:
    """How much of an objective one setting explains by itself."""

    name: str
    share: float
    """Of the variance of the objective's ranks, as `standout` explains them."""
    by_chance: float
    """The share that a setting with such values stays below in 95 % of permuted objectives."""


def effects(
    drawn: Sequence[Mapping[str, Any]], values: Sequence[float], names: Sequence[str], seed: int
) -> list[Effect]:
    """What each setting explains by itself beside what chance would have it explain, the furthest above that first.

    One of twenty settings that do not matter is above it; which of them all stands out, `standout` says. Settings are
    left out that take as many different values as there are trials and are no numbers.

    Args:
        drawn: What each trial drew, by names.
        values: Its objective.
        names: Settings to look at.
        seed: Of the permutations.
    """
    explained, _ = _explained(drawn, values, names, seed)
    found = [
        Effect(name, float(shares[0]), float(np.quantile(shares[1:], _BY_CHANCE))) for name, shares in explained.items()
    ]
    return sorted(found, key=lambda effect: effect.by_chance - effect.share)


def _explained(
    drawn: Sequence[Mapping[str, Any]], values: Sequence[float], names: Sequence[str], seed: int
) -> tuple[dict[str, np.ndarray], dict[str, int]]:
    """The share that each setting explains, of the objective and of each permutation of it, and its columns.

    Returns:
        Shares [1 + permutations] and numbers of columns, by names of settings that have few enough of these.
    """
    ranks = rankdata(values) - (len(values) + 1) / 2
    if not ranks.any():  # nothing to explain
        return {}, {}
    generator = np.random.default_rng(seed)
    permuted = np.vstack([ranks, generator.permuted(np.tile(ranks, (_PERMUTATIONS, 1)), axis=1)])
    explained: dict[str, np.ndarray] = {}
    columns: dict[str, int] = {}
    for name in names:
        basis = _basis([trial.get(name) for trial in drawn])
        if 0 < basis.shape[1] < len(ranks) - 1:
            explained[name] = np.minimum(((permuted @ basis) ** 2).sum(1) / (ranks @ ranks), 1.0)
            columns[name] = basis.shape[1]
    return explained, columns


def _p_value(explained: np.ndarray, columns: int, trials: int) -> np.ndarray:
    """How often so many columns explain so great a share of the variance by chance, of normal values."""
    return np.asarray(betaincc(columns / 2, (trials - 1 - columns) / 2, explained))


def _basis(column: list[Any]) -> np.ndarray:
    """What a setting's values may explain, as orthonormal columns [trials, columns] without a constant."""
    numbers = [value for value in column if isinstance(value, int | float)]
    is_numeric = len(set(numbers)) > _FEW and len(numbers) + column.count(None) == len(column)
    if is_numeric:
        absent = np.array([value is None for value in column])
        places = np.zeros(len(column))
        places[~absent] = rankdata(numbers) - (len(numbers) + 1) / 2
        parts = np.stack([places, places**2 * ~absent, absent], axis=1)
    else:
        parts = np.array([[value == kind for kind in dict.fromkeys(column)] for value in column], dtype=float)
    parts = parts - parts.mean(0)
    left, sizes, _ = np.linalg.svd(parts, full_matrices=False)
    return np.asarray(left[:, sizes > sizes.max() * _ROUNDING]) if sizes.max() > 0 else left[:, :0]
