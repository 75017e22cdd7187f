"""The layout of MAG-BERT and MISA: word by word, the same dataset as in the layout of MMSA."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.data.formats.importing import import_dataset
from deepmlf.errors import DataError

SAID = ["so good", "not that bad at all", "hm"]


def utterance(tag: str, row: int, **changes: Any) -> tuple[Any, Any, str]:
    """One in their layout: a row of features for each word, the first of them zero, as where no face was seen."""
    generator = np.random.default_rng(row)
    words = SAID[row].split()
    visual, acoustic = (generator.normal(size=(len(words), dim)) for dim in (4, 2))
    visual[0] = 0
    parts = {"words": words, "visual": visual, "acoustic": acoustic, "label": np.array([[row - 1.0]])} | changes
    return (parts["words"], parts["visual"], parts["acoustic"]), parts["label"], f"{tag}[{row}]"


def splits(**changes: Any) -> dict[str, list[Any]]:
    return {tag: [utterance(tag, row, **(changes if row == 1 else {})) for row in range(3)]
            for tag in ("train", "dev", "test")}  # fmt: skip


def imported(tmp_path: Path, content: Any) -> Dataset:
    (tmp_path / "mosi.pkl").write_bytes(pickle.dumps(content))
    import_dataset(tmp_path / "mosi.pkl", tmp_path / "out", force=True)
    return Dataset.open(tmp_path / "out")


def test_it_is_the_same_dataset_as_in_the_layout_of_mmsa(tmp_path: Path) -> None:
    dataset = imported(tmp_path, splits())
    train = dataset.split("train")
    assert (train.ids[0], train.texts, train.labels.tolist()) == ("train[0]", SAID, [-1, 0, 1])
    assert train.vision(1).shape == (5, 4)
    assert not train.vision(1)[0].any()  # a frame, not padding
    mmsa = {
        {"dev": "valid"}.get(tag, tag): {
            "id": [of[2] for of in rows], "raw_text": SAID, "regression_labels": [-1, 0, 1],
            "audio": [of[0][2] for of in rows], "vision": [of[0][1] for of in rows],
            "audio_lengths": [2, 5, 1], "vision_lengths": [2, 5, 1],
        }
        for tag, rows in splits().items()
    }  # fmt: skip
    assert dataset.info.fingerprint == imported(tmp_path, mmsa).info.fingerprint


def test_padded_features_lose_their_padding(tmp_path: Path) -> None:
    padded = np.vstack([np.ones((3, 4)), np.zeros((6, 4))])
    assert imported(tmp_path, splits(visual=padded)).split("valid").vision(1).shape == (3, 4)


def test_indices_stand_for_the_words_beside_them(tmp_path: Path) -> None:
    content = {
        tag: [((np.arange(len(words)), visual, acoustic, words), label, name)
              for (words, visual, acoustic), label, name in rows]
        for tag, rows in splits().items()
    }  # fmt: skip
    assert imported(tmp_path, content).split("test").texts == SAID


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": np.arange(5)}, "split 'train', row 1: its words are indices of a vocabulary; words themselves"),
        ({"label": np.ones((1, 7))}, "split 'train', row 1: must have one label, but has 7; keep the sentiment"),
        ({"label": "good"}, "split 'train', label, row 1: must hold numbers, but holds 'good'"),
        ({"label": np.array([4.0])}, r"split 'train', row 1: label 4 is outside \[-3, 3\]"),
        ({"acoustic": np.ones((5, 3))}, "split 'train', audio, row 1: 3 features, but 2 before"),
    ],
)
def test_faults_are_told_by_their_rows(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        imported(tmp_path, splits(**changes))


def test_an_utterance_of_another_layout_is_told(tmp_path: Path) -> None:
    content = splits()
    content["train"][2] = ("words", 1.0)
    with pytest.raises(DataError, match=r"split 'train', row 2: is no \(\(words, visual, acoustic\), label, segment\)"):
        imported(tmp_path, content)
