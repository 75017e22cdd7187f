"""Folders that ``save_to_disk`` of Hugging Face's library ``datasets`` wrote: Arrow streams, and JSON beside them."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from deepmlf.data.dataset import SPLITS
from deepmlf.data.formats.arrow import of_arrow
from deepmlf.data.formats.content import VALID_NAMES
from deepmlf.data.formats.table import PLAIN, Table
from deepmlf.data.paging import Pages
from deepmlf.errors import DataError, first_line

_DICT, _STATE, _INFO = "dataset_dict.json", "state.json", "dataset_info.json"


def read_saved(path: Path, pages: Pages, say: Callable[[str], None]) -> Table:
    """A ``Dataset``, or a ``DatasetDict`` whose splits become those of its utterances.

    Args:
        path: Its folder.
        pages: Where its files are mapped.
        say: Called with one line on what was not taken as it is.

    Raises:
        DataError: If it is none, or not whole.
    """
    if (path / _STATE).is_file():
        return of_arrow(str(path), _open(path, pages), pages)
    if not (path / _DICT).is_file():
        raise DataError(
            f"{path}: a folder that `save_to_disk` of Hugging Face's datasets did not write (it has neither {_DICT} "
            f"nor {_STATE}); a pickle or a table is imported by its own path"
        )
    given = _json(path / _DICT, "splits")
    folders: dict[str, str] = {}
    for name in sorted(given, key=VALID_NAMES.__contains__):  # another name of valid counts if valid is not there
        split = "valid" if name in VALID_NAMES else name
        if split in SPLITS:
            folders.setdefault(split, name)
    if not folders:
        raise DataError(f"{path}: none of its splits is one of {', '.join(SPLITS)}; found {', '.join(given)}")
    if left_out := [name for name in given if name not in folders.values()]:
        say(f"{path}: {', '.join(left_out)} left out; only {', '.join(SPLITS)} are imported")
    tables = [_of_split(_open(path / name, pages), split, path, say) for split, name in folders.items()]
    try:
        return of_arrow(str(path), pa.concat_tables(tables), pages)
    except pa.ArrowInvalid:
        kinds = " and ".join(sorted({str(table.schema.remove_metadata()).replace("\n", ", ") for table in tables}))
        raise DataError(f"{path}: its splits have different columns, {kinds}") from None


def _of_split(table: pa.Table, split: str, path: Path, say: Callable[[str], None]) -> pa.Table:
    """The utterances of a split with its name in a column, which is what decides."""
    if "split" in table.column_names:
        say(f"{path}: column split of {split!r} left out; the splits of the DatasetDict count")
        table = table.drop_columns("split")
    return table.append_column("split", pa.array([split] * len(table), pa.string()))


def _open(path: Path, pages: Pages) -> pa.Table:
    """A saved ``Dataset``, of which a column of arrays stays in its files; classes have their names."""
    files = [path / part["filename"] for part in _json(path / _STATE, "_data_files")]
    features = _json(path / _INFO, "features") or {}
    tables = []
    for file in files:
        try:
            with file.open("rb") as opened:
                table = pa.ipc.open_stream(pa.py_buffer(pages.map(opened))).read_all()
            table.validate(full=True)
        except (OSError, pa.ArrowException, ValueError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            raise DataError(f"{file}: missing or torn ({why or first_line(error)}); save it again") from None
        tables.append(table)
    if not tables:
        raise DataError(f"{path}: has no rows")
    table = pa.concat_tables(tables)
    for place, name in enumerate(table.column_names):
        if name in PLAIN and isinstance(features.get(name), dict) and features[name].get("_type") == "ClassLabel":
            names = _names(table[name].to_pylist(), features[name]["names"], f"{path}, {name}")
            table = table.set_column(place, name, pa.array(names, pa.string()))
    return table


def _names(classes: Sequence[int | None], names: Sequence[str], where: str) -> list[str | None]:
    """Of classes, which ``ClassLabel`` stores as positions; -1 is its sign for none."""
    for row, place in enumerate(classes):
        if place is not None and not -1 <= place < len(names):
            raise DataError(f"{where}, row {row}: class {place} is none of the {len(names)} that have names")
    return [None if place is None or place < 0 else names[place] for place in classes]


def _json(path: Path, key: str) -> Any:
    """What stands under a key of a file."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or first_line(error)}; save the dataset again") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(f"{path}: damaged, or of another release of Hugging Face's datasets; save it again") from None
