"""Tables in a terminal of any width: what does not fit goes on below, nothing is cut."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

_ANY_WIDTH = 10_000  # rich measures what is there no wider than the terminal, unless it is told that there is room


def whole_table(*names: str, title: str | None = None) -> Table:
    """A table with these columns; a cell wider than its column is folded, however narrow the terminal.

    Args:
        names: Of the columns.
        title: Above it.
    """
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    for name in names:
        table.add_column(name, overflow="fold")
    return table


@dataclass(frozen=True)
class Column:
    """A column with its cells."""

    name: str
    cells: Sequence[str]


def show_columns(console: Console, rows: Column, columns: Sequence[Column], title: str) -> None:
    """Print columns beside what their rows are called, in as many tables as the terminal's width asks for.

    Args:
        console: Where.
        rows: The first column of each table.
        columns: The others; each table has one at least.
        title: Above the first table.
    """
    left: list[Column] = list(columns)
    above: str | None = title
    while left:
        count = len(left)
        while count > 1 and width_of(console, _table(rows, left[:count])).maximum > console.width:
            count -= 1
        console.print(_table(rows, left[:count], above), highlight=False)
        left, above = left[count:], None


def _table(rows: Column, columns: Sequence[Column], title: str | None = None) -> Table:
    table = whole_table(rows.name, *(column.name for column in columns), title=title)
    for cells in zip(rows.cells, *(column.cells for column in columns), strict=True):
        table.add_row(*cells)
    return table


def width_of(console: Console, table: Table) -> Measurement:
    """Characters that a table needs on a terminal: at least, every cell folded as far as it may be, and at most."""
    return Measurement.get(console, console.options.update(max_width=_ANY_WIDTH), table)
