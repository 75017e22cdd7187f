"""Trials of one setting, and trials that repeat one another: each setting counts once, each training once."""

from collections.abc import Iterable, Mapping

from optuna.trial import FrozenTrial, TrialState

from deepmlf.training.effective import EffectiveSetting
from deepmlf.tune.experiment.stored import StoredExperiment


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
    """An experiment's settings by the mean of the first objective over their complete trials, best first.

    Returns:
        The complete trials of each setting, best first, each training once.
    """
    complete = [trial for trial in experiment.trials() if trial.state == TrialState.COMPLETE]
    settings = settings_of(experiment, complete)
    repeats = repeats_of(settings, complete)
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in complete:
        if trial.number in settings and trial.number not in repeats:
            groups.setdefault(settings[trial.number].key, []).append(trial)
    is_highest_best = experiment.objectives[0].direction == "maximize"
    ranked = sorted(groups.values(), key=_mean, reverse=is_highest_best)
    return [sorted(group, key=lambda trial: trial.values[0], reverse=is_highest_best) for group in ranked]


def _mean(trials: list[FrozenTrial]) -> float:
    return sum(trial.values[0] for trial in trials) / len(trials)
