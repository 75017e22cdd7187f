"""Settings as points of a unit cube, for models that compare them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

Number = FloatDistribution | IntDistribution
_ABSENT = 0.5  # where a number stands that a setting does not have
_APART = math.sqrt(0.5)  # of a category's column: two categories are 1 apart, as a range's two ends are


def place_of(distribution: Number, value: float) -> float:
    """Where a value lies in its range, from 0 to 1, on a logarithmic scale if it was drawn on one."""
    low, high, value = (_scaled(distribution, of) for of in (distribution.low, distribution.high, value))
    return (value - low) / (high - low) if high > low else _ABSENT


def value_at(distribution: Number, place: float) -> float:
    """The value at a place from 0 to 1; of a range with steps each value has an equal share of it."""
    low, high, step = distribution.low, distribution.high, distribution.step
    first, last = _scaled(distribution, low), _scaled(distribution, high)
    if step is not None and not distribution.log:
        count = round((high - low) / step) + 1
        value = low + step * min(int(place * count), count - 1)
    else:
        value = first + place * (last - first)
        value = math.exp(value) if distribution.log else value
    value = min(max(value, low), high)
    return round(value) if isinstance(distribution, IntDistribution) else float(value)


def _scaled(distribution: Number, value: float) -> float:
    return math.log(value) if distribution.log else float(value)


class Encoding:
    """Columns for the parameters of settings: one for a number, one per choice for a category.

    What a setting does not have, as another one decides that it makes no sense, stands in the middle.

    Args:
        drawn: The distributions of each setting that is to be known; ranges that differ are united.
    """

    def __init__(self, drawn: Iterable[Mapping[str, BaseDistribution]]) -> None:
        self._distributions: dict[str, BaseDistribution] = {}
        for distributions in drawn:
            for name, distribution in distributions.items():
                known = self._distributions.get(name)
                self._distributions[name] = distribution if known is None else _united(known, distribution)
        widths = [len(d.choices) if isinstance(d, CategoricalDistribution) else 1 for d in self._distributions.values()]
        self._starts = dict(zip(self._distributions, np.cumsum([0, *widths[:-1]]).tolist(), strict=True))
        self.groups = np.repeat(np.arange(len(widths)), widths)
        """Which parameter each column belongs to."""

    def encode(self, settings: Sequence[Mapping[str, Any]]) -> np.ndarray:
        """Each setting's place [settings, columns]; parameters that are not known are left out."""
        places = np.full((len(settings), len(self.groups)), _ABSENT)
        for row, setting in zip(places, settings, strict=True):
            for name, distribution in self._distributions.items():
                start = self._starts[name]
                if isinstance(distribution, CategoricalDistribution):
                    row[start : start + len(distribution.choices)] = 0.0
                    if name in setting:
                        row[start + int(distribution.to_internal_repr(setting[name]))] = _APART
                elif isinstance(distribution, Number) and name in setting:
                    row[start] = place_of(distribution, setting[name])
        return places


def _united(first: BaseDistribution, second: BaseDistribution) -> BaseDistribution:
    """A distribution with the values of both, for encoding only."""
    if isinstance(first, CategoricalDistribution) and isinstance(second, CategoricalDistribution):
        return CategoricalDistribution((*first.choices, *(c for c in second.choices if c not in first.choices)))
    if isinstance(first, FloatDistribution) and isinstance(second, FloatDistribution):
        return FloatDistribution(*_range(first, second), log=first.log and second.log)
    if isinstance(first, IntDistribution) and isinstance(second, IntDistribution):
        return IntDistribution(*_range(first, second), log=first.log and second.log)
    return first


def _range(first: Number, second: Number) -> tuple[Any, Any]:
    return min(first.low, second.low), max(first.high, second.high)
