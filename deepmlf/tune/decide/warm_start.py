"""Warm start: what an earlier experiment found out, given to the sampler of a new one."""

import warnings

from optuna.distributions import BaseDistribution
from optuna.study import Study
from optuna.trial import FixedTrial, FrozenTrial, TrialState, create_trial

from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment
from deepmlf.tune.experiment.study import WARM_START, is_in_range
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.bound import BoundSpace


def fitting_trials(
    place: Place, settings: SearchSettings, space: BoundSpace, fingerprint: str, language_model: str | None = None
) -> list[FrozenTrial]:
    """The finished trials of an earlier experiment as trials of a new one, told at their fidelity.

    A trial fits if the new space, asked for its parameters, wants the same names with values in range. What was a full
    trial of fewer epochs is one that was stopped early here.

    Args:
        place: Of the earlier experiment.
        settings: The new search.
        space: The new search's space.
        fingerprint: Of the new search's dataset.
        language_model: Fingerprint of its language model, if it is known.

    Raises:
        SearchError: If it is no experiment, optimised something else, or none of its trials fits.
    """
    experiment = _comparable(place, settings, fingerprint, language_model)
    finished = [trial for trial in experiment.trials() if _is_told(trial)]
    if not finished:
        raise SearchError(f"--warm-start {place}: has no finished trial yet")
    is_shorter = experiment.manifest.settings.epochs < settings.epochs
    fitting, misfit = [], ""
    for trial in finished:
        try:
            distributions = _distributions(space, trial)
        except ValueError as error:
            misfit = misfit or f"trial {trial.number}: {error}"
            continue
        state = TrialState.PRUNED if is_shorter and len(settings.objectives) == 1 else trial.state
        fitting.append(
            create_trial(
                state=state,
                values=trial.values if state == TrialState.COMPLETE else None,
                params=trial.params,
                distributions=distributions,
                user_attrs={WARM_START: f"{experiment.folder.name}/{trial.number}"},
                intermediate_values=trial.intermediate_values,
            )
        )
    if not fitting:
        raise SearchError(
            f"--warm-start {place}: none of its {len(finished)} trials fits the space {space.name} ({misfit})"
        )
    return fitting


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
    if earlier.lm != settings.lm:
        raise SearchError(f"{refused}ran on {earlier.lm}; its values say nothing about {settings.lm}")
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


def _distributions(space: BoundSpace, trial: FrozenTrial) -> dict[str, BaseDistribution]:
    """What the space says about each of a trial's parameters; ValueError if it would never have drawn them."""
    fixed = FixedTrial(trial.params, number=trial.number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of range, which are refused below
        try:
            space.sample(fixed)
        except Exception:  # Optuna's, for a name that the trial lacks, or a user's space's
            raise ValueError(f"the space asks for more than {', '.join(sorted(trial.params))}") from None
    for name in sorted(trial.params.keys() - fixed.distributions.keys()):
        raise ValueError(f"{name} is not searched")
    for name, distribution in fixed.distributions.items():
        if not is_in_range(distribution, trial.params[name]):
            raise ValueError(f"{name}={trial.params[name]} is outside of {distribution}")
    return fixed.distributions
