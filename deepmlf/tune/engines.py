"""What the project uses of Ray's and Optuna's insides is there, or the user is told which versions have it."""

import importlib.metadata
from collections.abc import Iterable
from typing import Literal

from deepmlf.errors import SearchError

KNOWN = {"ray": "2.60", "optuna": "5.0"}
"""Releases that the whole suite was run with."""


def require_insides(engine: Literal["ray", "optuna"], insides: Iterable[tuple[object, str]]) -> None:
    """Refuse a release of an engine whose insides have moved: what is missing would surface in the middle of a search.

    Args:
        engine: Its name on PyPI.
        insides: What is used, each as an object and the name of its attribute.

    Raises:
        SearchError: With what is missing and the releases that have it.
    """
    missing = [
        f"{getattr(owner, '__name__', type(owner).__name__)}.{name}"
        for owner, name in insides
        if not hasattr(owner, name)
    ]
    if missing:
        raise SearchError(
            f"{engine} {importlib.metadata.version(engine)}: lacks {', '.join(missing)}, which a search needs; "
            f"known to work: {engine} {KNOWN[engine]}"
        )
