"""Load and check a search space: one Python module with ``space(trial)``, ``BASE`` and ``PRIORS``."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

import optuna

import search_spaces
from deepmlf.data.dataset import DatasetInfo
from deepmlf.data.task import KNOWN
from deepmlf.errors import SearchError
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.names import known_spaces

_LARGE = 8000  # train utterances; CMU-MOSEI has 16,000, CMU-MOSI 1,300


@dataclass(frozen=True)
class SearchSpace:
    """A loaded search space."""

    name: str
    space: Callable[..., dict[str, Any]]
    base: dict[str, Any]
    """Fixed overrides under dotted names."""
    priors: list[dict[str, Any]]
    """Settings to evaluate first, under the space's parameter names."""
    source: str
    """The module's text."""

    def sample(self, trial: optuna.trial.BaseTrial, lm: LanguageModelFacts, base: Mapping[str, Any]) -> dict[str, Any]:
        """Dotted overrides for one trial.

        Args:
            trial: Draws.
            lm: Sizes of the language model, for a space that takes a second argument.
            base: All settings of a trial for which nothing is drawn, for one that takes a third.
        """
        overrides = self.space(*(trial, lm, base)[: self._taken])
        if not isinstance(overrides, dict):
            raise TypeError(f"`space` must return a dict of settings, but got {type(overrides).__name__}")
        return overrides

    @cached_property
    def _taken(self) -> int:
        return max(1, len(inspect.signature(self.space).parameters))


def load_space(name: str) -> SearchSpace:
    """Load a space by name (a module of ``search_spaces/``) or from a ``.py`` file.

    Raises:
        SearchError: If there is none, it cannot be executed, lacks ``space``, or has something else as ``BASE`` or
            ``PRIORS`` than settings.
    """
    path = Path(name) if name.endswith(".py") else Path(search_spaces.__file__).parent / f"{name}.py"
    if not path.is_file():
        raise SearchError(f"--space {name}: no such file or space; known spaces: {', '.join(known_spaces())}")
    try:
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SearchError(f"--space {name}: {type(error).__name__}: {error}") from None
    return space_of(source, name)


def space_of(source: str, name: str) -> SearchSpace:
    """The space that a module's text defines.

    The text alone, without the file's place: it is kept in the manifest, and a resume may be on another machine.

    Args:
        source: The module's text.
        name: What the user called it, for messages.

    Raises:
        SearchError: As `load_space`.
    """
    stem = Path(name).stem
    module = ModuleType(f"deepmlf_space_{stem}")
    try:
        exec(compile(source, name, "exec"), module.__dict__)
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
    return SearchSpace(stem, space, dict(base), list(priors), source)


def space_for(info: DatasetInfo) -> str:
    """The space that a dataset is searched in unless another one is asked for: that of its name or of its size."""
    if info.name in KNOWN:
        return info.name
    return "mosei" if info.splits["train"] >= _LARGE else "mosi"
