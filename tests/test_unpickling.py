"""Nothing that a user is handed is unpickled: a pickle can run any code that it names."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "deepmlf"
PICKLERS = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
SPREADS = {"Parallel", "delayed"}
"""Of joblib: spread work over processes that it starts itself, whose words come from nobody else."""
RESTRICTED = {"data/formats/unpickling.py"}
"""Has an unpickler of its own, which admits numpy arrays and plain containers alone; it has tests of its own."""


def unpicklers(source: str) -> list[str]:
    """What in a module's source can unpickle, one line each."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names]
            if isinstance(node, ast.ImportFrom) and node.module == "joblib" and set(names) <= SPREADS:
                continue
            if isinstance(node, ast.ImportFrom):
                names.append(node.module or "")
            found += [f"import {name}" for name in names if PICKLERS & set(name.split("."))]
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).split(".")
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            if called[-1] == "load" and called[0] == "torch" and given.get("weights_only") != "True":
                found.append(ast.unparse(node))
            if "read_pickle" in called or given.get("allow_pickle", "False") != "False":
                found.append(ast.unparse(node))
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_unpickles(path: Path) -> None:
    found = unpicklers(path.read_text())
    if path.relative_to(PACKAGE).as_posix() in RESTRICTED:
        assert found == ["import pickle"]
        source = path.read_text()
        assert "pickle.load" not in source
        of_pickle = [
            node.attr
            for node in ast.walk(ast.parse(source))
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle"
        ]
        assert [name for name in of_pickle if not name.isupper()] == ["_Unpickler"]  # the others are its opcodes
        assert "def find_class" in source
    else:
        assert not found


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from pickle import load",
        "from joblib import load",
        "import joblib",
        "import ray.cloudpickle as cp",
        "from ray import cloudpickle",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=trusted)",
        "pd.read_pickle(path)",
    ],
)
def test_what_unpickles_is_found(source: str) -> None:
    assert unpicklers(source)


@pytest.mark.parametrize("source", ["torch.load(path, weights_only=True)", "np.load(path)", "json.load(file)"])
def test_what_does_not_is_not(source: str) -> None:
    assert not unpicklers(source)
