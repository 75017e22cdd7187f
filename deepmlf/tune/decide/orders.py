"""What a trial's parameters become for the worker that trains it."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import BaseTrial

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError
from deepmlf.training.effective import EffectiveSetting
from deepmlf.tune.decide.stages import SharedStages
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
        self._known: set[EffectiveSetting] = set()
        self._refused: set[str] = set()
        self._stages = SharedStages()
        self._latest: tuple[dict[str, Any], TrialConfig] | None = None

    def sample(self, trial: BaseTrial) -> dict[str, Any]:
        """What the space makes of parameters, not yet checked; see `BoundSpace.sample`."""
        return self._space.sample(trial)

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
        try:
            config = self._config_of(overrides)
        except ConfigError:
            self._refused.add(_text(overrides))
            raise
        self._note(number, config, overrides)
        return TrialOrder(number=number, config=config, overrides=overrides, terms=self._terms)

    def know(self, number: int, overrides: Mapping[str, Any]) -> None:
        """Take note of a trial that has ended."""
        try:
            self._note(number, self._config_of(overrides), overrides)
        except ConfigError:  # it failed for that
            self._refused.add(_text(overrides))

    def is_new(self, overrides: Mapping[str, Any]) -> bool:
        """Whether it would train other than every trial that is known; what cannot be trained is new once."""
        try:
            return self._space.effective(self._config_of(overrides)) not in self._known
        except ConfigError:
            return _text(overrides) not in self._refused

    def stage_to_share(
        self, overrides: Mapping[str, Any], distributions: Mapping[str, BaseDistribution], trained: Collection[int]
    ) -> dict[str, Any] | None:
        """Parameters of another trial's audiovisual stage, for a setting that would train a new one.

        Args:
            overrides: What the space made of the setting's parameters.
            distributions: Of the parameters.
            trained: Trials that are through with their stage.

        Returns:
            See `SharedStages.nearest`; None for a setting that cannot be trained, too.
        """
        try:
            config = self._config_of(overrides)
        except ConfigError:
            return None
        return self._stages.nearest(config, overrides, distributions, trained)

    def _note(self, number: int, config: TrialConfig, overrides: Mapping[str, Any]) -> None:
        self._known.add(self._space.effective(config))
        self._stages.add(number, config, overrides)

    def _config_of(self, overrides: Mapping[str, Any]) -> TrialConfig:
        if self._latest is None or self._latest[0] != overrides:  # a setting is ordered just after it was found new
            self._latest = dict(overrides), self._space.config_of(overrides)
        return self._latest[1]

    def record_only(self, number: int) -> TrialOrder:
        """The order of a trial that has ended and passes through Ray for the sake of Ray's records."""
        config = self._space.base.config
        return TrialOrder(number=number, config=config, overrides={}, terms=self._terms, only_record=True)


def _text(overrides: Mapping[str, Any]) -> str:
    return json.dumps(overrides, sort_keys=True, default=str)
