"""Load and check a search space: one Python module with ``space(trial)``, ``BASE`` and ``PRIORS``."""

import importlib.util
import inspect
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

import search_spaces
from deepmlf.config import ModelConfig, TrialConfig
from deepmlf.errors import ConfigError, SearchError
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.space.base import check_drawn

_PROBES = 20  # settings drawn before a search starts, to find faults of its space


@dataclass(frozen=True)
class SearchSpace:
    """A loaded search space."""

    name: str
    space: Callable[..., dict[str, Any]]
    base: dict[str, Any]
    """Fixed overrides under dotted names."""
    priors: list[dict[str, Any]]
    """Settings to evaluate first, under the space's parameter names."""
    source: Path

    def sample(self, trial: optuna.trial.BaseTrial, lm: LanguageModelFacts) -> dict[str, Any]:
        """Dotted overrides for one trial; a space that takes a second argument gets the language model's sizes."""
        wants_sizes = len(inspect.signature(self.space).parameters) > 1
        overrides = self.space(trial, lm) if wants_sizes else self.space(trial)
        if not isinstance(overrides, dict):
            raise TypeError(f"`space` must return a dict of settings, but got {type(overrides).__name__}")
        return overrides


def load_space(name: str) -> SearchSpace:
    """Load a space by name (a module of ``search_spaces/``) or from a ``.py`` file.

    Raises:
        SearchError: If there is none, it cannot be executed, lacks ``space``, or has something else as ``BASE`` or
            ``PRIORS`` than settings.
    """
    root = Path(search_spaces.__file__).parent
    path = Path(name) if name.endswith(".py") else root / f"{name}.py"
    if not path.is_file():
        raise SearchError(f"--space {name}: no such file or space; known spaces: {', '.join(known_spaces())}")
    spec = importlib.util.spec_from_file_location(f"deepmlf_space_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise SearchError(f"--space {name}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's file may raise anything
        raise SearchError(f"--space {name}: {type(error).__name__}: {error}") from error
    space = getattr(module, "space", None)
    if not callable(space):
        raise SearchError(f"--space {name}: defines no function `space(trial)`")
    base, priors = getattr(module, "BASE", {}), getattr(module, "PRIORS", [])
    if not isinstance(priors, (list, tuple)):
        raise SearchError(
            f"--space {name}: PRIORS must be a list of dicts of settings, but got {type(priors).__name__}"
        )
    for what, settings in [("BASE", base), *((f"PRIORS[{index}]", prior) for index, prior in enumerate(priors))]:
        if not isinstance(settings, dict) or not all(isinstance(setting, str) for setting in settings):
            raise SearchError(f"--space {name}: {what} must be a dict of settings, but got {settings!r}")
    return SearchSpace(path.stem, space, dict(base), list(priors), path)


def known_spaces() -> list[str]:
    """Names of the spaces that come with the project; modules whose names begin with ``_`` are parts of them."""
    root = Path(search_spaces.__file__).parent
    paths = (path for path in root.rglob("*.py") if not path.stem.startswith("_"))
    return sorted(str(path.relative_to(root).with_suffix("")) for path in paths)


def lm_in_use(base: Mapping[str, Any], lm: LanguageModelFacts) -> LanguageModelFacts:
    """Sizes of what trials use of a language model: its first ``model.lm_layers`` layers, unless a space draws those.

    Raises:
        ConfigError: If it has fewer layers.
    """
    return _cut(TrialConfig.from_overrides(base).model, lm)


def _cut(model: ModelConfig, lm: LanguageModelFacts) -> LanguageModelFacts:
    kept = model.lm_layers or lm.num_layers
    if kept > lm.num_layers:
        raise ConfigError(f"model.lm_layers={kept}: the language model has {lm.num_layers} layers")
    return replace(lm, num_layers=kept)


def check_setting(base: Mapping[str, Any], overrides: Mapping[str, Any], lm: LanguageModelFacts) -> None:
    """Check that a trial's setting can be built on a language model, of which `lm` has the whole sizes.

    Raises:
        ConfigError: With the setting that is unknown or impossible, and what is allowed.
    """
    check_drawn(overrides)
    model = TrialConfig.from_overrides(base, overrides).model
    sizes = _cut(model, lm)
    model.check_fits(sizes.num_layers, sizes.width)


def check_space(
    space: SearchSpace, name: str, base: Mapping[str, Any], lm: LanguageModelFacts, given: Collection[str], seed: int
) -> None:
    """Draw every prior and a few more settings, so that a fault is told before anything starts.

    Args:
        space: The space.
        name: What the user called it, for messages.
        base: Overrides common to all trials.
        lm: Sizes of the whole language model.
        given: Settings that the user has fixed; the space must not draw them.
        seed: Seed of the draws.

    Raises:
        SearchError: If the space raises, draws what cannot be built, or has a prior outside its range.
    """
    sampler, in_use = optuna.samplers.RandomSampler(seed=seed), lm_in_use(base, lm)
    for index, prior in enumerate([*space.priors, *[None] * _PROBES]):
        where = f"--space {name}" if prior is None else f"--space {name}: PRIORS[{index}]"
        study = optuna.create_study(sampler=sampler)  # one each: a space may look at the trial's number
        study.enqueue_trial(prior or {})
        trial = study.ask()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Optuna warns of a prior outside its range, and takes it
                overrides = space.sample(trial, in_use)
        except Exception as error:  # a user's space may raise anything
            raise SearchError(f"{where}: {type(error).__name__}: {error}") from error
        _check_prior(where, prior or {}, trial.distributions)
        clash = next((setting for setting in overrides if setting in given), None)
        if clash is not None:
            raise SearchError(
                f"--set {clash}: the space {space.name} searches this setting; fix it in the space instead"
            )
        try:
            check_setting(base, overrides, lm)
        except ConfigError as error:
            raise SearchError(f"{where}: {error}") from error


def _check_prior(where: str, prior: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]) -> None:
    for setting, value in prior.items():
        distribution = distributions.get(setting)
        if distribution is None:
            raise SearchError(f"{where}: {setting}: the space does not draw this beside the prior's other settings")
        if not distribution._contains(distribution.to_internal_repr(value)):
            raise SearchError(f"{where}: {setting}={value!r}: the space draws {_range(distribution)}")


def _range(distribution: Any) -> str:  # of a number: categorical ones raise on a value that is no choice of theirs
    step = "" if distribution.step in (None, 1) else f" in steps of {distribution.step}"
    return f"{distribution.low} to {distribution.high}{step}"
