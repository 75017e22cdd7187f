"""The report's plots: Optuna's where it has one. A plot that needs more than there is, is a sentence that says so.

Colours are left to the page, which has a light and a dark theme; what tells things apart are symbols and dashes.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import optuna
import plotly.graph_objects as go
from markupsafe import Markup
from optuna import visualization
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from deepmlf.analysis.answers import Answer
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.spending import RungRecord
from deepmlf.tune.objective import Objective

NEEDED_FOR_IMPORTANCE = 10  # complete trials; below that importances are noise
_NEEDED_FOR_PLOT = 2
_SHOWN = 6  # settings, most important first, that fit into one look
_SCALE = ((0.0, "#0b7fd6"), (1.0, "#8c8c8c"))  # legible on white and on black
_GREY, _BEST = "#8c8c8c", "#d9480f"
_DASHES = {"COMPLETE": "solid", "PRUNED": "dot", "RUNNING": "dash", "FAIL": "dashdot"}


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


def history(records: Records, index: int) -> Plot:
    """One objective by trial, and the best so far."""
    name = records.objectives[index].name
    title = f"{name} by trial"
    if not records.complete:
        return Plot(title, None, missing="Needs a complete trial.")
    is_single = len(records.objectives) == 1  # only then does Optuna draw the best so far
    target = None if is_single else _target(index)
    figure = visualization.plot_optimization_history(records.study, target=target, target_name=name)
    if is_single:
        best = records.complete[0]
        figure.add_scatter(x=[best.number], y=[best.value], name=f"best: trial {best.number}", mode="markers",
                           marker={"symbol": "star", "size": 14, "color": _BEST})  # fmt: skip
    return _plot(title, figure, f"Complete trials only; the aim is to {records.objectives[index].direction}.")


def parallel_coordinates(records: Records, params: list[str]) -> Plot:
    """Complete trials as lines through the most important settings."""
    title = "Settings of complete trials, parallel coordinates"
    shown = params[:_SHOWN]
    if len(records.complete) < _NEEDED_FOR_PLOT or not shown:
        return Plot(title, None, missing=_needs(_NEEDED_FOR_PLOT, records))
    name = records.objectives[0].name
    figure = visualization.plot_parallel_coordinate(records.study, shown, target=_target(0), target_name=name)
    figure.data = [trace for trace in figure.data if trace.mode == "lines"]  # without the scale of Optuna's colours
    heights = sorted((trace.y[0] for trace in figure.data), reverse=records.objectives[0].direction == "maximize")
    best = set(heights[: max(1, len(heights) // 4)])
    for trace in figure.data:
        is_good = trace.y[0] in best
        style = {"color": _BEST, "dash": "solid", "width": 2.5} if is_good else {"color": _GREY, "dash": "dot"}
        trace.update(opacity=1.0, line=style)
    figure.update_annotations(font_color=None)  # the theme's
    return _plot(
        title,
        figure,
        f"Left axis: {name}. Solid: the best quarter of trials. The most important settings are shown.",
        min_width=760,
    )


def importances(records: Records, index: int) -> tuple[Plot, dict[str, dict[str, float]]]:
    """fANOVA's and PED-ANOVA's importances side by side; the plot, and the shares by evaluator and setting."""
    name = records.objectives[index].name
    title = f"What mattered for {name}"
    varied = _varied(records)
    if len(records.complete) < NEEDED_FOR_IMPORTANCE or not varied:
        return Plot(title, None, missing=_needs(NEEDED_FOR_IMPORTANCE, records)), {}
    always = [param for param in varied if all(param in trial.params for trial in records.complete)]
    evaluators = {
        "fANOVA": (FanovaImportanceEvaluator(seed=records.settings.seed), always),
        "PED-ANOVA": (PedAnovaImportanceEvaluator(), varied),
    }
    sign = 1 if records.objectives[index].direction == "minimize" else -1
    with warnings.catch_warnings():
        # That low values are taken for good, which the sign sees to, and that few trials have some settings.
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes|Some regimes for parameter")
        shares = {
            label: get_param_importances(
                records.study, evaluator=evaluator, params=params, target=lambda trial: sign * trial.values[index]
            )
            for label, (evaluator, params) in evaluators.items()
        }
    order = sorted(varied, key=lambda param: sum(share.get(param, 0.0) for share in shares.values()))
    figure = go.Figure()
    for (label, share), shape in zip(shares.items(), ("", "/"), strict=True):
        figure.add_bar(y=order, x=[share.get(param) for param in order], name=label, orientation="h",
                       marker={"pattern": {"shape": shape}, "line": {"width": 1, "color": _GREY}})  # fmt: skip
    figure.update_layout(height=120 + 34 * len(order), xaxis_title="share of importance")
    caption = (
        f"From {len(records.complete)} complete trials. fANOVA: share of the variance over all of the space, of "
        "settings that every complete trial has. PED-ANOVA: what sets the best tenth apart, settings of single "
        "curricula included, roughly where few trials have them. Where both agree, trust them more."
    )
    return _plot(title, figure, caption), shares


def slices(records: Records, params: list[str]) -> list[Plot]:
    """The first objective by each of the most important settings."""
    name = records.objectives[0].name
    plots = []
    for param in params[:_SHOWN]:
        figure = visualization.plot_slice(records.study, [param], target=_target(0), target_name=name)
        figure.update_traces(marker_colorscale=_SCALE, marker_showscale=False)
        plots.append(_plot(param, figure, "", height=320))
    return plots


def contour(records: Records, params: list[str]) -> Plot:
    """The first objective over the two most important settings."""
    title = "The two most important settings together, by fANOVA"
    both = [trial for trial in records.complete if all(param in trial.params for param in params[:2])]
    if len(params) < 2 or len(both) < NEEDED_FOR_IMPORTANCE:
        return Plot(title, None, missing=_needs(NEEDED_FOR_IMPORTANCE, records))
    figure = visualization.plot_contour(
        records.study, params[:2], target=_target(0), target_name=records.objectives[0].name
    )
    return _plot(title, figure, "Points are complete trials; the surface between them is interpolated, not measured.")


def question(answer: Answer, objective: Objective) -> Plot:
    """Complete trials by the setting asked about, means with intervals, and the paper's answer."""
    asked = answer.question
    title = f"{objective.name} by {asked.setting}"
    measured = [group for group in answer.groups if group.values]
    if not measured:
        return Plot(title, None, missing="Needs a complete trial.")
    places = list(range(len(measured)))
    figure = go.Figure()
    figure.add_scatter(
        x=[place for place, group in zip(places, measured, strict=True) for _ in group.values],
        y=[value for group in measured for value in group.values],
        mode="markers", name="one trial", marker={"symbol": "circle-open", "color": _GREY, "size": 8},
    )  # fmt: skip
    halves = [0.0 if group.interval is None else (group.interval[1] - group.interval[0]) / 2 for group in measured]
    figure.add_scatter(
        x=places, y=[group.mean for group in measured], mode="markers", name="mean, 95 % interval from 3 trials on",
        marker={"symbol": "diamond", "size": 11, "color": _BEST},
        error_y={"type": "data", "array": halves, "width": 6},
    )  # fmt: skip
    published = [place for place, group in zip(places, measured, strict=True) if group.value in asked.published]
    if published:
        figure.add_vrect(
            x0=min(published) - 0.45, x1=max(published) + 0.45, line={"dash": "dash", "color": _GREY},
            fillcolor=_GREY, opacity=0.15, layer="below",
        )  # fmt: skip
        figure.add_annotation(
            x=(min(published) + max(published)) / 2,
            y=1.0,
            yref="paper",
            yanchor="bottom",
            text="paper",
            showarrow=False,
        )
    labels = [f"{group.value}<br>n={len(group.values)}" for group in measured]
    figure.update_xaxes(tickvals=places, ticktext=labels, title=asked.setting)
    figure.update_yaxes(title=objective.name)
    return _plot(title, figure, f"Full-fidelity trials only. Framed: the paper's answer, {asked.answer}.")


