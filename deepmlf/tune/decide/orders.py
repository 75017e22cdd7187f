"""What a trial's parameters become for the worker that trains it."""

from typing import Any

import optuna

from deepmlf.tune.messages import SearchTerms, TrialOrder
from deepmlf.tune.space.bound import BoundSpace


class Orders:
    """Makes the orders of a search's trials; each setting is checked once, here.

    Args:
        space: Where settings come from.
        terms: What holds for all trials.
    """

    def __init__(self, space: BoundSpace, terms: SearchTerms) -> None:
        self._space, self._terms = space, terms

    def draw(self, trial: optuna.Trial) -> TrialOrder:
        """The order of a trial that was asked for.

        Raises:
            Exception: Whatever a user's space may raise; ConfigError for a setting that cannot be trained.
        """
        return self.again(trial.number, self._space.sample(trial))

    def again(self, number: int, overrides: dict[str, Any]) -> TrialOrder:
        """The order of a trial that was drawn before.

        Raises:
            ConfigError: For a setting that cannot be trained.
        """
        config = self._space.config_of(overrides)
        return TrialOrder(number=number, config=config, overrides=overrides, terms=self._terms)

    def record_only(self, number: int) -> TrialOrder:
        """The order of a trial that has ended and passes through Ray for the sake of Ray's records."""
        config = self._space.base.config
        return TrialOrder(number=number, config=config, overrides={}, terms=self._terms, only_record=True)
