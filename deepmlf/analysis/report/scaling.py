"""Quality against what a language model costs, of a search over several."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import plotly.graph_objects as go

from deepmlf.analysis.fidelity import common_fidelity
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.report.plot import ACCENT, GREY, Plot, page_plot
from deepmlf.tune.space.base import LANGUAGE_MODEL


def plots(records: Records) -> list[Plot]:
    """The first objective against the language models' sizes and against the seconds of an epoch; none for one model.

    Trials count by the fidelity that enough have reached, of those that train the same with the same seed one.
    """
    known = records.manifest.language_models
    if not known:
        return []
    sizes = {name: model.parameters for name, model in known.items()}
    return [
        _plot(records, "parameters of the language model", lambda trial: sizes[_model_of(trial)], is_log=True),
        _plot(records, "seconds of a fusion epoch", lambda trial: trial.seconds_per_epoch, is_log=False),
    ]


def _model_of(trial: TrialRecord) -> str:
    return str(trial.settings[LANGUAGE_MODEL])


def _plot(records: Records, cost_name: str, cost: Callable[[TrialRecord], float | None], *, is_log: bool) -> Plot:
    objective = records.objectives[0].name
    title = f"{objective} against {cost_name}"
    points: dict[str, list[tuple[float, float]]] = {}
    common = common_fidelity(records)
    for trial in records.trials:
        x = cost(trial) if trial.number in common.values and trial.repeats is None else None
        if x is not None:
            points.setdefault(_model_of(trial), []).append((x, common.values[trial.number][0]))
    if len(points) < 2:
        return Plot(title, None, missing="Needs trials of two language models that have reached one fidelity.")
    figure = go.Figure()
    figure.add_scatter(
        x=[x for group in points.values() for x, _ in group], y=[y for group in points.values() for _, y in group],
        mode="markers", name="one trial", marker={"symbol": "circle-open", "color": GREY, "size": 8},
    )  # fmt: skip
    means = sorted((*np.mean(group, axis=0), Path(model).name) for model, group in points.items())
    figure.add_scatter(
        x=[x for x, _, _ in means], y=[y for _, y, _ in means], text=[name for _, _, name in means],
        mode="lines+markers+text", textposition="top center", name="mean",
        marker={"symbol": "diamond", "size": 11, "color": ACCENT}, line={"color": ACCENT, "width": 1},
    )  # fmt: skip
    figure.update_xaxes(title=cost_name, type="log" if is_log else "linear")
    figure.update_yaxes(title=objective)
    return page_plot(title, figure, f"Trials {common.where}.")