def learning_curves(records: Records, rungs: list[RungRecord]) -> Plot:
    """The first objective of every trial by fusion epoch, with the rungs' cut-offs."""
    title = "Learning curves"
    if not any(trial.curve for trial in records.trials):
        return Plot(title, None, missing="Needs a fusion epoch.")
    name = records.objectives[0].name
    best = records.complete[0].number if records.complete else None
    figure = go.Figure()  # Optuna's plot of them knows no failed trials and one objective only
    for trial in records.trials:
        is_best = trial.number == best
        figure.add_scatter(
            x=list(trial.curve), y=list(trial.curve.values()), mode="lines+markers", showlegend=is_best,
            name=f"trial {trial.number} ({'best' if is_best else trial.state})",
            line={"dash": _DASHES[trial.state], "width": 4 if is_best else 1.2, "color": _BEST if is_best else None},
            marker={"size": 5 if is_best else 3},
        )  # fmt: skip
    for rung in rungs:
        figure.add_vline(x=rung.epoch, line={"dash": "dot", "width": 1, "color": _GREY})
    cut = [rung for rung in rungs if rung.cutoff is not None]
    if cut:
        figure.add_scatter(
            x=[rung.epoch for rung in cut], y=[rung.cutoff for rung in cut], mode="markers", name="cut-off",
            marker={"symbol": "x", "size": 11, "color": _BEST}, showlegend=True,
        )  # fmt: skip
    figure.update_layout(xaxis_title="fusion epoch", yaxis_title=name, showlegend=True)
    caption = "Solid: complete. Dotted: stopped. Dashed: running. Dash-dotted: failed. The best trial is thick."
    return _plot(title, figure, caption + (" Crosses: cut-offs of the rungs at the end." if cut else ""))


