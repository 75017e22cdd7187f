"""The report's plots that Optuna has not: answers to the paper's questions, learning curves, rungs, costs."""

from collections.abc import Callable

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.trial import TrialState, create_trial

from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.report.answers import Answer
from deepmlf.analysis.report.plot import ACCENT, GREY, Plot, page_plot
from deepmlf.analysis.spending import RungRecord
from deepmlf.tune.objective import Objective

_DASHES = {"COMPLETE": "solid", "PRUNED": "dot", "RUNNING": "dash", "FAIL": "dashdot"}


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
            x0=min(published) - 0.45, x1=max(published) + 0.45, line={"dash": "dash", "color": GREY},
            fillcolor=GREY, opacity=0.15, layer="below",
        )  # fmt: skip
    labels = [f"{group.label}<br>n={len(group.values)}" for group in measured]
    figure.update_xaxes(tickvals=places, ticktext=labels, title=asked.setting)
    figure.update_yaxes(title=objective.name)
    framed = f" Framed: the paper's answer, {asked.answer}." if published else ""
    return page_plot(title, figure, "Full-fidelity trials only." + framed)


def learning_curves(records: Records, rungs: list[RungRecord]) -> Plot:
    """The first objective of every trial by fusion epoch, with the rungs' cut-offs."""
    title = "Learning curves"
    if not any(trial.curve for trial in records.trials):
        return Plot(title, None, missing="Needs a fusion epoch.")
    name = records.objectives[0].name
    best = records.ranked[0].number if records.ranked else None
    figure = go.Figure()  # Optuna's plot of them knows no failed trials and one objective only
    for trial in records.trials:
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
    figure.update_layout(xaxis_title="fusion epoch", yaxis_title=name, showlegend=True)
    caption = "Solid: complete. Dotted: stopped. Dashed: running. Dash-dotted: failed."
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
    figure.update_layout(barmode="stack", yaxis_title="trials")
    return page_plot(title, figure, "")


def pareto(records: Records, title: str, cost_name: str, cost: Callable[[TrialRecord], float | None]) -> Plot:
    """The first objective against a cost; trials that no other one beats in both are marked."""
    objective = records.objectives[0]
    costs = {trial.number: cost(trial) for trial in records.complete}
    known = {number: value for number, value in costs.items() if value is not None}
    if len(known) < 2:
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
        figure.data, ("beaten in both", "on the front"), ("circle-open", "diamond"), (GREY, ACCENT), strict=True
    ):
        trace.update(name=label, marker={"symbol": symbol, "color": color, "size": 10})
    return page_plot(title, figure, f"Better is towards less {cost_name} and {objective.direction}d {objective.name}.")
