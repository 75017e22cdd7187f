"""Import of MMSA pickles: real data, ragged sequences, and every refusal by its text."""

import gzip
import os
import pickle
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deepmlf.cli.dataset_facts import describe
from deepmlf.data.dataset import Dataset
from deepmlf.data.formats.importing import import_dataset
from deepmlf.errors import DataError
from tests.data.mmsa_split import make_split, make_splits
from tests.read_only import folder_for_all, read_only


def write(path: Path, **changes: Any) -> Path:
    content = make_splits()
    for key, value in changes.items():
        content["train"][key] = value
    path.write_bytes(pickle.dumps(content))
    return path


def import_with(tmp_path: Path, **changes: Any) -> Dataset:
    import_dataset(write(tmp_path / "data.pkl", **changes), tmp_path / "out", force=True)
    return Dataset.open(tmp_path / "out")


def test_real_mosi(shared: Path, tmp_path: Path) -> None:
    info = import_dataset(shared / "data" / "mosi_text_audio.pkl", tmp_path / "mosi", lowercase=True)
    assert info.splits == {"train": 1170, "valid": 277, "test": 752}
    assert (info.audio_dim, info.vision_dim, info.missing) == (73, 1, ["vision"])
    split = Dataset.open(tmp_path / "mosi").split("test")
    assert all(text == text.lower() for text in split.texts)
    assert {len(split.vision(row)) for row in range(len(split))} == {0}
    assert describe(Dataset.open(tmp_path / "mosi"))["splits"]["train"]["labels"]["1"] == 583


def test_padding_is_dropped_and_values_kept(tmp_path: Path) -> None:
    split = import_with(tmp_path).split("train")
    source = make_split(tag="train")
    assert [len(split.audio(row)) for row in range(3)] == [6, 4, 6]
    for row in range(3):
        np.testing.assert_array_equal(split.audio(row), source["audio"][row][: len(split.audio(row))])
        np.testing.assert_array_equal(split.vision(row), source["vision"][row].astype(np.float32))
    assert split.texts == ["Text 0", "Text 1", "Text 2"]


