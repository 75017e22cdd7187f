"""Tiny random checkpoints of many decoder families, as the reference material's script makes them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest


def builder(shared: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that builds into a folder: ``build(name)``, for any name of ``FAM``."""
    monkeypatch.setenv("FAMILIES", str(root))
    spec = importlib.util.spec_from_file_location("families_build", shared / "families" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
