"""Tables of Arrow: Parquet files, and tables of pyarrow, pandas and polars in memory."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepmlf.data.formats.table import PLAIN, Table, check_names
from deepmlf.data.paging import Pages
from deepmlf.errors import DataError, first_line
from deepmlf.progress import bar

_ROWS = 16
"""Of a Parquet file that are read at a time."""


class ArrowColumn(Sequence[Any]):
    """A column whose cells are lists of lists of numbers, each as an array [frames, features].

    A cell that is null is None; one that is something else comes as it is.
    """

    def __init__(self, column: pa.ChunkedArray, pages: Pages, where: str) -> None:
        """Look into a column.

        Args:
            column: Its chunks, which may lie in a map.
            pages: What is told of what has been read.
            where: The column, for an error's text.
        """
        self._chunks = [_storage(chunk) for chunk in column.chunks]
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])
        self._pages, self._where = pages, where

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def __getitem__(self, row: Any) -> Any:
        place = int(np.searchsorted(self._ends, row, side="right"))
        cell = self._chunks[place][int(row - self._ends[place]) + len(self._chunks[place])]
        if not cell.is_valid:
            return None
        frames = cell.values
        if not _is_list(frames.type) or not _is_number(frames.type.value_type):
            return cell.as_py()
        features = pc.unique(pc.list_value_length(frames)).to_pylist()
        if len(features) > 1:
            has = " and ".join("none" if count is None else str(count) for count in features)
            raise DataError(f"{self._where}, row {row}: frames have {has} features; all must have as many")
        values = frames.flatten().to_numpy(zero_copy_only=False)
        self._pages.touch(values.nbytes)
        return values.reshape(len(frames), features[0] or 0 if features else 0)


def read_parquet(path: Path, pages: Pages) -> Table:
    """A ``.parquet`` file.

    Raises:
        DataError: If it is none, or not whole.
    """
    try:
        with path.open("rb") as opened, pq.ParquetFile(opened) as file:  # whose errors are shorter than Arrow's
            schema = file.schema_arrow
            check_names(schema.names)
            rows = file.read([name for name in schema.names if name in PLAIN]).to_pylist()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or first_line(error)}") from None
    except (pa.ArrowException, ValueError) as error:
        raise DataError(f"{path}: not a whole parquet table ({first_line(error)})") from None
    return Table(
        str(path), schema.names, rows, {name: partial(_copied, path, name, pages) for name in array_columns(schema)}
    )


def table_in_memory(frame: Any, pages: Pages) -> Table:
    """A pandas DataFrame, whose cells may hold arrays, or whatever pyarrow can make a table of.

    Raises:
        DataError: If it is none.
    """
    if hasattr(frame, "iloc"):  # pandas, which need not be there
        return _of_pandas(frame)
    try:
        table = frame if isinstance(frame, pa.Table) else pa.table(frame)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise DataError(
            f"the source must be a path, a pandas DataFrame or a pyarrow Table, but is {type(frame).__name__} "
            f"({first_line(error)})"
        ) from None
    return of_arrow("the table", table, pages)


def of_arrow(name: str, table: pa.Table, pages: Pages) -> Table:
    """A table of Arrow, whose columns of arrays stay where they are.

    Args:
        name: What errors call it.
        table: The table.
        pages: What is told of what has been read.

    Raises:
        DataError: If two columns have one name.
    """
    try:
        check_names(table.column_names)
    except ValueError as error:
        raise DataError(f"{name}: {error}") from None
    arrays = {
        column: partial(ArrowColumn, table[column], pages, f"{name}, {column}")
        for column in array_columns(table.schema)
    }
    plain = table.select([column for column in table.column_names if column in PLAIN])
    return Table(name, table.column_names, plain.to_pylist(), arrays)


def array_columns(schema: pa.Schema) -> list[str]:
    """The columns that may hold arrays: lists of numbers, of any depth."""
    found = []
    for field in schema:
        kind = field.type.storage_type if isinstance(field.type, pa.BaseExtensionType) else field.type
        depth = 0
        while _is_list(kind):
            kind, depth = kind.value_type, depth + 1
        if depth and _is_number(kind) and field.name not in PLAIN:
            found.append(field.name)
    return found


def _of_pandas(frame: Any) -> Table:
    names = [str(name) for name in frame.columns]
    try:
        check_names(names)
    except ValueError as error:
        raise DataError(f"the table: {error}") from None
    columns, arrays = {}, {}
    for name, column in zip(names, frame.columns, strict=True):
        if name in PLAIN:
            columns[name] = _plain_values(frame[column], name)
        elif any(isinstance(cell, list | tuple | np.ndarray) for cell in frame[column]):
            arrays[name] = frame[column].tolist
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    return Table("the table", names, rows, arrays)


def _plain_values(column: Any, name: str) -> list[Any]:
    try:
        return pa.Array.from_pandas(column).to_pylist()
    except (pa.ArrowException, TypeError) as error:
        raise DataError(
            f"the table: column {name!r} holds values of several kinds ({first_line(error)}); make them one"
        ) from None


def _copied(path: Path, column: str, pages: Pages) -> ArrowColumn:
    """A column of a Parquet file, where a row cannot be found alone, in a temporary file where it can."""
    with pages.temporary() as copy:
        try:
            # By pages of the file: a row group may be all of it.
            with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
                schema = pa.schema([file.schema_arrow.field(column)])
                with pa.ipc.new_stream(copy, schema) as writer:
                    batches = math.ceil(file.metadata.num_rows / _ROWS)
                    for batch in bar(file.iter_batches(_ROWS, columns=[column]), f"reading {column}", batches):
                        writer.write_batch(batch)
            copy.flush()
        except (OSError, pa.ArrowException) as error:
            raise DataError(f"{path}, {column}: cannot be read ({first_line(error)})") from None
        table = pa.ipc.open_stream(pa.py_buffer(pages.map(copy))).read_all()
    return ArrowColumn(table[column], pages, f"{path}, {column}")


def _storage(chunk: pa.Array) -> pa.Array:
    """What an extension type, as Hugging Face's Array2D is one, is stored as."""
    return chunk.storage if isinstance(chunk.type, pa.BaseExtensionType) else chunk


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
