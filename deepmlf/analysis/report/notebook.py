"""An experiment inside a notebook."""

from pathlib import Path

import pyarrow as pa
from markupsafe import Markup, escape

_HEIGHT = 800  # pixels; the page scrolls inside
_LISTED = 10


class Report(str):
    """The path or URI of an experiment's page; a notebook shows the page.

    Args:
        page: The path or URI.
        file: Where this machine has it.
    """

    file: Path

    def __new__(cls, page: str, file: Path) -> "Report":
        report = super().__new__(cls, page)
        report.file = file
        return report

    def _repr_html_(self) -> str:
        # A frame of its own: neither do the page's styles reach the notebook, nor the notebook's the page.
        page = escape(self.file.read_text(encoding="utf-8"))
        style = f"width: 100%; height: {_HEIGHT}px; border: 0"
        return str(Markup('<iframe srcdoc="{}" style="{}" title="{}"></iframe>').format(page, style, str(self)))


def overview(place: str, trials: pa.Table, unfinished: int) -> str:
    """An experiment's best trials as a table of HTML.

    Args:
        place: Its path or URI.
        trials: As `deepmlf.analysis.leaderboard.trials_table` makes them.
        unfinished: Trials that the search has yet to end.
    """
    names = [name for name in trials.column_names if name != "fail_reason"]
    head = Markup("").join(Markup("<th>{}</th>").format(name) for name in names)
    rows = Markup("").join(
        Markup("<tr>{}</tr>").format(Markup("").join(Markup("<td>{}</td>").format(_cell(row[name])) for name in names))
        for row in trials.slice(0, _LISTED).to_pylist()
    )
    more = max(0, trials.num_rows - _LISTED)
    notes = [f"{more} more trials in .trials"] * bool(more) + [f"{unfinished} trials to do"] * bool(unfinished)
    caption = "; ".join([place, *notes])
    return str(Markup("<table><caption>{}</caption><tr>{}</tr>{}</table>").format(caption, head, rows))


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
