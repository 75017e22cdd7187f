"""Tables beside folders of features: the same data as a pickle's is the same dataset, and faults are told."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.data.formats.importing import import_dataset
from deepmlf.errors import DataError
from tests.command import deepmlf
from tests.data.utterances import FOLDERS, TEXTS, Row, rows_of, write_csv, write_lines

WRITERS: dict[str, Callable[[Path, list[Row]], None]] = {
    "commas.csv": write_csv,
    "semicolons.csv": lambda path, rows: write_csv(path, rows, ";"),
    "tabs.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "lines.jsonl": write_lines,
    "columns.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
}


def imported(folder: Path, table: Path, **options: Any) -> Dataset:
    of_modalities = {modality: folder / modality for modality in FOLDERS}
    import_dataset(table, folder / "out", force=True, **(of_modalities | options))
    return Dataset.open(folder / "out")


@pytest.mark.parametrize("name", WRITERS)
def test_every_form_of_table_is_the_same_dataset_as_the_pickle(tmp_path: Path, pickled: str, name: str) -> None:
    WRITERS[name](tmp_path / name, rows_of(tmp_path))
    dataset = imported(tmp_path, tmp_path / name)
    assert dataset.split("train").ids == ["000", "001", "002"]
    assert [text for split in ("train", "valid", "test") for text in dataset.split(split).texts] == TEXTS
    assert dataset.info.fingerprint == pickled


def test_the_label_file_of_mmsa_is_a_table(tmp_path: Path, pickled: str) -> None:
    rows = []
    for row in rows_of(tmp_path):
        (tmp_path / "audio" / "clip").mkdir(exist_ok=True)
        (tmp_path / "audio" / f"{row['id']}.npy").rename(tmp_path / "audio" / "clip" / f"{row['id']}.npy")
        mood = "Negative" if row["label"] < 0 else "Positive"
        rows.append({"video_id": "clip", "clip_id": row["id"], "text": row["text"], "label": row["label"],
                     "label_T": 0, "annotation": mood, "mode": row["split"]})  # fmt: skip
    write_csv(tmp_path / "label.csv", rows)
    told: list[str] = []
    dataset = imported(tmp_path, tmp_path / "label.csv", vision=None, progress=told.append)
    assert dataset.split("test").ids[0] == "clip$_$006"
    assert dataset.info.missing == ["vision"]
    assert told[0] == f"{tmp_path / 'label.csv'}: columns label_T left out"
    as_classes = imported(tmp_path, tmp_path / "label.csv", vision=None, classification=True)
    assert as_classes.info.task.classes == ("Negative", "Positive")


def test_zeros_are_frames_and_no_frames_are_absence(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    np.save(tmp_path / "audio" / "000.npy", np.array([[0, 0, 0], [1, 2, 3], [0, 0, 0]], np.float64))
    np.save(tmp_path / "audio" / "001.npy", np.zeros((0, 3)))
    write_csv(tmp_path / "t.csv", rows)
    told: list[str] = []
    split = imported(tmp_path, tmp_path / "t.csv", progress=told.append).split("train")
    np.testing.assert_array_equal(split.audio(0), [[0, 0, 0], [1, 2, 3], [0, 0, 0]])
    assert split.audio(1).shape == (0, 3)
    assert "split 'train', audio: 1 of 3 utterances have no frames" in told


def test_whole_numbers_beside_others_are_fine(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    np.save(tmp_path / "audio" / "001.npy", np.array([[1, 2, 3]], np.int16))
    np.save(tmp_path / "audio" / "002.npy", np.array([[0.5, 2, 3]], ">f8"))
    write_csv(tmp_path / "t.csv", rows)
    split = imported(tmp_path, tmp_path / "t.csv").split("train")
    np.testing.assert_array_equal(split.audio(1), [[1, 2, 3]])
    np.testing.assert_array_equal(split.audio(2), [[0.5, 2, 3]])


def test_a_table_to_predict_needs_neither_labels_nor_splits(tmp_path: Path) -> None:
    rows = [{name: row[name] for name in ("id", "text")} for row in rows_of(tmp_path)]
    write_csv(tmp_path / "t.csv", rows)
    dataset = imported(tmp_path, tmp_path / "t.csv", unlabelled=True)
    assert dataset.info.splits == {"train": 0, "valid": 0, "test": 9}
    assert np.isnan(dataset.split("test").labels).all()


def without(column: str) -> Callable[[Path, list[Row]], list[Row]]:
    return lambda folder, rows: [{name: row[name] for name in row if name != column} for row in rows]


def changed(number: int, **values: Any) -> Callable[[Path, list[Row]], list[Row]]:
    return lambda folder, rows: [row | values if index == number else row for index, row in enumerate(rows)]


def with_array(array: Any) -> Callable[[Path, list[Row]], list[Row]]:
    def change(folder: Path, rows: list[Row]) -> list[Row]:
        np.save(folder / "audio" / "002.npy", array)
        return rows

    return change


def with_bytes(data: bytes | None) -> Callable[[Path, list[Row]], list[Row]]:
    def change(folder: Path, rows: list[Row]) -> list[Row]:
        path = folder / "audio" / "002.npy"
        path.unlink() if data is None else path.write_bytes(data)
        return rows

    return change


FAULTS: dict[str, tuple[Callable[[Path, list[Row]], list[Row]], str]] = {
    "no id": (without("id"), "column 'id' is missing; found split, text, label"),
    "no text": (without("text"), "column 'text' is missing; found id, split, label"),
    "no split": (without("split"), "column 'split' is missing; found id, text, label"),
    "no label": (without("label"), "column 'label' is missing; found id, split, text"),
    "unknown split": (changed(4, split="eval"), "row 4: split 'eval' is none of train, valid, test"),
    "no test": (lambda folder, rows: rows[:6], "no row is of split 'test'; data to predict only is imported with"),
    "no rows": (lambda folder, rows: [], "has no rows"),
    "double id": (changed(1, id="000"), "split 'train': id '000' occurs more than once"),
    "empty label": (changed(2, label=""), "split 'train', label, row 2: holds NaN or inf .or None., no label"),
    "label of words": (changed(2, label="good"), "split 'train', label, row 2: must hold numbers, but holds 'good'"),
    "label out of range": (changed(2, label=7), r"split 'train', row 2: label 7 is outside \[-3, 3\]"),
    "file missing": (with_bytes(None), r"--audio .*audio: 002.npy is missing; an array of no frames \[0, features\]"),
    "torn file": (with_bytes(b"\x93NUMPY\x01"), r"002.npy: not a whole .npy file of numbers"),
    "objects": (with_array(np.array([{"a": 1}], object)), r"002.npy: not a whole .npy file of numbers"),
    "one dimension": (with_array(np.ones(3)), r"002.npy: must be an array \[frames, features\], but is \[3\]"),
    "three dimensions": (with_array(np.ones((1, 2, 3))), r"002.npy: must be an array .*, but is \[1, 2, 3\]"),
    "other features": (with_array(np.ones((2, 4))), "split 'train', audio, row 2: 4 features, but 3 before"),
    "texts": (with_array(np.array([["a", "b", "c"]])), "split 'train', audio, row 2: must hold numbers"),
    "strings beside": (changed(3, label="1,5"), "split 'valid', label, row 0: must hold numbers, but holds '1,5'"),
    "complex": (with_array(np.ones((2, 3), complex)), "split 'train', audio, row 2: must hold real numbers, but holds"),
    "archive": (
        with_bytes(b"PK\x05\x06" + bytes(18)),
        r"002.npy: must be an array \[frames, features\], but is several",
    ),
    "infinity": (with_array(np.full((2, 3), np.inf)), r"split 'train', audio, row 2, frame 0: holds 6 values of \+inf"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_faulty_table_is_refused_by_what_is_wrong(tmp_path: Path, fault: str) -> None:
    change, message = FAULTS[fault]
    rows = change(tmp_path, rows_of(tmp_path))
    if rows:
        write_csv(tmp_path / "t.csv", rows)
    else:
        (tmp_path / "t.csv").write_text("id,split,text,label\n")
    with pytest.raises(DataError, match=message):
        imported(tmp_path, tmp_path / "t.csv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("t.csv", b"", "not a whole csv table .it is empty."),
        ("t.csv", b"id,text\n1,\xff\xfe\n", "t.csv: not a whole csv table"),
        ("t.csv", b"id,split,text,label\n1,train\n", "not a whole csv table .row 0 has 2 columns instead of 4."),
        ("t.csv", b"id,split,text,text,label\n1,train,a,b,0\n", "not a whole csv table .two columns are called text."),
        ("t.parquet", b"PAR1", "not a whole parquet table"),
        ("t.jsonl", b'{"id": 1}\n{"id"', "not a whole jsonl table"),
        ("t.jsonl", b"[1]\n", "not a whole jsonl table .a line holds no object."),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(DataError, match=message):
        import_dataset(tmp_path / name, tmp_path / "out")


@pytest.mark.parametrize("missing", [0, 1])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("id", "split 'train', id, row {}: must be an id, but is None"),
        ("split", "t.jsonl, row {}: split None is none of train, valid, test"),
        ("label", "split 'train', label, row {}: holds NaN or inf .or None., no label"),
    ],
)
def test_a_line_may_lack_what_others_have(tmp_path: Path, name: str, message: str, missing: int) -> None:
    rows = rows_of(tmp_path)
    write_lines(tmp_path / "t.jsonl", [{key: of[key] for key in of if (row, key) != (missing, name)}
                                       for row, of in enumerate(rows)])  # fmt: skip
    with pytest.raises(DataError, match=message.format(missing)):
        imported(tmp_path, tmp_path / "t.jsonl")


def test_a_line_without_a_text_has_an_empty_one_and_is_told(tmp_path: Path) -> None:
    rows = rows_of(tmp_path)
    del rows[1]["text"]
    write_lines(tmp_path / "t.jsonl", rows)
    told: list[str] = []
    assert imported(tmp_path, tmp_path / "t.jsonl", progress=told.append).split("train").texts[1] == ""
    assert told[0].startswith("split 'train': 1 of 3 texts are missing (None or NaN) and taken as empty")


def test_folders_must_be_there_and_go_with_a_table(tmp_path: Path, pickled: str) -> None:
    write_csv(tmp_path / "t.csv", rows_of(tmp_path))
    with pytest.raises(DataError, match="--audio .*nowhere: no such folder, nor a column of .*t.csv with arrays"):
        imported(tmp_path, tmp_path / "t.csv", audio=tmp_path / "nowhere")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(DataError, match="--audio .*nothing: holds no .npy file; it must have one for each utterance"):
        imported(tmp_path, tmp_path / "t.csv", audio=tmp_path / "nothing")
    with pytest.raises(DataError, match="--vision text: column 'text' of .*t.csv holds no arrays"):
        imported(tmp_path, tmp_path / "t.csv", vision="text")
    with pytest.raises(DataError, match="t.csv: No such file"):
        import_dataset(tmp_path / "gone" / "t.csv", tmp_path / "out")
    with pytest.raises(DataError, match="--audio: goes with a table; a pickle holds its features itself"):
        imported(tmp_path, tmp_path / "data.pkl")


def test_the_command_imports_a_table(tmp_path: Path) -> None:
    write_csv(tmp_path / "t.csv", rows_of(tmp_path))
    folders = ("--audio", tmp_path / "audio", "--vision", tmp_path / "vision")
    result = deepmlf("data", "import", tmp_path / "t.csv", tmp_path / "out", *folders)
    assert result.returncode == 0, result.stderr
    assert "3 train, 3 valid, 3 test; audio 3, vision 2 features; a number from -3 to 3" in result.stdout
