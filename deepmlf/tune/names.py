"""What can be asked for by name. Imports nothing heavy: the shell completes these names while a person types."""

from pathlib import Path

import search_spaces

SAMPLERS = ("auto", "mixed", "curves", "tpe", "random", "gp", "cmaes", "grid", "nsga2")
SCHEDULERS = ("asha", "hyperband", "median", "none")
PUBLISHED = "published/"
"""Folder of the spaces that fix a published setting each."""


def known_spaces() -> list[str]:
    """Names of the spaces that come with the project; modules whose names begin with ``_`` are parts of them."""
    root = Path(search_spaces.__file__).parent
    paths = (path for path in root.rglob("*.py") if not path.stem.startswith("_"))
    return sorted(str(path.relative_to(root).with_suffix("")) for path in paths)


def published_settings() -> list[str]:
    """Names of the published settings."""
    return [space.removeprefix(PUBLISHED) for space in known_spaces() if space.startswith(PUBLISHED)]