def survivors(rungs: list[RungRecord]) -> Plot:
    """What became of trials at each rung."""
    title = "Trials at each rung"
    if not any(rung.reached for rung in rungs):
        return Plot(title, None, missing="No trial that ended has reached a rung of the scheduler.")
    labels = [f"epoch {rung.epoch}" + (f", bracket {rung.bracket}" if rung.bracket else "") for rung in rungs]
    figure = go.Figure()
    for label, shape, counts in (
        ("went on", "", [len(rung.went_on) for rung in rungs]),
        ("stopped", "/", [len(rung.stopped) for rung in rungs]),
        ("failed", "x", [len(rung.failed) for rung in rungs]),
    ):
        figure.add_bar(x=labels, y=counts, name=label, marker={"pattern": {"shape": shape}}, text=counts)
    figure.update_layout(barmode="stack", yaxis_title="trials")
    return _plot(title, figure, "")


def pareto(records: Records, title: str, cost_name: str, cost: Callable[[TrialRecord], float | None]) -> Plot:
    """The first objective against a cost; trials that no other one beats in both are marked."""
    objective = records.objectives[0]
    costs = {trial.number: cost(trial) for trial in records.complete}
    known = {number: value for number, value in costs.items() if value is not None}
    if len(known) < _NEEDED_FOR_PLOT:
        return Plot(title, None, missing=f"Needs two complete trials that recorded {cost_name}, and has {len(known)}.")
    study = optuna.create_study(directions=[objective.direction, "minimize"])
    for number, trial in enumerate(records.study.get_trials(deepcopy=False)):
        values = [trial.values[0], known[number]] if number in known else None
        state = TrialState.COMPLETE if values else TrialState.FAIL  # as with warm starts: numbers stay
        study.add_trial(
            create_trial(state=state, values=values, params=trial.params, distributions=trial.distributions)
        )
    figure = visualization.plot_pareto_front(study, target_names=[objective.name, cost_name])
    figure.update_traces(marker_showscale=False, showlegend=True)
    for trace, label, symbol, color in zip(
        figure.data, ("beaten in both", "on the front"), ("circle-open", "diamond"), (_GREY, _BEST), strict=True
    ):
        trace.update(name=label, marker={"symbol": symbol, "color": color, "size": 10})
    return _plot(title, figure, f"Better is towards less {cost_name} and {objective.direction}d {objective.name}.")


def by_importance(shares: dict[str, dict[str, float]], records: Records) -> list[str]:
    """Settings that were varied, most important first by fANOVA, then those that it leaves out by PED-ANOVA."""
    order = [*shares.get("fANOVA", {}), *shares.get("PED-ANOVA", {}), *_varied(records)]
    return list(dict.fromkeys(order))


def _varied(records: Records) -> list[str]:
    """Settings that took two values at least in complete trials."""
    values: dict[str, set[Any]] = {}
    for trial in records.complete:
        for param, value in trial.params.items():
            values.setdefault(param, set()).add(value)
    return [param for param in records.params if len(values.get(param, ())) > 1]


def _target(index: int) -> Callable[[FrozenTrial], float]:
    return partial(_value, index)


def _value(index: int, trial: FrozenTrial) -> float:
    return float(trial.values[index])


def _needs(count: int, records: Records) -> str:
    have = len(records.complete)
    if have < count:
        return f"Needs {count} complete trials, and has {have}."
    return "Needs settings that differ between complete trials."


def _plot(title: str, figure: go.Figure, caption: str, *, height: int = 420, min_width: int = 0) -> Plot:
    """The figure in the page's clothes: no title of its own, no background, a legend that leaves room on a phone."""
    if figure.layout.height is None:
        figure.layout.height = height
    figure.update_layout(
        title=None, template=None, width=None, autosize=True, paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)", margin={"l": 8, "r": 8, "t": 75, "b": 8},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0.0}, font={"size": 11},
    )  # fmt: skip
    figure.update_xaxes(automargin=True)
    figure.update_yaxes(automargin=True)
    return Plot(title, figure, caption, min_width=min_width)
