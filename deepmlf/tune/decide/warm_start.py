"""Warm start: what an earlier experiment found out, given to the sampler of a new one."""

import json
import warnings
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment
from deepmlf.tune.experiment.study import OVERRIDES, WARM_START, is_in_range
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.bound import BoundSpace

_MAY_DIFFER = {
    "data.path", "model.language_model", "training.epochs", "training.seed", "training.device", "training.select_by",
}  # fmt: skip
"""Settings by which trials may differ and still be compared: where things are, and what is compared by itself."""


def fitting_trials(
    place: Place, settings: SearchSettings, space: BoundSpace, fingerprint: str, language_model: str | None = None
) -> tuple[list[FrozenTrial], str]:
    """The finished trials of an earlier experiment as trials of a new one, told at their fidelity.

    A trial fits if the new space, asked for its parameters, wants the same names with values in range and makes the
    same setting of them. Where trials trained for another number of epochs, each stands for one that was stopped early,
    with what it reported in the epochs that there are here.

    Args:
        place: Of the earlier experiment.
        settings: The new search.
        space: The new search's space.
        fingerprint: Of the new search's dataset.
        language_model: Fingerprint of its language model, if it is known.

    Returns:
        The trials, and a line that says how many they are and why others are left out.

    Raises:
        SearchError: If it is no experiment, optimised something else, or none of its trials fits.
    """
    experiment = _comparable(place, settings, fingerprint, language_model)
    finished = [trial for trial in experiment.trials() if _is_told(trial)]
    if not finished:
        raise SearchError(f"--warm-start {place}: has no finished trial yet")
    fitting, misfit = [], ""
    for trial in finished:
        try:
            distributions, overrides = _asked(space, trial)
            _check_same_setting(experiment, trial, space, overrides)
            told = _told(experiment, trial, settings)
        except ValueError as error:
            misfit = misfit or f"trial {trial.number}: {error}"
            continue
        fitting.append(
            create_trial(
                params=trial.params,
                distributions=distributions,
                user_attrs={OVERRIDES: json.dumps(overrides), WARM_START: f"{experiment.folder.name}/{trial.number}"},
                **told,
            )
        )
    if not fitting:
        raise SearchError(
            f"--warm-start {place}: none of its {len(finished)} trials fits the space {space.name} ({misfit})"
        )
    others = f"; the others do not fit ({misfit})" if misfit else ""
    return fitting, f"{len(fitting)} of {len(finished)} trials of {settings.warm_start} guide the sampler{others}"


def _told(experiment: StoredExperiment, trial: FrozenTrial, settings: SearchSettings) -> dict[str, Any]:
    """State and values of a trial in a search of maybe other epochs; ValueError if it came to nothing in those."""
    if experiment.manifest.settings.epochs == settings.epochs:
        return {"state": trial.state, "values": trial.values, "intermediate_values": trial.intermediate_values}
    reported = {step: value for step, value in trial.intermediate_values.items() if step <= settings.epochs}
    if not reported:
        raise ValueError(f"has no value of the first {settings.epochs} epochs")
    best = experiment.objectives[0].best(reported.values())
    return {"state": TrialState.PRUNED, "values": [best], "intermediate_values": reported}


def _check_same_setting(
    experiment: StoredExperiment, trial: FrozenTrial, space: BoundSpace, overrides: dict[str, Any]
) -> None:
    """Raise ValueError, with the first setting that differs, if a trial trained something else than it would here."""
    there = experiment.config_of(trial).flat()
    here = space.config_of(overrides).flat()
    for name, value in there.items():
        if name not in _MAY_DIFFER and value != here[name]:
            raise ValueError(f"{name} was {value!r} there and is {here[name]!r} here")


def _comparable(
    place: Place, settings: SearchSettings, fingerprint: str, language_model: str | None
) -> StoredExperiment:
    """The earlier experiment, whose values say something about the new search's settings."""
    refused = f"--warm-start {place}: "
    try:
        experiment = open_experiment(place)
    except SearchError as error:
        raise SearchError(f"--warm-start {error}") from None
    manifest, earlier = experiment.manifest, experiment.manifest.settings
    if earlier.objectives != settings.objectives:
        raise SearchError(
            f"{refused}optimised {','.join(earlier.objectives)}, this search optimises "
            f"{','.join(settings.objectives)}; choose the same --objective"
        )
    if manifest.data_fingerprint != fingerprint:
        raise SearchError(f"{refused}ran on another dataset ({earlier.data}); its values say nothing about this one")
    if len(settings.objectives) > 1 and earlier.epochs != settings.epochs:
        raise SearchError(
            f"{refused}trained for {earlier.epochs} epochs, this search for {settings.epochs}; "
            "values of two objectives compare at equal --epochs only"
        )
    if earlier.all_lms != settings.all_lms:
        there, here = ", ".join(earlier.all_lms), ", ".join(settings.all_lms)
        raise SearchError(f"{refused}ran on {there}; its values say nothing about {here}")
    known = manifest.language_model_fingerprint
    if None not in (known, language_model) and known != language_model:
        raise SearchError(f"{refused}ran on other weights of {settings.lm}; its values say nothing about these")
    return experiment


def add_trials(study: Study, trials: list[FrozenTrial]) -> None:
    """Add trials taken over from an earlier experiment, those that are there already left out."""
    known = {trial.user_attrs.get(WARM_START) for trial in study.get_trials(deepcopy=False)}
    study.add_trials([trial for trial in trials if trial.user_attrs[WARM_START] not in known])


def _is_told(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE or (trial.state == TrialState.PRUNED and bool(trial.intermediate_values))


def _asked(space: BoundSpace, trial: FrozenTrial) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
    """What the space says about each of a trial's parameters, and makes of them all.

    ValueError if it would never have drawn them.
    """
    fixed = FixedTrial(trial.params, number=trial.number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of range, which are refused below
        try:
            overrides = space.sample(fixed)
        except Exception:  # Optuna's, for a name that the trial lacks, or a user's space's
            raise ValueError(f"the space asks for more than {', '.join(sorted(trial.params))}") from None
    for name in sorted(trial.params.keys() - fixed.distributions.keys()):
        raise ValueError(f"{name} is not searched")
    for name, distribution in fixed.distributions.items():
        if not is_in_range(distribution, trial.params[name]):
            raise ValueError(f"{name}={trial.params[name]} is outside of {distribution}")
    return fixed.distributions, overrides
