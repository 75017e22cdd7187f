"""The report's plots that Optuna has not, or not of stopped trials: answers, learning curves, rungs, costs."""

from collections.abc import Callable
from itertools import product

import plotly.graph_objects as go

from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.report.answers import Answer
from deepmlf.analysis.report.plot import ACCENT, GREY, Plot, page_plot, thinned, whole_numbers
from deepmlf.analysis.spending import RungRecord
from deepmlf.tune.objective import Objective

_MOST_OF_A_GROUP = 100
_DASHES = {"COMPLETE": "solid", "PRUNED": "dot", "RUNNING": "dash", "FAIL": "dashdot"}


def question(answer: Answer, objective: Objective) -> Plot:
    """Trials by the setting asked about, means with intervals, and the paper's answer."""
    asked = answer.question
    title = f"{objective.name} by {asked.setting}"
    measured = [group for group in answer.groups if group.values]
    if not measured:
        return Plot(title, None, missing="Needs a trial that has reached a fidelity of the others.")
    places = list(range(len(measured)))
    figure = go.Figure()
    shown = [thinned(group.values, _MOST_OF_A_GROUP) for group in measured]
    figure.add_scatter(
        x=[place for place, values in zip(places, shown, strict=True) for _ in values],
        y=[value for values in shown for value in values],
        mode="markers", name="one trial", marker={"symbol": "circle-open", "color": GREY, "size": 8},
    )  # fmt: skip
    halves = [0.0 if group.interval is None else (group.interval[1] - group.interval[0]) / 2 for group in measured]
    figure.add_scatter(
        x=places, y=[group.mean for group in measured], mode="markers", name="mean, 95 % interval from 3 trials on",
        marker={"symbol": "diamond", "size": 11, "color": ACCENT},
        error_y={"type": "data", "array": halves, "width": 6},
    )  # fmt: skip
    published = [place for place, group in zip(places, measured, strict=True) if group.value in asked.published]
    if published:
        figure.add_vrect(
            x0=min(published) - 0.45, x1=max(published) + 0.45, line={"dash": "dash", "width": 1, "color": GREY},
            layer="below",
        )  # fmt: skip
    labels = [f"{group.label}<br>n={len(group.values)}" for group in measured]
    figure.update_xaxes(tickvals=places, ticktext=labels, title=asked.setting)
    figure.update_yaxes(title=objective.name)
    framed = f" Framed: the paper's answer, {asked.answer}." if published else ""
    where = answer.fidelity.where
    is_whole = sum(map(len, shown)) == sum(len(group.values) for group in measured)
    some = "" if is_whole else " Of a value with many trials some are drawn."
    return page_plot(title, figure, f"Trials {where}; 95 % intervals are Student's t over trials." + framed + some)


def learning_curves(records: Records, rungs: list[RungRecord]) -> Plot:
    """The first objective of every trial by fusion epoch, with the rungs' cut-offs."""
    title = "Learning curves"
    if not any(trial.curve for trial in records.trials):
        return Plot(title, None, missing="Needs a fusion epoch.")
    name = records.objectives[0].name
    best = records.ranked[0].number if records.ranked else None
    figure = go.Figure()  # Optuna's plot of them knows no failed trials and one objective only
    for trial in records.listed:
        is_best = trial.number == best
        figure.add_scatter(
            x=list(trial.curve), y=list(trial.curve.values()), mode="lines+markers", showlegend=is_best,
            name=f"trial {trial.number} ({'best' if is_best else trial.state})",
            line={"dash": _DASHES[trial.state], "width": 4 if is_best else 1.2, "color": ACCENT if is_best else None},
            marker={"size": 5 if is_best else 3},
        )  # fmt: skip
    for rung in rungs:
        figure.add_vline(x=rung.epoch, line={"dash": "dot", "width": 1, "color": GREY})
    cut = [rung for rung in rungs if rung.cutoff is not None]
    if cut:
        figure.add_scatter(
            x=[rung.epoch for rung in cut], y=[rung.cutoff for rung in cut], mode="markers", name="cut-off",
            marker={"symbol": "x", "size": 11, "color": ACCENT}, showlegend=True,
        )  # fmt: skip
    figure.update_layout(yaxis_title=name, showlegend=True)
    figure.update_xaxes(title="fusion epoch", **whole_numbers(trial.epochs for trial in records.trials))
    caption = records.listed_line + "Solid: complete. Dotted: stopped. Dashed: running. Dash-dotted: failed."
    caption += "" if best is None else " The best trial is thick."
    caption += " Crosses: the rungs' cut-offs, of all trials that have ended." if cut else ""
    return page_plot(title, figure, caption)


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
    figure.update_layout(barmode="stack")
    figure.update_yaxes(title="trials", **whole_numbers(len(rung.reached) for rung in rungs))
    return page_plot(title, figure, "")


def pareto(records: Records, title: str, cost_name: str, cost: Callable[[TrialRecord], float | None]) -> Plot:
    """The first objective against a cost, in trials' best epochs; those that no other one beats in both are marked."""
    objective = records.objectives[0]
    known = [(trial, trial.value, cost(trial)) for trial in records.ranked]
    points = [(trial, value, paid) for trial, value, paid in known if value is not None and paid is not None]
    if len(points) < 2:
        return Plot(title, None, missing=f"Needs two trials that recorded {cost_name}, and has {len(points)}.")
    front, cheapest = set(), float("inf")
    for trial, _, paid in sorted(points, key=lambda point: (objective.sign * point[1], point[2])):
        if paid < cheapest:  # all that are as good or better cost more
            front.add(trial.number)
            cheapest = paid
    listed = front | {trial.number for trial in records.listed}
    points = [point for point in points if point[0].number in listed]
    figure = go.Figure()
    for is_whole, is_front in product((True, False), repeat=2):
        these = [point for point in points if (point[0].is_complete, point[0].number in front) == (is_whole, is_front)]
        symbol, color = ("diamond", ACCENT) if is_front else ("circle", GREY)
        figure.add_scatter(
            x=[value for _, value, _ in these], y=[paid for _, _, paid in these], mode="markers",
            name=f"{'on the front' if is_front else 'beaten'}, {'trained to its end' if is_whole else 'stopped early'}",
            text=[f"trial {trial.number}, {trial.epochs} fusion epochs" for trial, _, _ in these],
            marker={"symbol": symbol if is_whole else f"{symbol}-open", "color": color, "size": 10},
        )  # fmt: skip
    figure.update_layout(xaxis_title=objective.name, yaxis_title=cost_name)
    caption = records.listed_line + (
        f"Better is towards less {cost_name} and {objective.direction}d {objective.name}. Each trial in its best "
        "epoch, however far it got; open: stopped early."
    )
    return page_plot(title, figure, caption)
