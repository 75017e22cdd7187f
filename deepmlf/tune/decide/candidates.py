"""Settings drawn by a search space without a trial: its conditions and ranges hold of each."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.trial import BaseTrial, FrozenTrial

from deepmlf.tune.decide.encoding import Number, place_of, value_at
from deepmlf.tune.experiment.study import is_in_range


class Candidate(BaseTrial):
    """What a search space is shown in place of a trial.

    Args:
        number: Of the trial that it may become.
    """

    def __init__(self, number: int) -> None:
        self._number = number
        self._params: dict[str, Any] = {}
        self._distributions: dict[str, BaseDistribution] = {}

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """A number."""
        return float(self._drawn(name, FloatDistribution(low, high, log, step)))

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1, log: bool = False) -> int:
        """A whole number."""
        return int(self._drawn(name, IntDistribution(low, high, log, step)))

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        """One of the choices."""
        return self._drawn(name, CategoricalDistribution(choices))

    def suggest_uniform(self, name: str, low: float, high: float) -> float:
        """Optuna's older name."""
        return self.suggest_float(name, low, high)

    def suggest_loguniform(self, name: str, low: float, high: float) -> float:
        """Optuna's older name."""
        return self.suggest_float(name, low, high, log=True)

    def suggest_discrete_uniform(self, name: str, low: float, high: float, q: float) -> float:
        """Optuna's older name."""
        return self.suggest_float(name, low, high, step=q)

    def _drawn(self, name: str, distribution: Number | CategoricalDistribution) -> Any:
        if name not in self._params:
            self._distributions[name] = distribution
            self._params[name] = self._draw(name, distribution)
        return self._params[name]

    @abstractmethod
    def _draw(self, name: str, distribution: Number | CategoricalDistribution) -> Any:
        """A value of a parameter that has none yet."""

    @property
    def params(self) -> dict[str, Any]:
        """What was drawn."""
        return self._params

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """What it was drawn from."""
        return self._distributions

    @property
    def number(self) -> int:
        """As of a trial."""
        return self._number

    @property
    def user_attrs(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def system_attrs(self) -> dict[str, Any]:
        """None."""
        return {}

    @property
    def datetime_start(self) -> datetime | None:
        """It never starts."""
        return None

    @property
    def relative_params(self) -> dict[str, Any]:
        """None."""
        return {}

    def report(self, value: float, step: int) -> None:
        """Nothing is kept."""

    def should_prune(self) -> bool:
        """Never."""
        return False

    def set_user_attr(self, key: str, value: Any) -> None:
        """Nothing is kept."""

    def set_system_attr(self, key: str, value: Any) -> None:
        """Nothing is kept."""

    def set_constraint(self, *constraint: Any) -> None:
        """Nothing is kept."""


class Given(Candidate):
    """Each parameter is given; one that is not, or that it could not be, takes its first choice or its range's middle.

    Args:
        number: Of the trial that it may become.
        values: What is given.
    """

    def __init__(self, number: int, values: Mapping[str, Any]) -> None:
        super().__init__(number)
        self._values = values

    def _draw(self, name: str, distribution: Number | CategoricalDistribution) -> Any:
        value = self._values.get(name)
        if name in self._values and is_in_range(distribution, value):
            return value
        if isinstance(distribution, CategoricalDistribution):
            return distribution.choices[0]
        return value_at(distribution, 0.5)


class Nearby(Candidate):
    """Each parameter is drawn at random, or near another setting's.

    Args:
        generator: Where chance comes from.
        number: Of the trial that it may become.
        near: A setting to stay close to; None for none.
        width: How far a number moves, as a normal deviation: a share of its range.
        share: How many of the parameters move, as a share of all.
    """

    def __init__(
        self,
        generator: np.random.Generator,
        number: int,
        near: Mapping[str, Any] | None = None,
        width: float = 0.0,
        share: float = 1.0,
    ) -> None:
        super().__init__(number)
        self._generator, self._near, self._width, self._share = generator, near or {}, width, share

    def _draw(self, name: str, distribution: Number | CategoricalDistribution) -> Any:
        draw = self._generator
        is_free = name not in self._near or not is_in_range(distribution, self._near[name])
        moves = is_free or draw.random() < self._share
        if isinstance(distribution, CategoricalDistribution):
            if not moves:
                return self._near[name]
            return distribution.choices[draw.integers(len(distribution.choices))]
        if is_free:
            return value_at(distribution, draw.random())
        near = self._near[name]
        if not moves:
            return near
        place = abs(place_of(distribution, near) + draw.normal(0.0, self._width))
        return value_at(distribution, min(place, max(0.0, 2.0 - place)))  # what leaves the range comes back into it


class Sampled(Candidate):
    """Each parameter is what a sampler draws for a trial, as often as it is asked.

    Args:
        sampler: The sampler.
        study: What it learns from.
        trial: The trial.
        fixed: Parameters that the trial was given.
    """

    def __init__(self, sampler: BaseSampler, study: optuna.Study, trial: FrozenTrial, fixed: Mapping[str, Any]) -> None:
        super().__init__(trial.number)
        self._sampler, self._study, self._trial = sampler, study, trial
        known = sampler.infer_relative_search_space(study, trial)
        self._relative, self._fixed = sampler.sample_relative(study, trial, known), fixed

    def _draw(self, name: str, distribution: Number | CategoricalDistribution) -> Any:
        # In the order in which Optuna's own trials look.
        if name in self._fixed:
            return self._fixed[name]
        if distribution.single():
            return distribution.choices[0] if isinstance(distribution, CategoricalDistribution) else distribution.low
        if name in self._relative and is_in_range(distribution, self._relative[name]):
            return self._relative[name]
        return self._sampler.sample_independent(self._study, self._trial, name, distribution)
