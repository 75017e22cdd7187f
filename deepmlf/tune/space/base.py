"""What all trials of a search have in common: a recipe, the space's ``BASE``, the search's own settings, ``--set``.

No heavy imports: the CLI checks ``--set`` before it fetches a language model.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError, SearchError

LANGUAGE_MODEL = "model.language_model"
OPTION_OF = {
    "data.path": "DATA",
    LANGUAGE_MODEL: "--lm",
    "training.epochs": "--epochs",
    "training.select_by": "--objective",
}
"""Settings that a search itself depends on, and what sets them: one value for all trials, checked before it starts."""
DRAWN_BY_NONE = OPTION_OF | {"training.device": "--gpus-per-trial"}
"""The same, and what the share of a GPU that a trial holds decides."""
SEED = "training.seed"


@dataclass(frozen=True)
class Base:
    """What all trials of a search have in common."""

    overrides: dict[str, Any]
    """By dotted names."""
    config: TrialConfig
    """The trial that they make by themselves."""

    @classmethod
    def of(cls, overrides: Mapping[str, Any]) -> "Base":
        """The base of these overrides.

        Raises:
            ConfigError: For a setting that does not exist or cannot be.
        """
        return cls(dict(overrides), TrialConfig.from_overrides(overrides))


def check_given(overrides: Mapping[str, Any]) -> None:
    """Refuse in ``--set`` what does not exist, cannot be, or is set by an option.

    Raises:
        ConfigError: With the setting, and the option to use instead.
    """
    TrialConfig.from_overrides(overrides)
    _refuse(overrides, OPTION_OF, "--set ")


def check_drawn(overrides: Mapping[str, Any], language_models: Collection[str]) -> None:
    """Refuse among the settings of one trial what is one for all of them.

    Args:
        overrides: The trial's.
        language_models: Those that the search was given. Of several a trial has its own.

    Raises:
        ConfigError: With the setting, and the option to use instead.
    """
    drawn = overrides.get(LANGUAGE_MODEL)
    if drawn is not None and len(language_models) > 1:
        if drawn not in language_models:
            known = ", ".join(language_models)
            raise ConfigError(f"{LANGUAGE_MODEL}={drawn!r}: is none of those that --lm names: {known}")
        overrides = {name: value for name, value in overrides.items() if name != LANGUAGE_MODEL}
    _refuse(overrides, DRAWN_BY_NONE)


def _refuse(overrides: Iterable[str], option_of: Mapping[str, str], prefix: str = "") -> None:
    for name in overrides:
        if name in option_of:
            raise ConfigError(f"{prefix}{name}: is one for all trials of a search; use {option_of[name]}")


def make_base(
    space: str,
    space_base: Mapping[str, Any],
    own: Mapping[str, Any],
    given: Mapping[str, Any],
    seed: int,
    recipe: Mapping[str, Any] = MappingProxyType({}),
) -> Base:
    """Overrides common to all trials.

    ``--set`` wins over the space's ``BASE``, that over the recipe; all of them over the seed of the search. What the
    space draws, priors included, wins over the whole base.

    Args:
        space: What the user called the space, for messages.
        space_base: Its ``BASE``; of the settings of `OPTION_OF` it may repeat those that the search uses anyway, as
            the base of another search does.
        own: The values of `OPTION_OF`.
        given: Overrides of the command line, checked.
        seed: Of the search; trials train with it where nothing else says with which.
        recipe: Settings of the recipe; of those of `OPTION_OF` the search's own stay.

    Raises:
        SearchError: For a ``BASE`` that cannot be.
    """
    for name, value in space_base.items():
        if name in own and value != own[name]:
            raise SearchError(
                f"--space {space}: BASE: {name}={value!r}: is one for all trials of a search; use {OPTION_OF[name]}"
            )
    base = {**recipe, **space_base, **own, **given}
    base.setdefault(SEED, seed)
    try:
        return Base.of(base)
    except ConfigError as error:
        raise SearchError(f"--space {space}: BASE: {error}") from None
