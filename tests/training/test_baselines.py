"""What simple models reach, on planted cases with known answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from deepmlf.data.dataset import Dataset, SplitData, write_dataset
from deepmlf.data.task import KNOWN, Task
from deepmlf.places import home
from deepmlf.training.baselines import baselines

MOODS = Task.choice(("cross", "glad", "neither"))


def made(out: Path, *, words: bool, frames: bool, task: Task | None = None) -> Dataset:
    """Labels of -1 or 2 (of classes the first two), which texts and audio tell or do not."""
    generator, splits = np.random.default_rng(0), {}
    for name, count in (("train", 120), ("valid", 60), ("test", 60)):
        is_high = generator.random(count) < 0.6
        labels = is_high.astype(np.float32) if task else np.where(is_high, 2.0, -1.0).astype(np.float32)
        filler = generator.choice(["today", "here", "now"], count)
        said = [("lovely" if high else "awful") if words else "well" for high in is_high]
        texts = [f"{word} {more}" for word, more in zip(said, filler, strict=True)]
        audio = [generator.normal(3.0 * high * frames, 0.1, (4, 2)).astype(np.float32) for high in is_high]
        nothing = [np.zeros((0, 1), np.float32)] * count
        shown = audio if frames else [np.zeros((0, 2), np.float32)] * count
        splits[name] = SplitData([f"{name}{row}" for row in range(count)], texts, labels, shown, nothing)
    write_dataset(out, "mosi", splits, (2, 1), lowercase=False, task=task or KNOWN["mosi"])
    return Dataset.open(out)


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
