"""No setting is trained twice: what a sampler draws is drawn again if it would train the same as another trial."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import BaseTrial, FrozenTrial

from deepmlf.tune.decide.candidates import Candidate, Given, Nearby, Sampled
from deepmlf.tune.experiment.study import fixed_params

Space = Callable[[BaseTrial], dict[str, Any]]
"""Draws a setting, asking a trial for its parameters; what it makes of them is returned."""
IsNew = Callable[[dict[str, Any]], bool]
"""Whether what a space made of its parameters would train other than all trials before."""
StageToShare = Callable[[dict[str, Any], Mapping[str, BaseDistribution], Collection[int]], dict[str, Any] | None]

_TRIES = 8  # of a sampler: each may take it as long as the first
_RANDOM_TRIES = 2000


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
