"""Nothing is trained twice.

What a sampler draws is drawn again if it would train the same as another trial. Settings may also differ in what has no
effect, or none beside the rest, and nobody could know it: all trials of a search share a seed, so that such twins have
the same learning curve, bit for bit, and show it.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import BaseTrial, FrozenTrial

from deepmlf.training.metrics import CONTINUOUS
from deepmlf.training.reports import VALID
from deepmlf.tune.decide.candidates import Candidate, Given, Nearby, Sampled
from deepmlf.tune.experiment.study import fixed_params

Space = Callable[[BaseTrial], dict[str, Any]]
"""Draws a setting, asking a trial for its parameters; what it makes of them is returned."""
IsNew = Callable[[dict[str, Any]], bool]
"""Whether what a space made of its parameters would train other than all trials before."""
Beginning = tuple[tuple[int, float], ...]
"""The first fusion epochs of a curve and their values."""
StageToShare = Callable[[dict[str, Any], Mapping[str, BaseDistribution], Collection[int]], dict[str, Any] | None]

_TRIES = 8  # of a sampler: each may take it as long as the first
_RANDOM_TRIES = 2000
_EPOCHS = 2  # that agree before two trials are taken for the same
_AT_LEAST = 2  # twins, before something is concluded from how far apart they are


def spare_setting(space: Space, is_new: IsNew, number: int, seed: int) -> dict[str, Any] | None:
    """Parameters, drawn at random, of a setting that no trial has.

    Args:
        space: The space.
        is_new: What is asked of the setting.
        number: Of the trial that may take it.
        seed: Of the search.

    Returns:
        None if 2,000 draws in a row find none: the space is taken for exhausted.
    """
    generator = np.random.default_rng((seed, number))
    for _ in range(_RANDOM_TRIES):
        candidate = Nearby(generator, number)
        try:
            overrides = space(candidate)
        except Exception:  # a user's space may refuse what it has drawn; the trial that draws it will say so
            return candidate.params
        if is_new(overrides):
            return candidate.params
    return None


class WholeSampler(BaseSampler):
    """Chooses a setting as a whole, when its first parameter is asked for. It serves one trial only.

    Args:
        otherwise: Draws the parameters that were not chosen.
    """

    def __init__(self, otherwise: BaseSampler) -> None:
        self._otherwise = otherwise
        self._chosen: dict[str, Any] | None = None

    @abstractmethod
    def _choose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        """Parameters of the trial."""

    def infer_relative_search_space(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Nothing: the space decides what a setting has."""
        return {}

    def sample_relative(self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, Any]) -> dict[str, Any]:
        """Nothing."""
        return {}

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """A parameter of what was chosen."""
        if self._chosen is None:
            self._chosen = self._choose(study, trial)
        if param_name in self._chosen:
            return self._chosen[param_name]
        return self._otherwise.sample_independent(study, trial, param_name, param_distribution)


class DistinctSampler(WholeSampler):
    """Another sampler, asked again for a whole setting until that is a new one.

    Args:
        sampler: The sampler. It serves one trial only.
        space: Where settings come from.
        is_new: What is asked of them.
        spare: Parameters of a new setting, for a sampler that does not come to one.
        stage_to_share: Asked for another trial's stage, if this one is to share one; see `Orders.stage_to_share`.
    """

    def __init__(
        self,
        sampler: BaseSampler,
        space: Space,
        is_new: IsNew,
        spare: dict[str, Any],
        stage_to_share: StageToShare | None = None,
    ) -> None:
        super().__init__(sampler)
        self._sampler, self._space, self._is_new, self._spare = sampler, space, is_new, spare
        self._stage_to_share = stage_to_share

    def before_trial(self, study: optuna.Study, trial: FrozenTrial) -> None:
        """As the sampler does it."""
        self._sampler.before_trial(study, trial)

    def after_trial(self, study: optuna.Study, trial: FrozenTrial, *ending: Any) -> None:
        """As the sampler does it."""
        self._sampler.after_trial(study, trial, *ending)

    def _choose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        fixed = fixed_params(trial) | trial.params  # a trial may have been drawn in part when its driver was killed
        for _ in range(_TRIES):
            candidate = Sampled(self._sampler, study, trial, fixed)
            try:
                overrides = self._space(candidate)
            except Exception:  # the trial itself will meet it and fail with it
                return candidate.params
            if self._is_new(overrides):
                return self._sharing(study, candidate, overrides, fixed) or candidate.params
        return self._spare

    def _sharing(
        self, study: optuna.Study, drawn: Candidate, overrides: dict[str, Any], fixed: dict[str, Any]
    ) -> dict[str, Any] | None:
        """The parameters drawn, with those of another trial's stage; None if it shares none, or would not be new."""
        if self._stage_to_share is None:
            return None
        trials = study.get_trials(deepcopy=False)
        trained = {trial.number for trial in trials if trial.intermediate_values}
        stage = self._stage_to_share(overrides, drawn.distributions, trained)
        if stage is None:
            return None
        shared = Given(drawn.number, drawn.params | stage | fixed)
        try:
            made = self._space(shared)
        except Exception:  # the space refuses the two together
            return None
        takes_over = self._stage_to_share(made, shared.distributions, trained) is None
        return shared.params if takes_over and self._is_new(made) else None


def beginning(curve: Mapping[int, float]) -> Beginning | None:
    """What twins have in common; None of a curve that is too short to say.

    >>> beginning({1: 0.9, 2: 0.8, 3: 0.7})
    ((1, 0.9), (2, 0.8))
    """
    return tuple(sorted(curve.items())[:_EPOCHS]) if len(curve) >= _EPOCHS else None


def tells_apart(objective: str) -> bool:
    """Whether trainings that differ never report the same values; of an accuracy on some hundred labels they may."""
    return objective.removeprefix(VALID) in CONTINUOUS


class Twins:
    """Finds trials that train what another one has begun to train."""

    def __init__(self) -> None:
        self._first: dict[Beginning, int] = {}

    def has_another(self, number: int, curve: Mapping[int, float]) -> bool:
        """Whether another trial's curve began like this one's; if not, this one is known from now on."""
        begun = beginning(curve)
        return begun is not None and self._first.setdefault(begun, number) != number


def no_effect_within(places: np.ndarray, curves: Sequence[Mapping[int, float]]) -> float:
    """How far apart settings are that make no difference: the median distance from a twin to its nearest other.

    Args:
        places: Encoded settings [trials, columns].
        curves: What each trial has reported, by fusion epoch.

    Returns:
        0 as long as there are fewer than two twins.
    """
    known: dict[Beginning, list[int]] = {}
    distances = []
    for row, curve in enumerate(curves):
        begun = beginning(curve)
        if begun is None:
            continue
        others = known.setdefault(begun, [])
        if others:
            distances.append(float(np.linalg.norm(places[others] - places[row], axis=1).min()))
        others.append(row)
    return float(np.median(distances)) if len(distances) >= _AT_LEAST else 0.0
