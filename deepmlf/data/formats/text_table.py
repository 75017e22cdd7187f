"""Tables that are text: with commas, semicolons or tabs between columns, or a JSON object in each line."""

import csv
import json
from pathlib import Path
from typing import Any

from deepmlf.data.formats.table import Table, check_names
from deepmlf.errors import DataError, first_line

SUFFIXES = (".csv", ".tsv", ".jsonl")


def read_text_table(path: Path) -> Table:
    """A ``.csv``, ``.tsv`` or ``.jsonl`` file.

    Raises:
        DataError: If it is none, or not whole.
    """
    suffix = path.suffix.lower()
    try:
        rows = _lines_of_json(path) if suffix == ".jsonl" else _columns(path, "\t" if suffix == ".tsv" else None)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or first_line(error)}") from None
    except (csv.Error, ValueError) as error:
        raise DataError(f"{path}: not a whole {suffix[1:]} table ({first_line(error)})") from None
    return Table(str(path), list(dict.fromkeys(name for row in rows for name in row)), rows)


def _lines_of_json(path: Path) -> list[dict[str, Any]]:
    # By line feeds alone: a text may hold other ends of lines.
    with path.open(encoding="utf-8-sig", newline="\n") as file:
        rows = [json.loads(line) for line in file if line.strip()]
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("a line holds no object")
    return rows


def _columns(path: Path, delimiter: str | None) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        header = file.readline()
        delimiter = delimiter or (";" if ";" in header and "," not in header else ",")
        file.seek(0)
        filled = [line for line in csv.reader(file, delimiter=delimiter, strict=True) if line]
    if not filled:
        raise ValueError("it is empty")
    names = [name.strip() for name in filled[0]]
    check_names(names)
    for number, line in enumerate(filled[1:]):
        if len(line) != len(names):
            raise ValueError(f"row {number} has {len(line)} columns instead of {len(names)}")
    # As they stand there: an id of digits keeps its zeros, and "NA" may be what somebody said.
    return [dict(zip(names, line, strict=True)) for line in filled[1:]]
