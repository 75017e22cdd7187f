"""The boundaries between folders, and what a bare import costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = ["data", "model", "training", "tune", "analysis"]
ALLOWED = {"ray": {"tune"}, "optuna": {"tune", "analysis"}}


def imports_of(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("folder", ORDER)
def test_a_folder_imports_only_from_the_left(folder: str) -> None:
    later = ORDER[ORDER.index(folder) + 1 :]
    for path in (ROOT / "deepmlf" / folder).glob("*.py"):
        names = imports_of(path)
        for name in names:
            assert not any(name.startswith(f"deepmlf.{other}") for other in [*later, "cli"]), f"{path.name}: {name}"
        for package, folders in ALLOWED.items():
            if folder not in folders:
                assert not any(name.split(".")[0] == package for name in names), f"{path.name}: {package}"


def test_files_stay_short() -> None:
    long = [str(p) for p in (ROOT / "deepmlf").rglob("*.py") if len(p.read_text().splitlines()) > 400]
    assert not long


@pytest.mark.parametrize("module", ["deepmlf.tune.search", "deepmlf.tune.trainable"])
def test_a_driver_needs_no_model(module: str) -> None:
    """Importing transformers' models takes two seconds, once in the driver and once more in each worker."""
    code = f"import sys, {module}; print('transformers' in sys.modules, 'deepmlf.model.deepmlf' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "False False"


@pytest.mark.parametrize("module", ["deepmlf", "deepmlf.cli", "deepmlf.config", "deepmlf.analysis.board"])
def test_import_is_light(module: str) -> None:
    code = f"import sys, {module}; print([m for m in ('torch', 'ray', 'optuna', 'transformers') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert result.stdout.strip() == "[]"
