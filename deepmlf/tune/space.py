"""Load a search space: one Python module with ``space(trial)``, ``BASE`` and ``PRIORS``."""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

import search_spaces
from deepmlf.errors import SearchError


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

    def sample(self, trial: optuna.trial.BaseTrial, num_layers: int) -> dict[str, Any]:
        """Dotted overrides for one trial on a language model with `num_layers` layers."""
        wants_depth = len(inspect.signature(self.space).parameters) > 1
        return self.space(trial, num_layers) if wants_depth else self.space(trial)


def load_space(name: str) -> SearchSpace:
    """Load a space by name (a module of ``search_spaces/``) or from a ``.py`` file.

    Raises:
        SearchError: If there is none, it cannot be executed, or it lacks ``space``.
    """
    root = Path(search_spaces.__file__).parent
    path = Path(name) if name.endswith(".py") else root / f"{name}.py"
    if not path.is_file():
        known = sorted(str(p.relative_to(root).with_suffix("")) for p in root.rglob("*.py") if p.stem != "__init__")
        raise SearchError(f"--space {name}: no such file or space; known spaces: {', '.join(known)}")
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
    return SearchSpace(path.stem, space, dict(getattr(module, "BASE", {})), list(getattr(module, "PRIORS", [])), path)
