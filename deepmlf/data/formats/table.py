"""A table of utterances beside folders of features, as extractors write them: one ``.npy`` file for each utterance."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deepmlf.data.dataset import SPLITS
from deepmlf.data.formats.content import LABEL, VALID_NAMES, Content
from deepmlf.data.values import ID_JOINT, read_ids
from deepmlf.errors import DataError, first_line
from deepmlf.progress import bar

_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")
_COLUMNS = ("id", "split", "text", LABEL)
_OF_MMSA = {"mode": "split", "annotation": "annotations"}
"""Columns of MMSA's label.csv under other names; its ids are in two columns."""


def is_table(path: Path) -> bool:
    """Whether a file is a table, by its name."""
    return path.suffix.lower() in _SUFFIXES


def read_table(path: Path, folders: Mapping[str, Path], *, unlabelled: bool, say: Callable[[str], None]) -> Content:
    """The splits of a table, with the features of its utterances.

    Columns are ``id``, ``split`` (``train``, ``valid``, ``test``), ``text`` and ``label``; or those of MMSA's
    ``label.csv``: ``video_id``, ``clip_id``, ``mode``, ``text``, ``label``, ``annotation``. Others are left out. An
    utterance ``a`` has its features in ``a.npy`` of each folder, ``a$_$1`` also in ``a/1.npy``; zeros are frames like
    any other, and an array of no frames stands for an utterance without the modality.

    Args:
        path: A ``.csv``, ``.tsv``, ``.parquet`` or ``.jsonl`` file.
        folders: Folder of each modality (``audio``, ``vision``) that there is.
        unlabelled: Labels and splits may be missing; without a column ``split`` all is ``test``.
        say: Called with one line on what was not taken as it is.

    Raises:
        DataError: If the table lacks a column or a split, or an utterance its features.
    """
    rows = _rows(path)
    if not rows:
        raise DataError(f"{path}: has no rows")
    columns = list(dict.fromkeys(name for row in rows for name in row))  # a line may lack what others have
    has_split = "split" in columns
    for name in ("id", "text", *(() if unlabelled else ("split", LABEL))):
        if name not in columns:
            raise DataError(f"{path}: column {name!r} is missing; found {', '.join(columns)}")
    if left_out := [name for name in columns if name not in (*_COLUMNS, "annotations")]:
        say(f"{path}: columns {', '.join(left_out)} left out")
    for modality, folder in folders.items():
        if not folder.is_dir():
            raise DataError(f"--{modality} {folder}: no such folder")
    by_split: dict[str, list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        by_split.setdefault(_split_of(row, path, number) if has_split else "test", []).append(row)
    for split in () if unlabelled else SPLITS:
        if split not in by_split:
            raise DataError(f"{path}: no row is of split {split!r}; data to predict only is imported with --unlabelled")
    return {split: _content(split, by_split[split], columns, folders) for split in SPLITS if split in by_split}


def _content(split: str, rows: list[dict[str, Any]], columns: list[str], folders: Mapping[str, Path]) -> dict[str, Any]:
    labels = {name: [row.get(name) for row in rows] for name in (LABEL, "annotations") if name in columns}
    content: dict[str, Any] = {"id": [row.get("id") for row in rows], "raw_text": [row.get("text") for row in rows]}
    content |= labels
    read_ids(split, content["id"])  # before files are looked for under them
    for modality, folder in folders.items():
        content[modality] = [_load(folder, row["id"], modality) for row in bar(rows, f"{split} {modality}")]
        content[f"{modality}_lengths"] = [len(frames) for frames in content[modality]]
    return content


def _rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a table, under the names that are ours; labels that are empty are None."""
    try:
        rows = _read(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or first_line(error)}") from None
    except (pa.ArrowException, csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a whole {path.suffix[1:]} table ({first_line(error)})") from None
    for row in rows:
        for theirs, ours in _OF_MMSA.items():
            if theirs in row:
                row.setdefault(ours, row.pop(theirs))
        if "id" not in row and "video_id" in row and "clip_id" in row:
            row["id"] = f"{row.pop('video_id')}{ID_JOINT}{row.pop('clip_id')}"
        row.update({name: None for name in (LABEL, "annotations") if row.get(name) == ""})
    return rows


def _read(path: Path) -> list[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        table = pq.read_table(path)
        _check_names(table.column_names)
        return table.to_pylist()
    if suffix == ".jsonl":
        # By line feeds alone: a text may hold other ends of lines.
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
        if not all(isinstance(row, dict) for row in rows):
            raise ValueError("a line holds no object")
        return rows
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = "\t" if suffix == ".tsv" else ";" if ";" in header and "," not in header else ","
        file.seek(0)
        filled = [line for line in csv.reader(file, delimiter=delimiter, strict=True) if line]
    if not filled:
        raise ValueError("it is empty")
    names = [name.strip() for name in filled[0]]
    _check_names(names)
    for number, line in enumerate(filled[1:]):
        if len(line) != len(names):
            raise ValueError(f"row {number} has {len(line)} columns instead of {len(names)}")
    # As they stand there: an id of digits keeps its zeros, and "NA" may be what somebody said.
    return [dict(zip(names, line, strict=True)) for line in filled[1:]]


def _check_names(names: list[str]) -> None:
    """Of two columns of one name, one would be lost."""
    if double := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two columns are called {', '.join(sorted(double))}")


def _split_of(row: Mapping[str, Any], path: Path, number: int) -> str:
    split = str(row.get("split")).strip().lower()
    split = "valid" if split in VALID_NAMES else split
    if split not in SPLITS:
        raise DataError(f"{path}, row {number}: split {row.get('split')!r} is none of {', '.join(SPLITS)}")
    return split


def _load(folder: Path, utterance: Any, modality: str) -> np.ndarray:
    """The frames of an utterance from its file."""
    places = [folder / f"{utterance}.npy", folder / f"{str(utterance).replace(ID_JOINT, '/')}.npy"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"--{modality} {folder}: {utterance}.npy is missing; an array of no frames [0, features] stands for an "
            f"utterance without {modality}"
        )
    try:
        frames = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path}: not a whole .npy file of numbers ({first_line(error)})") from None
    if not isinstance(frames, np.ndarray) or frames.ndim != 2:
        shape = list(frames.shape) if isinstance(frames, np.ndarray) else "several arrays"
        raise DataError(f"{path}: must be an array [frames, features], but is {shape}")
    return frames
