"""Features in columns: of Parquet files, and of tables of pyarrow and pandas in memory."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import deepmlf
from deepmlf.data.dataset import Dataset
from deepmlf.errors import DataError
from tests.data.utterances import FOLDERS, Row, arrays_of, rows_of

KINDS = {
    "list": lambda dim: pa.list_(pa.list_(pa.float32())),
    "large list": lambda dim: pa.large_list(pa.large_list(pa.float64())),
    "fixed list": lambda dim: pa.list_(pa.list_(pa.float32(), dim)),
}


def table_of(folder: Path, kind: str = "list", **changes: Callable[[list[Any]], list[Any]]) -> pa.Table:
    """A table with the features in columns, whose values `changes` may change."""
    rows = rows_of(folder)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    for modality, dim in zip(FOLDERS, (3, 2), strict=True):
        cells = [frames.tolist() for frames in arrays_of(folder, rows, modality)]
        if modality not in changes:
            columns[modality] = pa.array(cells, KINDS[kind](dim))
        else:
            columns[modality] = changes[modality](cells)
    columns |= {name: change(columns[name]) for name, change in changes.items() if name not in FOLDERS}
    return pa.table(columns)


def frame_of(folder: Path) -> pd.DataFrame:
    rows = rows_of(folder)
    return pd.DataFrame(rows).assign(**{of: arrays_of(folder, rows, of) for of in FOLDERS})


def imported(source: Any, out: Path, **options: Any) -> Dataset:
    deepmlf.import_dataset(source, out, force=True, **options)
    return Dataset.open(out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 4, 9])
def test_columns_of_arrow_are_the_same_dataset_as_the_pickle(
    tmp_path: Path, pickled: str, kind: str, chunk: int
) -> None:
    table = table_of(tmp_path, kind)
    chunks = pa.concat_tables([table.slice(start, chunk) for start in range(0, len(table), chunk)])
    assert imported(chunks, tmp_path / "out").info.fingerprint == pickled
    pq.write_table(table, tmp_path / "t.parquet", row_group_size=chunk)
    assert imported(tmp_path / "t.parquet", tmp_path / "out").info.fingerprint == pickled


def test_a_data_frame_is_the_same_dataset_as_the_pickle(tmp_path: Path, pickled: str) -> None:
    assert imported(frame_of(tmp_path), tmp_path / "out").info.fingerprint == pickled
    shuffled = frame_of(tmp_path).rename(columns={"audio": "covarep"}).iloc[::-1].iloc[::-1]
    assert imported(shuffled, tmp_path / "out", audio="covarep").info.fingerprint == pickled
    folders = {of: tmp_path / of for of in FOLDERS}
    assert imported(pd.DataFrame(rows_of(tmp_path)), tmp_path / "out", **folders).info.fingerprint == pickled


def test_rows_of_splits_may_be_mixed(tmp_path: Path) -> None:
    frame = frame_of(tmp_path)
    mixed = imported(frame.iloc[[8, 0, 3, 6, 1, 4, 7, 2, 5]], tmp_path / "out")
    assert mixed.split("test").ids == ["008", "006", "007"]
    np.testing.assert_array_equal(mixed.split("test").audio(0), frame["audio"][8])
    np.testing.assert_array_equal(mixed.split("valid").vision(2), frame["vision"][5])


def test_missing_values_of_pandas_are_what_they_stand_for(tmp_path: Path) -> None:
    frame = frame_of(tmp_path).astype({"text": "string"})
    frame.loc[1, "text"] = pd.NA
    frame.at[2, "audio"] = None
    told: list[str] = []
    split = imported(frame, tmp_path / "out", progress=told.append).split("train")
    assert split.texts[1] == ""
    assert [len(split.audio(row)) for row in range(3)] == [2, 3, 0]
    assert [line for line in told if "train" in line] == [
        "split 'train': 1 of 3 texts are missing (None or NaN) and taken as empty (the first in row 1)",
        "split 'train', audio: 1 of 3 utterances have no frames",
    ]


def test_lengths_in_a_column_say_what_is_padding(tmp_path: Path) -> None:
    frame = frame_of(tmp_path)
    lengths = [len(frames) for frames in frame["audio"]]
    frame["audio"] = [np.pad(frames, ((0, 6 - len(frames)), (0, 0))) for frames in frame["audio"]]
    told: list[str] = []
    assert len(imported(frame, tmp_path / "out", progress=told.append).split("train").audio(0)) == 6
    assert told[0] == (
        "split 'train', audio: all frames count, though 3 of 3 rows begin or end with zeros; if those are padding, "
        "give the number of frames in a column 'audio_lengths'"
    )
    split = imported(frame.assign(audio_lengths=lengths), tmp_path / "out").split("train")
    assert [len(split.audio(row)) for row in range(3)] == lengths[:3]


def test_columns_that_are_not_used_are_told(tmp_path: Path) -> None:
    table = table_of(tmp_path).append_column("speaker", pa.array(["x"] * 9))
    table = table.append_column("wav", pa.array([[0.5, 0.25]] * 9)).rename_columns({"audio": "covarep"})
    told: list[str] = []
    assert imported(table, tmp_path / "out", progress=told.append).info.missing == ["audio"]
    assert told[0] == "the table: columns covarep, speaker, wav left out"
    with_folder = imported(table_of(tmp_path), tmp_path / "out", audio=tmp_path / "audio", progress=told.append)
    assert with_folder.info.missing == []
    assert "the table: columns audio left out" in told


def of_third(change: Callable[[Any], Any]) -> Callable[[list[Any]], list[Any]]:
    return lambda cells: [change(cell) if row == 2 else cell for row, cell in enumerate(cells)]


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "other features": (
        {"audio": of_third(lambda cell: [[1.0] * 4])},
        "split 'train', audio, row 2: 4 features, but 3 before",
    ),
    "frames that differ": (
        {"audio": of_third(lambda cell: [[1.0, 2, 3], [1.0]])},
        "the table, audio, row 2: frames have 3 and 1 features; all must have as many",
    ),
    "a frame is null": (
        {"audio": of_third(lambda cell: [[1.0, 2, 3], None])},
        "the table, audio, row 2: frames have 3 and none features; all must have as many",
    ),
    "one axis": (
        {"audio": lambda cells: [cell[0] for cell in cells]},
        r"split 'train', audio, row 0: must be \[frames, features\], but has 1 axes; one vector per utterance is one "
        r"frame, audio\[:, None, :\]",
    ),
    "three axes": (
        {"audio": lambda cells: [[cell] for cell in cells]},
        r"split 'train', audio, row 0: must be \[frames, features\], but has 3 axes",
    ),
    "infinity": (
        {"audio": of_third(lambda cell: [[1.0, np.inf, 3]])},
        r"split 'train', audio, row 2, frame 0: holds 1 values of \+inf; put a number in their place",
    ),
    "double id": ({"id": of_third(lambda cell: "001")}, r"split 'train': id '001' occurs more than once \(rows 1 and"),
    "unknown split": ({"split": of_third(lambda cell: "eval")}, "the table, row 2: split 'eval' is none of train"),
    "label of words": (
        {"label": lambda cells: ["good"] * 9},
        "row 0: must hold numbers, but holds 'good'; --task classification takes names of classes",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_column_is_refused_by_what_is_wrong(tmp_path: Path, fault: str) -> None:
    changes, message = FAULTS[fault]
    with pytest.raises(DataError, match=message):
        imported(table_of(tmp_path, **changes), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def changed(frame: pd.DataFrame, column: str, row: int, value: Any) -> pd.DataFrame:
    cells = frame[column].astype(object)
    cells.iat[row] = value
    return frame.assign(**{column: cells})


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("audio", np.ones((2, 4)), "split 'train', audio, row 1: 4 features, but 3 before"),
        ("audio", np.ones(3), r"split 'train', audio, row 1: must be \[frames, features\], but has 1 axes"),
        ("audio", np.ones((1, 2, 3)), r"split 'train', audio, row 1: must be \[frames, features\], but has 3 axes"),
        ("audio", [[1.0, 2.0, 3.0], [1.0]], "split 'train', audio, row 1: must hold numbers, but holds a list of 2"),
        ("audio", np.array([["a", "b", "c"]]), "split 'train', audio, row 1: must hold numbers, but holds an array"),
        ("audio", "a.wav", "split 'train', audio, row 1: must hold numbers, but holds 'a.wav'"),
        ("text", 7, "the table: column 'text' holds values of several kinds .*"),
        ("label", "good", "the table: column 'label' holds values of several kinds .*"),
        ("id", None, "split 'train', id, row 1: must be an id, but is None"),
        ("label", None, r"split 'train', label, row 1: holds NaN or inf \(or None\), no label"),
    ],
)
def test_a_faulty_cell_is_refused_by_what_is_wrong(tmp_path: Path, column: str, value: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        imported(changed(frame_of(tmp_path), column, 1, value), tmp_path / "out")


def test_whole_numbers_beside_others_are_fine(tmp_path: Path) -> None:
    frame = changed(frame_of(tmp_path), "audio", 1, np.array([[1, 2, 3]], np.int64))
    np.testing.assert_array_equal(imported(frame, tmp_path / "out").split("train").audio(1), [[1, 2, 3]])


def rows_without(folder: Path, column: str) -> list[Row]:
    return [{name: value for name, value in row.items() if name != column} for row in rows_of(folder)]


def test_what_is_no_table_and_what_lacks_something_is_refused(tmp_path: Path) -> None:
    frame, out = frame_of(tmp_path), tmp_path / "out"
    with pytest.raises(DataError, match="the source must be a path, a pandas DataFrame or a pyarrow Table, but is int"):
        imported(3, out)
    with pytest.raises(DataError, match="the table: has no rows"):
        imported(frame.iloc[:0], out)
    with pytest.raises(DataError, match="the table: column 'text' is missing; found id, split, label, audio, vision"):
        imported(frame.drop(columns="text"), out)
    with pytest.raises(DataError, match="two columns are called text"):
        imported(pd.concat([frame, frame[["text"]]], axis=1), out)
    with pytest.raises(
        DataError,
        match=r"--audio covarep: no such folder, nor a column of the table with arrays \(those are audio, vision\)",
    ):
        imported(frame, out, audio="covarep")
    with pytest.raises(DataError, match="--audio text: column 'text' of the table holds no arrays"):
        imported(frame, out, audio="text")
    assert not out.exists()


def test_a_column_that_is_a_folder_too_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = frame_of(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="--audio audio: is a column of the table and a folder, too; rename one"):
        imported(frame, tmp_path / "out", audio="audio")


def test_a_torn_parquet_file_is_told(tmp_path: Path) -> None:
    pq.write_table(table_of(tmp_path), tmp_path / "t.parquet", compression="none")
    whole = (tmp_path / "t.parquet").read_bytes()
    (tmp_path / "t.parquet").write_bytes(whole[:-30])
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / 't.parquet'}: not a whole parquet table")):
        imported(tmp_path / "t.parquet", tmp_path / "out")
    with pytest.raises(DataError, match=r"no\.parquet: No such file"):
        imported(tmp_path / "no.parquet", tmp_path / "out")
