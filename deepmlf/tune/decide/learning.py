"""What samplers learn from: every trial that has ended, however it ended.

Left to themselves, Optuna's Gaussian process and its evolutionary samplers look at COMPLETE trials only, which under a
scheduler are few, and none of its samplers looks at failed ones, so that they go on drawing what fails.
"""

import copy
import heapq
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from deepmlf.tune.experiment.study import OVERRIDES, Excerpt, is_in_range

_BEST = 25  # as many as TPE ever takes for good
_FAR = 3.0  # quartile ranges beyond the upper quartile, as of a box plot's far-out points


class LearningSampler(BaseSampler):
    """A sampler of Optuna's that learns from every trial that has ended, as if all were COMPLETE.

    A trial that was stopped is worth the best that it has reported; one that failed is as bad as the worst. Values far
    beyond the others, as of a trial that diverged, are cut: they would be all that a Gaussian process sees.

    Args:
        sampler: The sampler. It serves one trial only.
        latest: Of a longer search, the trials that it sees beside the best ones, so that its work does not grow with
            the search; None shows it all. Searches of two objectives have no best ones, and are seen whole.
    """

    def __init__(self, sampler: BaseSampler, latest: int | None = None) -> None:
        self._sampler, self._latest = sampler, latest
        self._seen: tuple[int, optuna.Study] | None = None

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """As the sampler does it."""
        return self._sampler.infer_relative_search_space(self._view(study, trial), trial)

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """As the sampler does it."""
        return self._sampler.sample_relative(self._view(study, trial), trial, search_space)

    def sample_independent(self, study: optuna.Study, trial: FrozenTrial, *param: Any) -> Any:
        """As the sampler does it."""
        return self._sampler.sample_independent(self._view(study, trial), trial, *param)

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As the sampler does it."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, *ending: Any) -> None:
        """As the sampler does it."""
        self._sampler.after_trial(study, trial, *ending)

    def _view(self, study: optuna.Study, trial: FrozenTrial) -> optuna.Study:
        # One for all of a trial's parameters: what others report meanwhile is no part of one draw.
        if self._seen is None or self._seen[0] != trial.number:
            self._seen = trial.number, learnt_from(study, self._latest)
        return self._seen[1]


def learnt_from(study: optuna.Study, latest: int | None = None) -> optuna.Study:
    """A study as a sampler is shown it, see `LearningSampler`."""
    trials = study.get_trials(deepcopy=False)
    signs = [1 if direction == StudyDirection.MINIMIZE else -1 for direction in study.directions]
    worth = {trial.number: costs for trial in trials if (costs := _costs(trial, signs)) is not None}
    shown = trials
    if latest is not None and len(trials) > latest and len(signs) == 1:
        older = [trial for trial in trials[:-latest] if trial.number in worth]
        shown = heapq.nsmallest(_BEST, older, key=lambda trial: worth[trial.number][0]) + trials[-latest:]
    known = np.array([worth[trial.number] for trial in shown if trial.number in worth])
    if not len(known):
        return Excerpt(study, [trial for trial in shown if not trial.state.is_finished()])
    lower, upper = np.percentile(known, (25, 75), axis=0)
    limit = upper + _FAR * (upper - lower)
    worst = np.minimum(known.max(axis=0), limit)
    # A trial that failed before it was drawn whole would make the rest look conditional.
    drawn_whole = {frozenset(trial.params) for trial in shown if trial.number in worth}
    seen = []
    for trial in shown:
        if not trial.state.is_finished():
            seen.append(trial)
        elif trial.number in worth:
            seen.append(_complete(trial, np.minimum(worth[trial.number], limit) * signs))
        elif trial.state == TrialState.FAIL and frozenset(trial.params) in drawn_whole:
            seen.append(_complete(trial, worst * signs))
    return Excerpt(study, seen)


def _costs(trial: FrozenTrial, signs: list[int]) -> list[float] | None:
    """What a trial is worth, the lower the better; None if it has failed, or not ended, or come to nothing."""
    if trial.state not in (TrialState.COMPLETE, TrialState.PRUNED):
        return None
    reported = list(trial.intermediate_values.values())
    if trial.values:
        return [sign * value for sign, value in zip(signs, trial.values, strict=True)]
    if len(signs) == 1 and reported:  # stopped before the whole model was in use
        return [min(signs[0] * value for value in reported)]
    return None


def in_use(trial: FrozenTrial) -> dict[str, Any]:
    """A trial's parameters as they took effect: a space may cut what it has drawn to what fits a language model."""
    return used(trial.params, json.loads(trial.user_attrs.get(OVERRIDES, "{}")), trial.distributions)


def used(
    params: Mapping[str, Any], overrides: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> dict[str, Any]:
    """Parameters with what a space made of them, where that could have been drawn as well."""
    made = {name: overrides[name] for name in params if name in overrides and overrides[name] != params[name]}
    return dict(params) | {name: value for name, value in made.items() if is_in_range(distributions[name], value)}


def _complete(trial: FrozenTrial, values: np.ndarray) -> FrozenTrial:
    shown = copy.copy(trial)
    shown.state = TrialState.COMPLETE
    shown.params = in_use(trial)
    shown.values = [float(value) for value in values]
    return shown