def test_minus_infinity_becomes_zero_and_is_told(tmp_path: Path) -> None:
    audio = make_split()["audio"]
    audio[0, 2, 1] = audio[2, 0] = -np.inf
    told: list[str] = []
    import_dataset(write(tmp_path / "data.pkl", audio=audio), tmp_path / "out", progress=told.append)
    assert told == ["split 'train', audio: 3 values of -inf became 0 (in 2 of 3 rows)"]
    split = Dataset.open(tmp_path / "out").split("train")
    np.testing.assert_array_equal(split.audio(0), np.where(np.isneginf(audio[0]), 0, audio[0]))
    with pytest.raises(DataError, match=r"split 'train', audio, row 0, frame 0: holds 12 values of \+inf"):
        import_with(tmp_path, audio=np.full_like(audio, np.inf))


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_left(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="file/set: cannot be written .Not a directory"):
        import_dataset(write(tmp_path / "data.pkl"), tmp_path / "file" / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data.pkl", "file"]


def test_arrays_in_another_order_are_the_same_dataset(tmp_path: Path) -> None:
    """Rows that are spread over memory, and bytes in the order of other machines."""
    first = import_with(tmp_path).info.fingerprint
    audio, vision = make_split(tag="train")["audio"], make_split(tag="train")["vision"]
    assert import_with(tmp_path, audio=np.asfortranarray(audio)).info.fingerprint == first
    assert import_with(tmp_path, vision=vision.astype(">f8")).info.fingerprint == first
    assert import_with(tmp_path, audio=list(audio), vision=vision.tolist()).info.fingerprint == first


def test_a_folder_that_holds_no_temporary_files_is_told() -> None:
    with folder_for_all() as folder:
        path = write(folder / "data.pkl")
        with read_only(folder), pytest.raises(DataError, match=r": cannot be written \(Permission denied\)"):
            import_dataset(path, folder / "runs" / "out")


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_a_disk_that_is_full_is_told(tmp_path: Path, compress: Callable[[bytes], bytes], protocol: int) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(compress(pickle.dumps({name: make_split(300) for name in ("train", "valid", "test")}, protocol)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))  # as if nothing more had room
    try:
        with pytest.raises(DataError, match=re.escape(f"{tmp_path}: cannot be written (File too large)")):
            import_dataset(path, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.pkl"]


def test_given_lengths_decide(tmp_path: Path) -> None:
    split = import_with(tmp_path, audio_lengths=[1, 2, 6]).split("train")
    assert [len(split.audio(row)) for row in range(3)] == [1, 2, 6]


def test_a_dataset_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = write(tmp_path / "data.pkl")
    first = import_dataset(path, tmp_path / "out").fingerprint
    write(path, regression_labels=np.zeros(3))
    with pytest.raises(
        DataError, match="out: exists; choose another folder, or replace the dataset there with --force"
    ):
        import_dataset(path, tmp_path / "out")
    assert Dataset.open(tmp_path / "out").info.fingerprint == first
    assert import_dataset(path, tmp_path / "out", force=True).fingerprint != first
    (tmp_path / "empty").mkdir()
    import_dataset(path, tmp_path / "empty")


def test_the_other_splits_have_other_names(tmp_path: Path) -> None:
    path, told = tmp_path / "data.pkl", list[str]()
    splits = make_splits()
    path.write_bytes(pickle.dumps({"Val": 1, "dev": splits["valid"], "train": splits["train"], "test": splits["test"]}))
    import_dataset(path, tmp_path / "out", progress=told.append)
    assert told == [
        f"{path}: split 'dev' is taken as 'valid'",
        f"{path}: Val left out; only train, valid, test are imported",
    ]


def test_a_split_of_another_layout_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    for split, what in (
        ([1, 2], "is of type list"),
        (np.ones(3), "is of type ndarray"),
    ):
        path.write_bytes(pickle.dumps(make_splits() | {"test": split}))
        with pytest.raises(DataError, match=f"split 'test' must be a dict of raw_text, id, .*, but {what}"):
            import_dataset(path, tmp_path / "out")
    path.write_bytes(pickle.dumps(make_splits() | {"test": None}))
    with pytest.raises(DataError, match="split 'test' holds None; found train, valid, test; data to predict only"):
        import_dataset(path, tmp_path / "out")


def test_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    first = import_with(tmp_path).info.fingerprint
    assert import_with(tmp_path).info.fingerprint == first
    assert import_with(tmp_path, regression_labels=np.zeros(3)).info.fingerprint != first


def test_statistics_are_of_real_train_frames(tmp_path: Path) -> None:
    dataset = import_with(tmp_path)
    split = dataset.split("train")
    frames = np.concatenate([split.audio(row) for row in range(3)])
    np.testing.assert_allclose(dataset.info.audio_mean, frames.mean(0), rtol=1e-5)
    np.testing.assert_allclose(dataset.info.audio_std, frames.std(0), rtol=1e-5)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("true",)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": Evil()}, r"the pickle names (posix|nt).system; only numpy arrays and plain containers are admitted"),
        ({"vision": np.full((3, 5, 4), np.inf)}, r"split 'train', vision, row 0, frame 0: holds 20 values of \+inf"),
        ({"regression_labels": np.array([0, np.nan, 1])}, "split 'train', regression_labels, row 1: holds NaN or inf"),
        ({"regression_labels": np.array([0, 9.0, 1])}, r"split 'train', row 1: label 9 is outside \[-3, 3\]"),
        ({"regression_labels": np.zeros(0)}, "split 'train': 3 ids, but 0 entries in 'regression_labels'"),
        ({"audio": np.ones((2, 6, 2))}, "split 'train': 3 ids, but 2 entries in 'audio'"),
        ({"raw_text": ["a"]}, "split 'train': 3 ids, but 1 entries in 'raw_text'"),
        ({"audio": np.ones((3, 6))}, r"split 'train', audio, row 0: must be \[frames, features\], but has 1 axes"),
        ({"audio": np.ones((3, 6, 9))}, "split 'valid', audio, row 0: 2 features, but 9 before"),
        ({"audio_lengths": [1, 2, 99]}, "split 'train', audio, row 2: length 99 is outside 0 to 6"),
        ({"id": []}, "split 'train': is empty"),
        ({"id": ["a", "b", "a"]}, "split 'train': id 'a' occurs more than once"),
        ({"audio": [["x"]] * 3}, "split 'train', audio, row 0: must hold numbers, but holds a list of 1"),
        ({"raw_text": "abc"}, "split 'train': 'raw_text' must hold a value per utterance, but holds one str"),
        ({"id": None}, "split 'train': key 'id' is None; found"),
        ({"regression_labels": None}, "split 'train': key 'regression_labels' is None; found"),
        (
            {"regression_labels": [0, None, 1]},
            "split 'train', regression_labels, row 1: holds NaN or inf .or None., no label",
        ),
        ({"regression_labels": ["a", "b", "c"]}, "regression_labels, row 0: must hold numbers, but holds 'a'"),
        (
            {"regression_labels": [0, 4, 6]},
            "label 4 is outside .*; labels of another range .* --label-range LOW HIGH, classes with --task class",
        ),
        ({"regression_labels": np.eye(3)}, "a row of 'regression_labels' must have one label, but has 3"),
        ({"regression_labels": 1.0}, "'regression_labels' must hold a value per utterance, but holds one float"),
    ],
)
def test_refusals_name_the_place(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        import_with(tmp_path, **changes)
    assert not (tmp_path / "out").exists()


def test_missing_keys_and_splits_are_named(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"train": {"audio": []}, "valid": {}, "test": {}}))
    with pytest.raises(DataError, match="split 'train': key 'raw_text' is missing; found audio"):
        import_dataset(path, tmp_path / "out")
    path.write_bytes(pickle.dumps({"train": make_split()}))
    with pytest.raises(DataError, match="split 'valid' is missing; found train; data to predict only is imported with"):
        import_dataset(path, tmp_path / "out")
    path.write_bytes(pickle.dumps([1]))
    with pytest.raises(DataError, match="must hold a dict of splits, but got list"):
        import_dataset(path, tmp_path / "out")


