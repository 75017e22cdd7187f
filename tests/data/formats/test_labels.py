"""Labels of other kinds than MOSI's: numbers of any range, and classes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepmlf.cli.dataset_facts import describe
from deepmlf.data.dataset import Dataset, DatasetInfo
from deepmlf.data.formats.importing import import_dataset
from deepmlf.data.task import KNOWN, Task
from deepmlf.errors import DataError
from tests.command import deepmlf
from tests.data.mmsa_split import make_splits

EMOTIONS = {"train": ["joy", "anger", "joy"], "valid": ["anger", "fear", "joy"], "test": ["joy", "joy", "anger"]}


def write(path: Path, key: str, labels: dict[str, Any]) -> Path:
    content = make_splits()
    for name, split in content.items():
        del split["regression_labels"]
        split[key] = labels[name]
    path.write_bytes(pickle.dumps(content))
    return path


def imported(tmp_path: Path, key: str, labels: dict[str, Any], **options: Any) -> Dataset:
    import_dataset(write(tmp_path / "data.pkl", key, labels), tmp_path / "out", "own", force=True, **options)
    return Dataset.open(tmp_path / "out")


def labels_of(dataset: Dataset) -> dict[str, list[float]]:
    return {name: dataset.split(name).labels.tolist() for name in ("train", "valid", "test")}


def test_ratings_keep_their_range(tmp_path: Path) -> None:
    ratings = {"train": [1, 5, 3.5], "valid": [2, 2, 4], "test": [5, 1, 1]}
    dataset = imported(tmp_path, "regression_labels", ratings, label_range=(1, 5))
    assert dataset.info.task == Task.number(1, 5)
    assert labels_of(dataset) == ratings
    assert describe(dataset)["splits"]["valid"]["labels"] == {
        "1": 0, "1.5": 0, "2": 2, "2.5": 0, "3": 0, "3.5": 0, "4": 1, "4.5": 0, "5": 0,
    }  # fmt: skip
    targets = dataset.info.task.targets(np.array([1.0, 2.0, 3.0, 5.0], np.float32))
    np.testing.assert_allclose(targets, [-3, -1.5, 0, 3], rtol=1e-6)
    np.testing.assert_allclose(dataset.info.task.values(targets[:, None]), [1, 2, 3, 5], rtol=1e-6)


@pytest.mark.parametrize(("low", "high", "shown"), [(0, 100, 11), (0, 1e-9, 11), (-1e30, 1e30, 11), (1, 10, 10)])
def test_any_range_has_a_histogram(tmp_path: Path, low: float, high: float, shown: int) -> None:
    labels = dict.fromkeys(EMOTIONS, [low, high, high])
    dataset = imported(tmp_path, "regression_labels", labels, label_range=(low, high))
    found = describe(dataset)["splits"]["train"]["labels"]
    assert (len(found), found[f"{low:.6g}"], found[f"{high:.6g}"]) == (shown, 1, 2)


def test_whole_ratings_are_taken_for_numbers_if_a_range_is_given(tmp_path: Path) -> None:
    stars = {"train": [1, 5, 3], "valid": [2, 2, 4], "test": [5, 1, 1]}
    assert imported(tmp_path, "regression_labels", stars, label_range=(1, 5)).info.task.outputs == 1


@pytest.mark.parametrize(
    ("key", "given", "classes"),
    [
        ("annotations", EMOTIONS, ("anger", "fear", "joy")),
        ("labels", {name: np.array(names, dtype="S5") for name, names in EMOTIONS.items()}, ("anger", "fear", "joy")),
        (
            "classification_labels",
            {"train": [0.0, 2.0, 10.0], "valid": [2, 0, 2], "test": [10, 0, 0]},
            ("0", "2", "10"),
        ),
        ("regression_labels", {name: np.array([[0], [1], [-1]]) for name in EMOTIONS}, ("-1", "0", "1")),
    ],
)
def test_classes_have_the_names_of_the_data(
    tmp_path: Path, key: str, given: dict[str, Any], classes: tuple[str, ...]
) -> None:
    dataset = imported(tmp_path, key, given, classification=True)
    assert dataset.info.task == Task.choice(classes)
    for split, labels in labels_of(dataset).items():
        wanted = [value.decode() if isinstance(value, bytes) else value for value in np.ravel(given[split]).tolist()]
        assert [classes[int(label)] for label in labels] == [
            value if isinstance(value, str) else str(int(value)) for value in wanted
        ]
    assert list(describe(dataset)["splits"]["train"]["labels"]) == list(classes)


def test_names_come_before_numbers_of_the_same_classes(tmp_path: Path) -> None:
    content = make_splits()
    for name, split in content.items():
        split |= {"annotations": EMOTIONS[name], "classification_labels": [0, 1, 2]}
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    info = import_dataset(tmp_path / "data.pkl", tmp_path / "out", "own", classification=True)
    assert info.task.classes == ("anger", "fear", "joy")


def test_a_class_that_train_lacks_is_told(tmp_path: Path) -> None:
    told: list[str] = []
    imported(tmp_path, "annotations", EMOTIONS, classification=True, progress=told.append)
    assert told == ["split 'train': has no utterance of fear", "split 'test': has no utterance of fear"]


@pytest.mark.parametrize(
    ("labels", "options", "message"),
    [
        ([1, 6, 2], {"label_range": (1, 5)}, r"split 'train', row 1: label 6 is outside \[1, 5\]; labels of another"),
        ([1, 2, 3], {"label_range": (5, 1)}, "--label-range 5 1: must be two numbers, the smaller one first"),
        ([1, 2, 3], {"label_range": (0, np.inf)}, "--label-range 0 inf: must be two numbers"),
        ([1, 2, 3], {}, "--dataset own: is none of mosi, mosei, sims, so say what its labels are: --label-range LOW"),
        ([0.5, 1, 2], {"classification": True}, "row 0: must be the name or the number of a class, but is 0.5"),
        (["a", None, "b"], {"classification": True}, "split 'train', .*, row 1: holds no label; leave the utterance"),
        ([np.inf, 1.0, 2.0], {"classification": True}, "row 0: must be the name or the number of a class, but is inf"),
        (["a", "b"], {"classification": True}, "split 'train': 3 ids, but 2 entries in 'regression_labels'"),
        ("abc", {"classification": True}, "'regression_labels' must hold a value per utterance, but holds one str"),
    ],
)
def test_other_labels_than_said_are_refused(tmp_path: Path, labels: Any, options: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "data.pkl", "regression_labels", {"train": labels, "valid": [1, 2, 1], "test": [2, 1, 1]})
    with pytest.raises(DataError, match=message):
        import_dataset(path, tmp_path / "out", "own", **options)
    assert not (tmp_path / "out").exists()


def test_one_class_and_more_than_a_hundred_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs two classes at least, but all labels are joy"):
        imported(tmp_path, "annotations", dict.fromkeys(EMOTIONS, ["joy"] * 3), classification=True)
    content = {name: split | {"annotations": ["a", "b", "c"]} for name, split in make_splits().items()}
    many = 101
    content["train"] = {
        "id": [str(row) for row in range(many)], "raw_text": ["x"] * many, "annotations": list(range(many)),
        "audio": np.ones((many, 2, 2)), "vision": np.ones((many, 2, 4)),
    }  # fmt: skip
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match="annotations: 104 different labels are too many for classes"):
        import_dataset(tmp_path / "data.pkl", tmp_path / "out", "own", classification=True)


def test_unlabelled_utterances_have_no_class(tmp_path: Path) -> None:
    labels = {"train": ["a", None, "b"], "valid": [None] * 3, "test": [np.nan] * 3}
    dataset = imported(tmp_path, "annotations", labels, classification=True, unlabelled=True)
    np.testing.assert_array_equal(dataset.split("train").labels, [0, np.nan, 1])
    assert np.isnan(dataset.split("test").labels).all()
    with pytest.raises(DataError, match="holds utterances without a label"):
        dataset.require_labels("train")


def test_classes_are_part_of_the_fingerprint(tmp_path: Path) -> None:
    same = {name: [{"joy": "glad"}.get(word, word) for word in words] for name, words in EMOTIONS.items()}
    first = imported(tmp_path, "annotations", EMOTIONS, classification=True).info.fingerprint
    assert imported(tmp_path, "annotations", same, classification=True).info.fingerprint != first


def test_datasets_of_earlier_releases_are_known_by_their_names(small_data: Path) -> None:
    info = Dataset.open(small_data).info
    earlier = info.model_dump(exclude={"task"})
    assert DatasetInfo.model_validate(earlier | {"name": "sims"}).task == KNOWN["sims"]
    assert DatasetInfo.model_validate(earlier).fingerprint == info.fingerprint


def test_the_command_takes_a_range_or_classes(tmp_path: Path) -> None:
    path = write(tmp_path / "data.pkl", "annotations", EMOTIONS)
    result = deepmlf("data", "import", path, tmp_path / "out", "--dataset", "meld", "--task", "classification")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith("audio 2, vision 4 features; one of 3 classes\n")
    shown = deepmlf("data", "info", tmp_path / "out").stdout
    assert "task: one of 3 classes" in shown
    assert "  labels: anger: 1, fear: 0, joy: 2" in shown
    both = deepmlf("data", "import", path, tmp_path / "o", "--label-range", "1", "5", "--task", "classification")
    assert both.returncode == 2
    assert "give one of them" in both.stderr
