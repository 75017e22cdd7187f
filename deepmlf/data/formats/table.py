"""Utterances in the rows of a table, of whatever kind of file, with features in folders or in columns."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepmlf.data.dataset import SPLITS
from deepmlf.data.features import EVERY_FRAME, MODALITIES
from deepmlf.data.formats.content import LABEL, VALID_NAMES, Content
from deepmlf.data.values import ID_JOINT, read_ids
from deepmlf.errors import DataError, first_line

_COLUMNS = ("id", "split", "text", LABEL, "annotations")
_LENGTHS = tuple(f"{modality}_lengths" for modality in MODALITIES)
_OF_MMSA = {"mode": "split", "annotation": "annotations"}
"""Columns of MMSA's label.csv under other names; its ids are in two columns."""
PLAIN = (*_COLUMNS, *_LENGTHS, *_OF_MMSA, "video_id", "clip_id")
"""Columns that are used if they are there, and hold a value for each utterance."""


@dataclass(frozen=True)
class Table:
    """A table as it was found."""

    name: str
    """What errors call it."""
    columns: list[str]
    """Names of all columns."""
    rows: list[dict[str, Any]]
    """Plain values of each utterance by column; a row may lack some."""
    arrays: Mapping[str, Callable[[], Sequence[Any]]] = field(default_factory=dict)
    """Columns that may hold an array [frames, features] for each utterance, read when they are asked for."""


def read_table(
    table: Table, features: Mapping[str, str | Path], *, unlabelled: bool, say: Callable[[str], None]
) -> Content:
    """The splits of a table, with the features of its utterances.

    Columns are ``id``, ``split`` (``train``, ``valid``, ``test``), ``text`` and ``label``; or those of MMSA's
    ``label.csv``: ``video_id``, ``clip_id``, ``mode``, ``text``, ``label``, ``annotation``. Features are arrays
    [frames, features] in columns ``audio`` and ``vision``, or where `features` says: in columns of other names, or in
    folders, where an utterance ``a`` has them in ``a.npy``, ``a$_$1`` also in ``a/1.npy``. Zeros are frames like any
    other unless there is a column ``audio_lengths`` or ``vision_lengths``; no frames stand for an utterance without the
    modality.

    Args:
        table: What was found.
        features: Of a modality (``audio``, ``vision``) the name of its column or its folder.
        unlabelled: Labels and splits may be missing; without a column ``split`` all is ``test``.
        say: Called with one line on what was not taken as it is.

    Raises:
        DataError: If the table lacks a column or a split, or an utterance its features.
    """
    if not table.rows:
        raise DataError(f"{table.name}: has no rows")
    rows = [_under_our_names(row) for row in table.rows]
    columns = list(dict.fromkeys(name for row in rows for name in row))  # a line may lack what others have
    has_split = "split" in columns
    for name in ("id", "text", *(() if unlabelled else ("split", LABEL))):
        if name not in columns:
            found = dict.fromkeys([*columns, *(name for name in table.columns if name not in PLAIN)])
            raise DataError(f"{table.name}: column {name!r} is missing; found {', '.join(found)}")
    sources = {modality: _source(table, modality, features.get(modality)) for modality in MODALITIES}
    _tell_left_out(table, columns, sources, say)
    by_split: dict[str, list[int]] = {}
    for number, row in enumerate(rows):
        by_split.setdefault(_split_of(row, table.name, number) if has_split else "test", []).append(number)
    for split in () if unlabelled else SPLITS:
        if split not in by_split:
            raise DataError(
                f"{table.name}: no row is of split {split!r}; data to predict only is imported with --unlabelled"
            )
    arrays = {of: table.arrays[source]() for of, source in sources.items() if isinstance(source, str)}
    folders = {of: source for of, source in sources.items() if isinstance(source, Path)}
    return {
        split: _content(split, rows, by_split[split], columns, arrays, folders) for split in SPLITS if split in by_split
    }


def check_names(names: Sequence[str]) -> None:
    """Of two columns of one name, one would be lost.

    Raises:
        ValueError: If there are two.
    """
    if double := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two columns are called {', '.join(sorted(double))}")


class _Picked(Sequence[Any]):
    """Some rows of a column."""

    def __init__(self, column: Sequence[Any], rows: Sequence[int]) -> None:
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: Any) -> Any:
        return self._column[self._rows[row]]


