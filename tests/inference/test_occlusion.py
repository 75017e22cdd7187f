"""What a prediction becomes without a part is what the model says of an utterance that never had it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from deepmlf.data.dataset import Dataset, Split, SplitData, write_dataset
from deepmlf.inference.explain import explain
from deepmlf.inference.occlusion import occlude
from deepmlf.inference.predictor import Predictor

ROW = 3


@pytest.fixture(scope="module")
def opened(small_export: Path, small_data: Path) -> tuple[Predictor, Dataset]:
    return Predictor.open(small_export), Dataset.open(small_data)


def said_of(predictor: Predictor, dataset: Dataset, folder: Path, change: Callable[[SplitData], None]) -> np.ndarray:
    """Predictions of the test split as `predict` makes them of a dataset in which something is changed."""
    splits = {name: copied(dataset.split(name)) for name in dataset.info.splits}
    change(splits["test"])
    write_like(dataset, folder, splits)
    return predictor.predict(Dataset.open(folder), "test")["sentiment"].to_numpy()


def write_like(dataset: Dataset, folder: Path, splits: dict[str, SplitData]) -> None:
    info = dataset.info
    dims = (info.audio_dim, info.vision_dim)
    write_dataset(folder, info.name, splits, dims, lowercase=info.lowercase, task=info.task)


def copied(split: Split) -> SplitData:
    rows = range(len(split))
    audio, vision = [split.audio(row) for row in rows], [split.vision(row) for row in rows]
    return SplitData(list(split.ids), list(split.texts), np.asarray(split.labels), audio, vision)


def drop(split: SplitData, *modalities: str) -> None:
    for modality in modalities:
        frames = getattr(split, modality)
        for row in range(len(frames)):
            frames[row] = frames[row][:0]


def empty_texts(split: SplitData) -> None:
    split.texts[:] = [""] * len(split.texts)


def without_second_word(split: SplitData) -> None:
    words = split.texts[ROW].split()
    split.texts[ROW] = " ".join(words[:1] + words[2:])


def test_each_part_is_missing_as_in_data_that_lacks_it(opened: tuple[Predictor, Dataset], tmp_path: Path) -> None:
    predictor, dataset = opened
    occlusion = occlude(predictor, dataset, "test", ROW)
    whole = predictor.predict(dataset, "test")["sentiment"].to_numpy()
    assert occlusion.said == pytest.approx(whole[ROW], abs=1e-5)
    assert occlusion.compared == len(whole)
    changes: dict[str, Callable[[SplitData], None]] = {
        "audio": lambda split: drop(split, "audio"),
        "vision": lambda split: drop(split, "vision"),
        "audio and vision": lambda split: drop(split, "audio", "vision"),
        "all words": empty_texts,
    }
    assert [part.what for part in occlusion.parts] == list(changes)
    for part in occlusion.parts:
        changed = said_of(predictor, dataset, tmp_path / part.what, changes[part.what]) - whole
        assert part.change == pytest.approx(changed[ROW], abs=1e-5)
        assert part.usual == pytest.approx(np.median(np.abs(changed)), abs=1e-5)
        assert part.rank == pytest.approx((np.abs(changed) < abs(changed[ROW])).mean(), abs=0.05)


def test_a_word_is_missing_as_if_it_had_never_been_there(opened: tuple[Predictor, Dataset], tmp_path: Path) -> None:
    predictor, dataset = opened
    words = dataset.split("test").texts[ROW].split()
    found = occlude(predictor, dataset, "test", ROW).words
    assert [word.what for word in found] == [f"{place} {word}" for place, word in enumerate(words, start=1)]
    whole = predictor.predict(dataset, "test")["sentiment"].to_numpy()
    changed = said_of(predictor, dataset, tmp_path / "set", without_second_word) - whole
    assert found[1].change == pytest.approx(changed[ROW], abs=1e-5)
    assert found[1].change != 0


def test_what_an_utterance_lacks_cannot_be_taken_away(opened: tuple[Predictor, Dataset], tmp_path: Path) -> None:
    predictor, dataset = opened
    splits = {name: copied(dataset.split(name)) for name in dataset.info.splits}
    splits["test"].audio[ROW] = splits["test"].audio[ROW][:0]
    splits["test"].texts[ROW] = ""
    write_like(dataset, tmp_path / "set", splits)
    changed = Dataset.open(tmp_path / "set")
    occlusion = explain(predictor, changed, changed.split("test").ids[ROW]).without
    assert [part.what for part in occlusion.parts] == ["vision", "all words"]
    assert occlusion.words == []
    assert occlusion.parts[1].change == 0
