"""The public face: ten names, each with an example in its docstring that runs."""

import doctest
import importlib
import inspect
import pickle
import shutil
from pathlib import Path

import pytest

import deepmlf
from tests.data.mmsa_split import make_split

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
SPACE = """
BASE = {"model.fusion_depth": 1, "model.av_frames": 6, "model.av_layers": 1, "curriculum.name": "joint"}


def space(trial):
    return {"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 4, 5)}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, small_data: Path, small_export: Path) -> Path:
    """What the examples find where they run: a pickle, a dataset, an exported model, a space."""
    root = tmp_path_factory.mktemp("examples")
    with (root / "MOSI.pkl").open("wb") as file:
        pickle.dump({name: make_split() for name in ("train", "valid", "test")}, file)
    (root / "mine.py").write_text(SPACE)
    (root / "runs").mkdir()
    shutil.copytree(small_data, root / "runs" / "mosi")
    shutil.copytree(small_export, root / "runs" / "model")
    return root


@pytest.fixture(scope="module")
def searched(ray_cluster: None, folder: Path) -> Path:
    """The same with a finished experiment."""
    deepmlf.search(
        folder / "runs" / "mosi", space=str(folder / "mine.py"), lm="tiny-random", trials=2, epochs=1,
        scheduler="none", storage=str(folder / "runs"), name="first", quiet=True,
    )  # fmt: skip
    return folder


def assert_examples_run(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shown = deepmlf if name == "deepmlf" else getattr(deepmlf, name)
    known = {"deepmlf": deepmlf} | {other: getattr(deepmlf, other) for other in deepmlf.__all__}
    known |= vars(importlib.import_module(shown.__module__)) if name != "deepmlf" else {}
    (test,) = [found for found in doctest.DocTestFinder(recurse=False).find(shown, name, globs=known)]
    assert test.examples, f"{name} has no example"
    failures, _ = doctest.DocTestRunner(optionflags=OPTIONS).run(test)
    assert not failures


@pytest.mark.parametrize("name", ["TrialConfig", "DeepMLFError", "Dataset", "import_dataset", "DeepMLF", "Predictor"])
def test_an_example_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_examples_run(name, folder, monkeypatch)


@pytest.mark.ray
@pytest.mark.parametrize("name", ["deepmlf", "Experiment", "search", "resume", "confirm"])
def test_an_example_of_a_search_runs(name: str, searched: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_examples_run(name, searched, monkeypatch)


def test_the_face_has_ten_names_and_each_is_documented() -> None:
    assert len(deepmlf.__all__) == 10
    assert set(deepmlf.__all__) <= set(dir(deepmlf))
    assert all(inspect.getdoc(getattr(deepmlf, name)) for name in deepmlf.__all__)
    with pytest.raises(AttributeError, match="module 'deepmlf' has no attribute 'nonsuch'"):
        _ = deepmlf.nonsuch
