"""The page of one prediction: a single HTML file that needs no network, every plot with its numbers in words."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from deepmlf.inference.explain import BlockAttention, Explanation
from deepmlf.templates import templates_of

_BLUE, _ORANGE, _LINES = "#3d85c6", "#d9822b", "rgba(128,128,128,0.4)"  # each readable on white and on black
_HEADS = {
    "task": "Final prediction",
    "text": "Words alone",
    "av": "Audio and vision alone",
    "fusion": "Fusion tokens (mean)",
}
_WITHOUT_TOKENS = {"task": "Final prediction", "text": "Words, with audio and vision", "av": "Audio and vision alone"}
_STRONGEST = 3  # frames that a summary names
_TICKS = 10  # of an axis of frames, at most; whole numbers


def explain_page(explanation: Explanation) -> str:
    """The page as HTML."""
    environment = templates_of("deepmlf.analysis.report", html=True)
    # The first plot brings plotly's script for all of them.
    predictions = _html(_predictions(explanation), "predictions", 260, script=True)
    blocks = explanation.blocks
    most = max(float(block.weights.max()) for block in blocks)
    return environment.get_template("explain.html.jinja").render(
        explanation=explanation,
        said=lambda value: f"{value:.1%}" if explanation.task.is_classification else f"{value:+.4f}",
        change=lambda value: f"{100 * value:+.1f} points" if explanation.task.is_classification else f"{value:+.4f}",
        heads={title: _cells(explanation, head) for head, title in _titles(explanation).items()},
        words=_html(_words(explanation), "words", 120 + 22 * len(explanation.without.words))
        if explanation.without.words
        else None,
        classes=explanation.task.classes,
        predictions=predictions,
        maps=[
            {
                "block": block,
                "plot": _html(
                    _heat_map(block, most, explanation), f"attention-{block.layer}", 150 + 20 * len(block.weights)
                ),
                "summary": _summary(block, _tokens(explanation)),
                "rows": list(zip(explanation.tokens, block.weights.tolist(), strict=True)),
            }
            for block in blocks
        ],
        tokens=_tokens(explanation),
        gates=_html(_gates(blocks), "gates", 300) if _has_gates(blocks) else None,
    )


def _titles(explanation: Explanation) -> dict[str, str]:
    """The heads that say something; one that was never trained is left out."""
    titles = _HEADS if explanation.attends == "fusion" else _WITHOUT_TOKENS
    return {head: title for head, title in titles.items() if explanation.predictions[head] is not None}


def _tokens(explanation: Explanation) -> str:
    return f"{explanation.attends} tokens"


def _has_gates(blocks: list[BlockAttention]) -> bool:
    return all(block.attention_gate is not None for block in blocks)


def _cells(explanation: Explanation, head: str) -> str | dict[str, float]:
    """What the table has of a head: a number or why there is none, or the probability of each class."""
    prediction = explanation.predictions[head]
    return prediction if isinstance(prediction, dict) else explanation.said(head)


def _html(figure: go.Figure, name: str, height: int, *, script: bool = False) -> str:
    figure.update_layout(
        template=None,
        height=height,
        margin={"l": 10, "r": 10, "t": 10, "b": 10},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        font={"size": 13},
    )
    lines = {"gridcolor": _LINES, "zerolinecolor": _LINES, "linecolor": _LINES}
    figure.update_xaxes(automargin=True, fixedrange=True, **lines)
    figure.update_yaxes(automargin=True, fixedrange=True, **lines)
    html: str = figure.to_html(
        full_html=False,
        include_plotlyjs=script,
        div_id=name,
        default_height=f"{height}px",
        config={"displayModeBar": False, "responsive": True},
    )
    return html


def _predictions(explanation: Explanation) -> go.Figure:
    said = {title: explanation.predictions[head] for head, title in _titles(explanation).items()}
    titles, values = list(said), list[Any](said.values())
    if explanation.task.is_classification:
        return _probabilities(titles, values, explanation.task.classes)
    task = explanation.task
    figure = go.Figure(go.Scatter(x=values, y=titles, mode="markers", marker={"size": 13, "color": _BLUE}))
    low, high = min(task.low, *values), max(task.high, *values)
    margin = (high - low) / 40
    figure.update_xaxes(range=[low - margin, high + margin], title="sentiment")
    figure.update_yaxes(autorange="reversed")
    if explanation.label is not None:
        figure.add_vline(x=explanation.label, line={"color": _ORANGE, "dash": "dash"}, annotation_text="label")
    return figure


def _probabilities(titles: list[str], values: list[dict[str, float]], classes: tuple[str, ...]) -> go.Figure:
    figure = go.Figure(
        go.Heatmap(
            z=[[value[name] for name in classes] for value in values],
            x=list(classes),
            y=titles,
            zmin=0,
            zmax=1,
            colorscale="Cividis",
            colorbar={"thickness": 12, "tickformat": ".0%"},
            hovertemplate="%{y}, %{x}: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(title="class", type="category")
    figure.update_yaxes(autorange="reversed")
    return figure


def _words(explanation: Explanation) -> go.Figure:
    """What the prediction changes by without each word."""
    words = explanation.without.words
    changes = [word.change for word in words]
    colours = [_ORANGE if change < 0 else _BLUE for change in changes]
    figure = go.Figure(
        go.Bar(
            x=changes,
            y=[word.what for word in words],
            orientation="h",
            marker={"color": colours},
            hovertemplate="without %{y}: %{x:+.4f}<extra></extra>",
        )
    )
    figure.update_xaxes(title="change of the prediction without the word")
    figure.update_yaxes(autorange="reversed", type="category")
    return figure


def _heat_map(block: BlockAttention, most: float, explanation: Explanation) -> go.Figure:
    frames = block.weights.shape[1]
    figure = go.Figure(
        go.Heatmap(
            z=block.weights,
            x=list(range(1, frames + 1)),
            y=explanation.tokens,
            zmin=0,
            zmax=most,
            colorscale="Cividis",
            colorbar={"thickness": 12, "tickformat": ".0%"},
            hovertemplate="token %{y}, frame %{x}: %{z:.1%}<extra></extra>",
        )
    )
    figure.update_xaxes(title="audiovisual frame", tick0=1, dtick=math.ceil(frames / _TICKS), tickformat="d")
    figure.update_yaxes(title=_tokens(explanation).removesuffix("s"), autorange="reversed", type="category")
    return figure


def _summary(block: BlockAttention, tokens: str) -> str:
    """The heat map in a sentence."""
    mean = block.weights[block.weights.any(1)].mean(0)
    strongest = np.sort(np.argsort(mean)[::-1][:_STRONGEST])
    names = ", ".join(str(frame + 1) for frame in strongest)
    return (
        f"Of {len(mean)} frames the {tokens} look most at {names}: "
        f"{mean[strongest].sum():.0%} of the attention, where an even spread gives {len(strongest) / len(mean):.0%}."
    )


def _gates(blocks: list[BlockAttention]) -> go.Figure:
    layers = [block.layer for block in blocks]
    series: dict[str, tuple[Any, str, str]] = {
        "attention": ([block.attention_gate for block in blocks], _BLUE, "circle"),
        "FFN": ([block.ffn_gate for block in blocks], _ORANGE, "square"),
    }
    figure = go.Figure(
        [
            go.Scatter(x=layers, y=values, name=name, mode="lines+markers", marker={"symbol": mark, "color": color})
            for name, (values, color, mark) in series.items()
        ]
    )
    figure.update_xaxes(title="fused layer", tickvals=layers)
    lowest = min(min(values) for values, _, _ in series.values())
    figure.update_yaxes(title="what the gate multiplies by", range=[-1 if lowest < 0 else 0, 1])
    figure.update_layout(legend={"orientation": "h", "y": 1.15})
    return figure
