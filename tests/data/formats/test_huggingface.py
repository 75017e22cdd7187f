"""What Hugging Face's ``datasets`` saves is the same dataset as the pickle, and faults are told."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.data.formats.importing import import_dataset
from deepmlf.errors import DataError
from tests.command import deepmlf
from tests.data.utterances import FOLDERS, arrays_of, rows_of

PLAIN = {"id": datasets.Value("string"), "text": datasets.Value("string"), "label": datasets.Value("float64")}
KINDS: dict[str, Callable[[int], Any]] = {
    "Array2D": lambda dim: datasets.Array2D((None, dim), "float32"),
    "lists": lambda dim: datasets.List(datasets.List(datasets.Value("float32"))),
    "lists of one length": lambda dim: datasets.List(datasets.List(datasets.Value("float64"), length=dim)),
    "large lists": lambda dim: datasets.LargeList(datasets.LargeList(datasets.Value("float32"))),
}


def rows_with_arrays(folder: Path) -> list[dict[str, Any]]:
    rows = rows_of(folder)
    frames = {of: arrays_of(folder, rows, of) for of in FOLDERS}
    return [row | {of: frames[of][number] for of in FOLDERS} for number, row in enumerate(rows)]


def dataset_of(rows: list[dict[str, Any]], kind: str = "Array2D", **features: Any) -> datasets.Dataset:
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    of_arrays = {of: KINDS[kind](dim) for of, dim in zip(FOLDERS, (3, 2), strict=True)}
    every = PLAIN | {"split": datasets.Value("string")} | of_arrays | features
    return datasets.Dataset.from_dict(columns, datasets.Features({name: every[name] for name in columns}))


def by_split(rows: list[dict[str, Any]], kind: str = "Array2D", valid: str = "validation") -> datasets.DatasetDict:
    parts = {}
    for split in ("train", "valid", "test"):
        own = [{name: row[name] for name in row if name != "split"} for row in rows if row["split"] == split]
        parts[valid if split == "valid" else split] = dataset_of(own, kind)
    return datasets.DatasetDict(parts)


def imported(folder: Path, saved: Any, **options: Any) -> Dataset:
    shutil.rmtree(folder / "saved", ignore_errors=True)
    saved.save_to_disk(folder / "saved")
    import_dataset(folder / "saved", folder / "out", force=True, **options)
    return Dataset.open(folder / "out")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("valid", ["valid", "validation"])
def test_a_dataset_dict_is_the_same_dataset_as_the_pickle(tmp_path: Path, pickled: str, kind: str, valid: str) -> None:
    rows = rows_with_arrays(tmp_path)
    assert imported(tmp_path, by_split(rows, kind, valid)).info.fingerprint == pickled


@pytest.mark.parametrize("kind", KINDS)
def test_a_dataset_with_a_column_of_splits_is_the_same_dataset(tmp_path: Path, pickled: str, kind: str) -> None:
    rows = rows_with_arrays(tmp_path)
    assert imported(tmp_path, dataset_of(rows, kind)).info.fingerprint == pickled


def test_several_files_and_a_selection_are_the_same_dataset(tmp_path: Path, pickled: str) -> None:
    rows = rows_with_arrays(tmp_path)
    backwards = dataset_of(rows[::-1])
    backwards.select(range(8, -1, -1)).save_to_disk(tmp_path / "saved", num_shards=4)
    import_dataset(tmp_path / "saved", tmp_path / "out")
    assert Dataset.open(tmp_path / "out").info.fingerprint == pickled


def test_features_may_lie_in_folders_and_in_columns_of_other_names(tmp_path: Path, pickled: str) -> None:
    plain = [{name: row[name] for name in row if name not in FOLDERS} for row in rows_with_arrays(tmp_path)]
    folders = {of: tmp_path / of for of in FOLDERS}
    assert imported(tmp_path, dataset_of(plain), **folders).info.fingerprint == pickled
    renamed = dataset_of(rows_with_arrays(tmp_path)).rename_column("audio", "covarep")
    assert imported(tmp_path, renamed, audio="covarep").info.fingerprint == pickled


def test_classes_have_their_names(tmp_path: Path) -> None:
    rows = [row | {"label": row_number % 2} for row_number, row in enumerate(rows_with_arrays(tmp_path))]
    saved = dataset_of(rows, label=datasets.ClassLabel(names=["sad", "glad"]))
    dataset = imported(tmp_path, saved, dataset="own", classification=True)
    assert dataset.info.task.classes == ("glad", "sad")
    assert dataset.split("train").labels.tolist() == [1, 0, 1]
    with pytest.raises(DataError, match="must hold numbers, but holds 'sad'; --task classification takes names of"):
        imported(tmp_path, saved)
    whole = dataset_of(rows, label=datasets.Value("int64"))
    assert imported(tmp_path, whole, dataset="own", classification=True).info.task.classes == ("0", "1")
    rows[1]["label"] = -1  # ClassLabel's sign for none
    saved = dataset_of(rows, label=datasets.ClassLabel(names=["sad", "glad"]))
    with pytest.raises(DataError, match="split 'train', label, row 1: holds no label"):
        imported(tmp_path, saved, dataset="own", classification=True)
    unlabelled = imported(tmp_path, saved, dataset="own", classification=True, unlabelled=True)
    assert np.isnan(unlabelled.split("train").labels).tolist() == [False, True, False]


def test_other_splits_and_columns_are_told(tmp_path: Path) -> None:
    rows = rows_with_arrays(tmp_path)
    saved = by_split(rows)
    saved["extra"] = saved["train"]
    saved["dev"] = saved["train"]
    saved = saved.map(lambda row: row | {"speaker": "x", "split": "test"})
    told: list[str] = []
    imported(tmp_path, saved, progress=told.append)
    assert f"{tmp_path / 'saved'}: extra, dev left out; only train, valid, test are imported" in told
    assert f"{tmp_path / 'saved'}: columns speaker left out" in told
    assert f"{tmp_path / 'saved'}: column split of 'train' left out; the splits of the DatasetDict count" in told


def test_data_to_predict_needs_neither_labels_nor_splits(tmp_path: Path) -> None:
    rows = [{name: row[name] for name in ("id", "text", "audio")} for row in rows_with_arrays(tmp_path)]
    dataset = imported(tmp_path, dataset_of(rows), unlabelled=True)
    assert dataset.info.splits == {"train": 0, "valid": 0, "test": 9}
    assert dataset.info.missing == ["vision"]


def test_a_faulty_dataset_is_refused_by_what_is_wrong(tmp_path: Path) -> None:
    rows, out = rows_with_arrays(tmp_path), tmp_path / "out"
    with pytest.raises(DataError, match="saved: column 'split' is missing; found id, text, label, audio, vision"):
        imported(tmp_path, dataset_of([{name: row[name] for name in row if name != "split"} for row in rows]))
    with pytest.raises(DataError, match="saved: no row is of split 'test'; data to predict only is imported with"):
        imported(tmp_path, datasets.DatasetDict({"train": dataset_of(rows[:3]), "dev": dataset_of(rows[3:6])}))
    with pytest.raises(DataError, match="saved: none of its splits is one of train, valid, test; found fold"):
        imported(tmp_path, datasets.DatasetDict({"fold": dataset_of(rows)}))
    with pytest.raises(DataError, match="saved, row 4: split 'eval' is none of train, valid, test"):
        imported(tmp_path, dataset_of([row | {"split": "eval"} if row["id"] == "004" else row for row in rows]))
    with pytest.raises(DataError, match="saved: has no rows"):
        imported(tmp_path, dataset_of(rows).select([]))
    different = by_split(rows)
    different["test"] = dataset_of(rows[6:], "lists of one length")
    with pytest.raises(DataError, match="saved: its splits have different columns, .* and "):
        imported(tmp_path, different)
    assert not out.exists()


def test_a_damaged_folder_is_told(tmp_path: Path) -> None:
    saved, out = tmp_path / "saved", tmp_path / "out"
    dataset_of(rows_with_arrays(tmp_path)).save_to_disk(saved)
    (file,) = saved.glob("*.arrow")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"data-00000-of-00001.arrow: missing or torn \(.*\); save it again"):
        import_dataset(saved, out)
    file.unlink()
    with pytest.raises(DataError, match=r"arrow: missing or torn \(No such file or directory\); save it again"):
        import_dataset(saved, out)
    (saved / "state.json").write_text(json.dumps({}))
    with pytest.raises(DataError, match=r"state\.json: damaged, or of another release of Hugging Face's datasets"):
        import_dataset(saved, out)
    (saved / "state.json").unlink()
    with pytest.raises(DataError, match=r"saved: a folder that `save_to_disk` .* \(it has neither dataset_dict\.json"):
        import_dataset(saved, out)
    assert not out.exists()


def test_the_command_imports_it(tmp_path: Path) -> None:
    by_split(rows_with_arrays(tmp_path)).save_to_disk(tmp_path / "saved")
    result = deepmlf("data", "import", tmp_path / "saved", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert "3 train, 3 valid, 3 test; audio 3, vision 2 features; a number from -3 to 3" in result.stdout
