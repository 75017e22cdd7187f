"""Warm start: what an earlier experiment found out, given to the sampler of a new one."""

import warnings
from pathlib import Path

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from deepmlf.errors import SearchError
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.experiment.remote import MANIFEST, open_experiment
from deepmlf.tune.experiment.study import WARM_START, open_study, own_trials
from deepmlf.tune.settings import SearchSettings, read_manifest
from deepmlf.tune.space.load import SearchSpace


def fitting_trials(
    place: str | Path, settings: SearchSettings, space: SearchSpace, lm: LanguageModelFacts, fingerprint: str
) -> list[FrozenTrial]:
    """The finished trials of an earlier experiment as trials of a new one, told at their fidelity.

    A trial fits if the new space, asked for its parameters, wants the same names with values in range. What was a full
    trial of fewer epochs is one that was stopped early here.

    Args:
        place: The earlier experiment's folder or URI.
        settings: The new search.
        space: The new search's space.
        lm: Sizes of the language model in use.
        fingerprint: Of the new search's dataset.

    Raises:
        SearchError: If it is no experiment, optimised something else, or none of its trials fits.
    """
    refused, experiment = f"--warm-start {place}: ", open_experiment(place)
    if not (experiment / MANIFEST).is_file():
        raise SearchError(f"{refused}not an experiment (no {MANIFEST} there)")
    manifest = read_manifest(experiment)
    earlier = manifest["settings"]
    if earlier["objectives"] != settings.objectives:
        raise SearchError(
            f"{refused}optimised {','.join(earlier['objectives'])}, this search optimises "
            f"{','.join(settings.objectives)}; choose the same --objective"
        )
    if manifest["data_fingerprint"] != fingerprint:
        raise SearchError(f"{refused}ran on another dataset ({earlier['data']}); its values say nothing about this one")
    if earlier["lm"] != settings.lm:
        raise SearchError(f"{refused}ran on {earlier['lm']}; its values say nothing about {settings.lm}")
    finished = [t for t in own_trials(open_study(experiment)) if _is_told(t)]
    if not finished:
        raise SearchError(f"{refused}has no finished trial yet")
    fitting, misfit = [], ""
    for trial in finished:
        try:
            distributions = _distributions(space, trial, lm)
        except ValueError as error:
            misfit = misfit or f"trial {trial.number}: {error}"
            continue
        shorter = earlier["epochs"] < settings.epochs
        state = TrialState.PRUNED if shorter and len(settings.objectives) == 1 else trial.state
        fitting.append(
            optuna.trial.create_trial(
                state=state,
                values=trial.values if state == TrialState.COMPLETE else None,
                params=trial.params,
                distributions=distributions,
                user_attrs={WARM_START: f"{experiment.name}/{trial.number}"},
                intermediate_values=trial.intermediate_values,
            )
        )
    if not fitting:
        raise SearchError(f"{refused}none of its {len(finished)} trials fits the space {space.name} ({misfit})")
    return fitting


def add_trials(study: optuna.Study, trials: list[FrozenTrial]) -> None:
    """Add trials taken over from an earlier experiment, those that are there already left out."""
    known = {trial.user_attrs.get(WARM_START) for trial in study.get_trials(deepcopy=False)}
    study.add_trials([trial for trial in trials if trial.user_attrs[WARM_START] not in known])


def _is_told(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.COMPLETE or (trial.state == TrialState.PRUNED and bool(trial.intermediate_values))


def _distributions(space: SearchSpace, trial: FrozenTrial, lm: LanguageModelFacts) -> dict[str, BaseDistribution]:
    """What the space says about each of a trial's parameters; ValueError if it would never have drawn them."""
    fixed = FixedTrial(trial.params, number=trial.number)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of values out of range, which are refused below
        try:
            space.sample(fixed, lm)
        except Exception:  # Optuna's, for a name that the trial lacks, or a user's space's
            raise ValueError(f"the space asks for more than {', '.join(sorted(trial.params))}") from None
    for name in sorted(trial.params.keys() - fixed.distributions.keys()):
        raise ValueError(f"{name} is not searched")
    for name, distribution in fixed.distributions.items():
        if not distribution._contains(distribution.to_internal_repr(trial.params[name])):
            raise ValueError(f"{name}={trial.params[name]} is outside of {distribution}")
    return fixed.distributions
