"""Plots for a light and a dark page, and for readers who see no hue: symbols and dashes tell things apart."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from markupsafe import Markup

GREY, ACCENT = "#8c8c8c", "#d9480f"
"""Legible on white and on black."""


@dataclass(frozen=True)
class Plot:
    """A figure for the page, or the reason why there is none."""

    title: str
    figure: go.Figure | None
    caption: str = ""
    missing: str = ""
    min_width: int = 0
    """Pixels below which the plot scrolls sideways in its frame."""

    @property
    def json(self) -> Markup:
        """The figure for a script element: nothing in it can end that element."""
        text = self.figure.to_json() if self.figure is not None else "null"
        return Markup(text.replace("<", "\\u003c"))


def whole_numbers(values: Iterable[float]) -> dict[str, Any]:
    """Settings of an axis of counts: ticks at whole numbers alone, about ten of them at most."""
    span = max(values, default=0.0)
    step = next(size for power in range(9) for digit in (1, 2, 5) if span / (size := digit * 10**power) <= 10)
    return {"tick0": 0, "dtick": step, "tickformat": "d"}


def thinned(values: Sequence[float], most: int) -> Sequence[float]:
    """Evenly chosen ones, at most so many."""
    return values[:: max(1, math.ceil(len(values) / most))]


def page_plot(title: str, figure: go.Figure, caption: str, *, height: int = 420, min_width: int = 0) -> Plot:
    """The figure in the page's clothes: no title of its own, no background, a legend that leaves room on a phone."""
    if figure.layout.height is None:
        figure.layout.height = height
    figure.update_layout(
        title=None, template=None, width=None, autosize=True, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", margin={"l": 8, "r": 8, "t": 75, "b": 8},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0}, font={"size": 11},
        modebar={"bgcolor": "rgba(0,0,0,0)"},
    )  # fmt: skip
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return Plot(title, figure, caption, min_width=min_width)
