"""The HParams columns of a search: what its trials differ in, and the metrics they are compared by."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from deepmlf.config.trial import TrialConfig
from deepmlf.data.task import Task
from deepmlf.events.dashboard import EVENTS_FILE, Parameter, hparams_columns, write_dashboard
from deepmlf.training.metrics import metric_names
from deepmlf.training.reports import VALID
from deepmlf.tune.objective import Objective
from deepmlf.tune.space.bound import BoundSpace

_DRAWS = 200  # settings drawn to see what a space searches, its conditional parameters included


def write_columns(trials: Path, space: BoundSpace, objectives: tuple[Objective, ...], task: Task) -> None:
    """Write what TensorBoard shows of the search beside its trials, once.

    Args:
        trials: The folder of trials.
        space: What is searched.
        objectives: They come first.
        task: The dataset's.
    """
    if (trials / EVENTS_FILE).exists():  # a resume need not draw again to find what trials differ in
        return
    first = [objective.short for objective in objectives if objective.name.startswith(VALID)]
    parameters, config = parameters_of(space), space.base.config
    drawn = {parameter.name for parameter in parameters}
    write_dashboard(
        trials,
        first,
        lambda: [hparams_columns(parameters, [objective.name for objective in objectives], metric_names(task))],
        has_gates=config.model.gate != "none" or "model.gate" in drawn,
        has_language=config.training.language_loss or "training.language_loss" in drawn,
    )


def shown_settings(config: TrialConfig, names: Iterable[str]) -> dict[str, Any]:
    """What settings are in a trial's configuration: a whole number drawn for a fraction is one there."""
    settings = config.flat()
    return {name: settings[name] for name in names}


def parameters_of(space: BoundSpace) -> list[Parameter]:
    """What trials of a space differ in, with types and ranges: found by drawing, as a space may derive settings."""
    sampler = optuna.samplers.RandomSampler(seed=0)
    drawn: dict[str, list[Any]] = {}
    ranges: dict[str, BaseDistribution] = {}
    for _ in range(_DRAWS):
        trial = optuna.create_study(sampler=sampler).ask()
        try:
            overrides = space.sample(trial)
            settings = shown_settings(TrialConfig.from_overrides(space.base.overrides, overrides), overrides)
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
