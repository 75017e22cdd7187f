"""Trials of one setting, and trials that repeat one another: each setting counts once, each training once."""

from collections.abc import Iterable, Mapping

from optuna.trial import FrozenTrial, TrialState

from deepmlf.training.effective import EffectiveSetting
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.objective import best_first


def settings_of(experiment: StoredExperiment, trials: Iterable[FrozenTrial]) -> dict[int, EffectiveSetting]:
    """What trials train, by their numbers; those that no configuration could be made of are left out."""
    found = {trial.number: experiment.setting_of(trial) for trial in trials}
    return {number: setting for number, setting in found.items() if setting is not None}


def repeats_of(settings: Mapping[int, EffectiveSetting], trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Trials that train what another one trains, with the same seed, by number; and the number of that other one.

    That is the first of them that is complete, or the first of all.
    """
    groups: dict[EffectiveSetting, list[FrozenTrial]] = {}
    for trial in sorted(trials, key=lambda trial: (trial.state != TrialState.COMPLETE, trial.number)):
        if trial.number in settings:
            groups.setdefault(settings[trial.number], []).append(trial)
    return {trial.number: first.number for first, *others in groups.values() for trial in others}


def ranked_settings(experiment: StoredExperiment) -> list[list[FrozenTrial]]:
    """An experiment's settings by the mean of the first objective over their trials, best first.

    Trials that were stopped early count with their best epoch, as they do where the search names its best one.

    Returns:
        The trials of each setting, best first, each training once.
    """
    ranked = best_first(experiment.trials(), experiment.objectives)
    settings = settings_of(experiment, ranked)
    repeats = repeats_of(settings, ranked)
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in ranked:
        if trial.number in settings and trial.number not in repeats:
            groups.setdefault(settings[trial.number].key, []).append(trial)
    is_highest_best = experiment.objectives[0].direction == "maximize"
    return sorted(groups.values(), key=_mean, reverse=is_highest_best)


def _mean(trials: list[FrozenTrial]) -> float:
    return sum(trial.values[0] for trial in trials) / len(trials)
