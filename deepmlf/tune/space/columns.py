"""The HParams columns of a search: what its trials differ in, and the metrics they are compared by."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from deepmlf.config import TrialConfig
from deepmlf.events.dashboard import Parameter, hparams_columns, write_dashboard
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.training.metrics import METRIC_NAMES
from deepmlf.tune.objective import VALID, Objective
from deepmlf.tune.space.load import SearchSpace

_DRAWS = 200  # settings drawn to see what a space searches, its conditional parameters included


def write_columns(
    trials: Path,
    space: SearchSpace,
    base: Mapping[str, Any],
    lm: LanguageModelFacts,
    objectives: tuple[Objective, ...],
    dataset: str,
) -> None:
    """Write what TensorBoard shows of the search beside its trials, once.

    Args:
        trials: The folder of trials.
        space: What is searched.
        base: Overrides common to all trials.
        lm: Sizes of the language model in use.
        objectives: They come first.
        dataset: ``mosi``, ``mosei`` or ``sims``.
    """
    first = [objective.short for objective in objectives if objective.name.startswith(VALID)]
    metrics = list(dict.fromkeys([*first, *METRIC_NAMES[dataset]]))
    write_dashboard(trials, first, lambda: [hparams_columns(parameters_of(space, base, lm), metrics)])


def shown_settings(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What a trial's setting is in its configuration: a whole number drawn for a fraction is one."""
    settings = TrialConfig.from_overrides(base, overrides).flat()
    return {name: settings[name] for name in overrides}


def parameters_of(space: SearchSpace, base: Mapping[str, Any], lm: LanguageModelFacts) -> list[Parameter]:
    """What trials of a space differ in, with types and ranges: found by drawing, as a space may derive settings."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    drawn: dict[str, list[Any]] = {}
    ranges: dict[str, BaseDistribution] = {}
    for _ in range(_DRAWS):
        trial = optuna.create_study(sampler=sampler).ask()
        try:
            settings = shown_settings(base, space.sample(trial, lm))
        except Exception:  # a setting that cannot be trained is told when the search draws it
            continue
        ranges |= trial.distributions
        for name, value in settings.items():
            drawn.setdefault(name, []).append(value)
    return [_parameter(name, values, ranges.get(name)) for name, values in drawn.items()]


def _parameter(name: str, drawn: list[Any], distribution: Any) -> Parameter:
    values = drawn + [value for value in getattr(distribution, "choices", ()) if value is not None]
    kinds = {type(value) for value in values}
    if kinds <= {int, float}:
        low, high = getattr(distribution, "low", values[0]), getattr(distribution, "high", values[0])
        return Parameter(name, low=min(low, *values), high=max(high, *values))
    if kinds <= {str} or kinds <= {bool}:
        return Parameter(name, choices=tuple(sorted(set(values))))
    return Parameter(name)