class _Files(Sequence[Any]):
    """The frames of utterances in a file each, read when they are asked for."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, row: Any) -> Any:
        path = self._paths[row]
        try:
            frames = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{path}: not a whole .npy file of numbers ({first_line(error)})") from None
        if not isinstance(frames, np.ndarray) or frames.ndim != 2:
            shape = list(frames.shape) if isinstance(frames, np.ndarray) else "several arrays"
            raise DataError(f"{path}: must be an array [frames, features], but is {shape}")
        return frames


def _under_our_names(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with MMSA's columns under the names that are ours; labels that are empty are None."""
    row = dict(row)
    for theirs, ours in _OF_MMSA.items():
        if theirs in row:
            row.setdefault(ours, row.pop(theirs))
    if "id" not in row and "video_id" in row and "clip_id" in row:
        row["id"] = f"{row.pop('video_id')}{ID_JOINT}{row.pop('clip_id')}"
    return row | {name: None for name in (LABEL, "annotations") if row.get(name) == ""}


def _source(table: Table, modality: str, given: str | Path | None) -> str | Path | None:
    """The column or the folder of a modality's features; None if it has neither."""
    if given is None:
        return modality if modality in table.arrays else None
    column, folder = str(given), Path(given)
    if column in table.arrays:
        if folder.is_dir():
            raise DataError(f"--{modality} {given}: is a column of {table.name} and a folder, too; rename one of them")
        return column
    if not folder.is_dir():
        if column in table.columns:
            raise DataError(f"--{modality} {given}: column {column!r} of {table.name} holds no arrays")
        holding = f" with arrays (those are {', '.join(table.arrays)})" if table.arrays else " with arrays"
        raise DataError(f"--{modality} {given}: no such folder, nor a column of {table.name}{holding}")
    if next(folder.rglob("*.npy"), None) is None:
        raise DataError(f"--{modality} {given}: holds no .npy file; it must have one for each utterance")
    return folder


def _tell_left_out(
    table: Table, columns: Sequence[str], sources: Mapping[str, str | Path | None], say: Callable[[str], None]
) -> None:
    """Columns that nothing is read from."""
    lengths = [f"{modality}_lengths" for modality, source in sources.items() if source is not None]
    used = {*_COLUMNS, *lengths, *(source for source in sources.values() if isinstance(source, str))}
    others = (name for name in table.columns if name not in PLAIN)
    if left_out := [name for name in dict.fromkeys([*columns, *others]) if name not in used]:
        say(f"{table.name}: columns {', '.join(left_out)} left out")


def _split_of(row: Mapping[str, Any], name: str, number: int) -> str:
    split = str(row.get("split")).strip().lower()
    split = "valid" if split in VALID_NAMES else split
    if split not in SPLITS:
        raise DataError(f"{name}, row {number}: split {row.get('split')!r} is none of {', '.join(SPLITS)}")
    return split


def _content(
    split: str,
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    columns: Sequence[str],
    arrays: Mapping[str, Sequence[Any]],
    folders: Mapping[str, Path],
) -> dict[str, Any]:
    own = [rows[number] for number in numbers]
    content: dict[str, Any] = {"id": [row.get("id") for row in own], "raw_text": [row.get("text") for row in own]}
    for name in (LABEL, "annotations", *_LENGTHS):
        if name in columns:
            content[name] = [row.get(name) for row in own]
    read_ids(split, content["id"])  # before files are looked for under them
    for modality in (*arrays, *folders):
        if modality in arrays:
            content[modality] = _Picked(arrays[modality], numbers)
        else:
            content[modality] = _Files([_file_of(folders[modality], row["id"], modality) for row in own])
        content.setdefault(f"{modality}_lengths", EVERY_FRAME)
    return content


def _file_of(folder: Path, utterance: Any, modality: str) -> Path:
    """The file that has the frames of an utterance."""
    places = [folder / f"{utterance}.npy", folder / f"{str(utterance).replace(ID_JOINT, '/')}.npy"]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise DataError(
            f"--{modality} {folder}: {utterance}.npy is missing; an array of no frames [0, features] stands for an "
            f"utterance without {modality}"
        )
    return path
