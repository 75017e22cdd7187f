"""Audiovisual stages that trials share: training one is cost that no fidelity counts, and trials may do with another's.

Drawn from continuous ranges no two are the same. So most new trials take over the stage that is nearest to their own
among those trained so far; the others train one, so that the choice grows.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution

from deepmlf.config.trial import TrialConfig
from deepmlf.training.curriculum import stages_of
from deepmlf.training.stores.av_key import is_of_fusion, is_of_stage, key_of
from deepmlf.tune.decide.encoding import Number, place_of
from deepmlf.tune.experiment.study import is_in_range

SHARE = 0.75
"""Of the trials whose stage would be a new one, how many take over another's."""


@dataclass
class SharedStages:
    """The stages of a search's trials."""

    _known: dict[str, tuple[set[int], dict[str, Any]]] = field(default_factory=dict)  # its trials, what decides

    def add(self, number: int, config: TrialConfig, overrides: Mapping[str, Any]) -> None:
        """Take note of a trial's stage, if it has one."""
        key = _key_of(config)
        if key is not None:
            self._known.setdefault(key, (set(), _deciding(overrides, config)))[0].add(number)

    def nearest(
        self,
        config: TrialConfig,
        overrides: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        trained: Collection[int],
    ) -> dict[str, Any] | None:
        """What decides on the nearest stage that is trained, and takes nothing from fusion that is drawn for it.

        Args:
            config: Of a trial to come.
            overrides: What its space made of its parameters.
            distributions: Of the parameters.
            trained: Trials that are through with their stage.

        Returns:
            Values for some of the parameters; None if the trial has no such stage, or one that is known.
        """
        key = _key_of(config)
        if key is None or key in self._known:
            return None
        own = _deciding(overrides, config)
        fusions = {name: value for name, value in own.items() if is_of_fusion(name)}
        among = [
            values
            for numbers, values in self._known.values()
            if not numbers.isdisjoint(trained) and all(values.get(name) == value for name, value in fusions.items())
        ]
        if not among:
            return None
        distances = [_distance(own, values, distributions) for values in among]
        return among[int(np.argmin(distances))]


def _key_of(config: TrialConfig) -> str | None:
    first = stages_of(config)[0]
    return json.dumps(key_of(config, first, ""), sort_keys=True) if first.is_av_alone else None


def _deciding(overrides: Mapping[str, Any], config: TrialConfig) -> dict[str, Any]:
    return {name: value for name, value in overrides.items() if is_of_stage(name, config)}


def _apart(distribution: BaseDistribution, mine: Any, other: Any) -> float:
    values = mine, other
    if not isinstance(distribution, Number) or not all(isinstance(value, (int, float)) for value in values):
        return float(mine != other)
    if not all(is_in_range(distribution, value) for value in values):
        return float(mine != other)
    return abs(place_of(distribution, mine) - place_of(distribution, other))


def _distance(own: Mapping[str, Any], other: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> float:
    """Mean over the parameters that decide: of a number the share of its range, of others whether they differ."""
    apart = []
    for name in own:
        distribution = distributions.get(name)
        if distribution is None:
            continue  # it follows from others
        apart.append(_apart(distribution, own[name], other.get(name)))
    return sum(apart) / max(1, len(apart))
