"""A search space on a language model and a base: what a trial's setting is, checked."""

import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution

from deepmlf.config.model import ModelConfig
from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError, SearchError
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.training.effective import EffectiveSetting, effective_setting
from deepmlf.tune.experiment.study import is_in_range
from deepmlf.tune.space.base import LANGUAGE_MODEL, Base, check_drawn
from deepmlf.tune.space.load import SearchSpace

_PROBES = 20  # settings drawn before a search starts, to find faults of its space
_COMPARED = 200  # draws whose ranges are compared
_NUMBERS = 4  # they are of trials of so many different numbers


@dataclass(frozen=True)
class BoundSpace:
    """A search space with all that its settings depend on."""

    space: SearchSpace
    base: Base
    whole_lms: Mapping[str, LanguageModelFacts]
    """Sizes of the whole language models that trials may have, by name."""
    missing: tuple[str, ...] = ()
    """Modalities that no utterance of the dataset has."""

    @property
    def name(self) -> str:
        """The space's."""
        return self.space.name

    @property
    def priors(self) -> list[dict[str, Any]]:
        """Settings to evaluate first, under the space's parameter names."""
        return self.space.priors

    @cached_property
    def lm(self) -> LanguageModelFacts:
        """Sizes of what trials use of the first of them: its first ``model.lm_layers``, unless the space draws those.

        Raises:
            ConfigError: If it has fewer layers.
        """
        return _cut(self.base.config.model, next(iter(self.whole_lms.values())))

    @cached_property
    def _settings(self) -> dict[str, Any]:
        return self.base.config.flat()

    @cached_property
    def _draws_lm(self) -> bool:
        return len(self.whole_lms) > 1 and LANGUAGE_MODEL not in self.space.source

    def sample(self, trial: optuna.trial.BaseTrial) -> dict[str, Any]:
        """What the space makes of a trial's parameters: overrides by dotted names, not yet checked.

        Of several language models the trial draws one first, if the space does not say by itself which.
        """
        if not self._draws_lm:
            return self.space.sample(trial, self.lm, dict(self._settings))
        name = trial.suggest_categorical(LANGUAGE_MODEL, list(self.whole_lms))
        lm = _cut(self.base.config.model, self.whole_lms[name])
        overrides = self.space.sample(trial, lm, self._settings | {LANGUAGE_MODEL: name})
        return {LANGUAGE_MODEL: name} | overrides

    def config_of(self, overrides: Mapping[str, Any]) -> TrialConfig:
        """The trial that drawn overrides make.

        Raises:
            ConfigError: With the setting that is unknown, impossible or no trial's own, and what is allowed.
        """
        check_drawn(overrides, self.whole_lms)
        config = TrialConfig.from_overrides(self.base.overrides, overrides)
        sizes = _cut(config.model, self._whole(config))
        config.model.check_fits(sizes.num_layers, sizes.width)
        if sizes.positions is not None:
            config.model.check_positions(sizes.positions.count, sizes.positions.within)
        config.model.check_modalities(self.missing)
        return config

    def effective(self, config: TrialConfig) -> EffectiveSetting:
        """What a trial of this configuration trains."""
        return effective_setting(config, self._whole(config).num_layers)

    def _whole(self, config: TrialConfig) -> LanguageModelFacts:
        if len(self.whole_lms) == 1:
            return next(iter(self.whole_lms.values()))
        return self.whole_lms[config.model.language_model]


def _cut(model: ModelConfig, lm: LanguageModelFacts) -> LanguageModelFacts:
    kept = model.lm_layers or lm.num_layers
    if kept > lm.num_layers:
        raise ConfigError(f"model.lm_layers={kept}: the language model has {lm.num_layers} layers")
    return replace(lm, num_layers=kept)


def check_space(space: BoundSpace, name: str, given: Collection[str], seed: int) -> list[TrialConfig]:
    """Draw every prior and a few more settings, so that a fault is told before anything starts.

    Args:
        space: The space.
        name: What the user called it, for messages.
        given: Settings that the user has fixed; the space must not draw them.
        seed: Seed of the draws.

    Returns:
        The trials that were drawn.

    Raises:
        SearchError: If the space raises, draws what cannot be built, or has a prior outside its range.
    """
    sampler, drawn = optuna.samplers.RandomSampler(seed=seed), []
    for index, prior in enumerate([*space.priors, *[None] * _PROBES]):
        where = f"--space {name}" if prior is None else f"--space {name}: PRIORS[{index}]"
        study = optuna.create_study(sampler=sampler)  # one each: a space may look at the trial's number
        study.enqueue_trial(prior or {})
        trial = study.ask()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna warns of a prior outside its range, and takes it
                overrides = space.sample(trial)
        except Exception as error:  # a user's space may raise anything
            raise SearchError(f"{where}: {type(error).__name__}: {error}") from error
        _check_prior(where, prior or {}, trial.distributions)
        clash = next((setting for setting in overrides if setting in given), None)
        if clash is not None:
            raise SearchError(
                f"--set {clash}: the space {space.name} searches this setting; fix it in the space instead"
            )
        try:
            drawn.append(space.config_of(overrides))
        except ConfigError as error:
            raise SearchError(f"{where}: {error}") from error
    return drawn


def check_ranges(space: BoundSpace, name: str, seed: int) -> list[str]:
    """Compare what a space draws each parameter from, trial by trial: Optuna has one kind and one set of choices.

    Trials of another one would all fail, half of a search maybe.

    Args:
        space: The space, which `check_space` lets pass.
        name: What the user called it, for messages.
        seed: Seed of the draws.

    Returns:
        The parameters whose numerical range moves, which Optuna allows.

    Raises:
        SearchError: If a parameter has two kinds, scales or sets of choices.
    """
    sampler = optuna.samplers.RandomSampler(seed=seed)
    drawn: dict[str, BaseDistribution] = {}
    moving: dict[str, None] = {}
    for index in range(_COMPARED):
        study = optuna.create_study(sampler=sampler)  # one each: a common one would refuse, but not say what
        for _ in range(index % _NUMBERS):
            study.ask()
        trial = study.ask()
        try:
            space.sample(trial)
        except Exception:  # rarer than `check_space` found; the trial that draws it will say so
            continue
        for parameter, distribution in trial.distributions.items():
            known = drawn.setdefault(parameter, distribution)
            if not _is_one_parameter(known, distribution):
                raise SearchError(
                    f"--space {name}: {parameter}: is drawn from {_range(known)} and from {_range(distribution)}, but "
                    "Optuna has one kind and one set of choices for a name; give each its own"
                )
            if known != distribution:
                moving[parameter] = None
    return list(moving)


def _is_one_parameter(one: Any, other: Any) -> bool:
    if type(one) is not type(other):
        return False
    if isinstance(one, CategoricalDistribution):
        return bool(one == other)
    return bool(one.log == other.log)


def _check_prior(where: str, prior: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> None:
    for setting, value in prior.items():
        distribution = distributions.get(setting)
        if distribution is None:
            raise SearchError(f"{where}: {setting}: the space does not draw this beside the prior's other settings")
        if not is_in_range(distribution, value):
            raise SearchError(f"{where}: {setting}={value!r}: the space draws {_range(distribution)}")


def _range(distribution: Any) -> str:
    if isinstance(distribution, CategoricalDistribution):
        return str(list(distribution.choices))
    step = "" if distribution.step in (None, 1) else f" in steps of {distribution.step}"
    return f"{distribution.low} to {distribution.high}{step}" + (" on a log scale" if distribution.log else "")