def test_data_to_predict_may_lack_labels_and_splits(tmp_path: Path) -> None:
    path, split = tmp_path / "data.pkl", make_split()
    del split["regression_labels"]
    path.write_bytes(pickle.dumps({"test": split}))
    with pytest.raises(DataError, match="split 'train' is missing; found test"):
        import_dataset(path, tmp_path / "out")
    import_dataset(path, tmp_path / "out", unlabelled=True)
    dataset = Dataset.open(tmp_path / "out")
    assert dataset.info.splits == {"train": 0, "valid": 0, "test": 3}
    assert np.isnan(dataset.split("test").labels).all()
    np.testing.assert_array_equal(dataset.split("test").audio(1), split["audio"][1, :4])
    facts = describe(dataset)["splits"]
    assert facts["train"] == {"utterances": 0, "unlabelled": 0}
    assert facts["test"]["unlabelled"] == 3
    assert set(facts["test"]["labels"].values()) == {0}
    with pytest.raises(DataError, match="train is empty; such data is for `deepmlf predict`"):
        dataset.require_labels("train")
    with pytest.raises(DataError, match="test holds utterances without a label; such data is for `deepmlf predict`"):
        dataset.require_labels("test")


def test_what_is_there_of_data_to_predict_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps({"test": make_split() | {"regression_labels": [0.5, np.nan, 9]}}))
    with pytest.raises(DataError, match=r"split 'test', row 2: label 9 is outside \[-3, 3\]"):
        import_dataset(path, tmp_path / "out", unlabelled=True)
    path.write_bytes(pickle.dumps({"test": make_split() | {"regression_labels": [0.5, np.nan, 1]}}))
    import_dataset(path, tmp_path / "out", unlabelled=True)
    facts = describe(Dataset.open(tmp_path / "out"))["splits"]["test"]
    assert (facts["unlabelled"], sum(facts["labels"].values())) == (1, 2)
    path.write_bytes(pickle.dumps({"Test": make_split()}))
    with pytest.raises(DataError, match="split 'train' is missing; found Test"):
        import_dataset(path, tmp_path / "other", unlabelled=True)


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no.pkl: No such file or directory"):
        import_dataset(tmp_path / "no.pkl", tmp_path / "out")
    whole = write(tmp_path / "data.pkl").read_bytes()
    (tmp_path / "torn.pkl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="torn.pkl: not a whole pickle"):
        import_dataset(tmp_path / "torn.pkl", tmp_path / "out")
    with pytest.raises(
        DataError, match="--dataset x: is none of mosi, mosei, sims, so say what its labels are: --label-range"
    ):
        import_dataset(tmp_path / "data.pkl", tmp_path / "out", "x")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(DataError, match="out: exists and is no dataset; choose another folder"):
        import_dataset(tmp_path / "data.pkl", tmp_path / "out")


def test_opening_something_else_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not an imported dataset; make one with `deepmlf data import SOURCE OUT`"):
        Dataset.open(tmp_path)
    dataset = import_with(tmp_path)
    (tmp_path / "out" / "test.arrow").write_bytes(b"torn")
    with pytest.raises(DataError, match=r"test.arrow: missing or torn .*; import the dataset again"):
        dataset.split("test")
