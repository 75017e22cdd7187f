"""What simple models reach, on planted cases with known answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.places import home
from deepmlf.training.baselines import baselines
from tests.training.planted import MOODS, made


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path / "home"))


def test_each_baseline_learns_from_what_it_reads(tmp_path: Path) -> None:
    found = baselines(made(tmp_path / "data", words=True, frames=True))
    assert list(found) == ["constant", "words", "audio and vision"]
    labels = Dataset.open(tmp_path / "data").split("valid").labels
    assert found["constant"]["MAE"] == pytest.approx(np.abs(labels - 2).mean())  # 2 is the median of train
    assert found["constant"]["Corr"] == 0
    for name in ("words", "audio and vision"):
        assert found[name]["MAE"] < 0.25
        assert found[name]["Has0_acc_2"] == 1.0


def test_what_tells_nothing_is_no_better_than_a_constant(tmp_path: Path) -> None:
    found = baselines(made(tmp_path / "data", words=False, frames=False))
    assert list(found) == ["constant", "words"]  # there are no frames
    assert found["words"]["Has0_acc_2"] < 0.75


def test_classes_have_baselines_too_even_those_that_train_lacks(tmp_path: Path) -> None:
    dataset = made(tmp_path / "data", words=True, frames=False, task=MOODS)
    found = baselines(dataset, "test")
    share = float((dataset.split("test").labels == 1).mean())
    assert found["constant"]["accuracy"] == pytest.approx(share)
    assert found["words"]["accuracy"] == 1.0
    assert found["words"]["cross_entropy"] < found["constant"]["cross_entropy"] < 0.75


def test_they_are_computed_once(tmp_path: Path) -> None:
    dataset = made(tmp_path / "data", words=True, frames=True)
    found = baselines(dataset)
    (kept,) = (home() / "baselines").iterdir()
    assert kept.name == f"{dataset.info.fingerprint}-valid.json"
    kept.write_text(json.dumps({"constant": {"MAE": 7.0}}))
    assert baselines(dataset) == {"constant": {"MAE": 7.0}}
    kept.write_text("{")  # torn
    assert baselines(dataset) == found


def test_a_home_that_cannot_be_written_is_no_obstacle(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    assert baselines(made(tmp_path / "data", words=True, frames=False))["constant"]["Corr"] == 0
