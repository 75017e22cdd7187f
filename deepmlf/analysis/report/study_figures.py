"""The report's plots of the study, drawn by Optuna. One that needs more than there is, is a sentence that says so."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial

from deepmlf.analysis.records import Records
from deepmlf.analysis.report.plot import ACCENT, GREY, Plot, page_plot
from deepmlf.analysis.standout import SIGNIFICANCE, standout

_NEEDED_FOR_PLOT = 5  # complete trials
_NEEDED_FOR_IMPORTANCE = 10  # below that, importances are noise
_TREES = 32  # with Optuna's 64, shares of 200 trials vary less with the seed, by 0.01 for 0.02, and take twice as long
_SHOWN = 6  # settings, most important first, that fit into one look
_SCALE = ((0.0, "#0b7fd6"), (1.0, GREY))


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
        figure.add_scatter(x=[best.number], y=[best.value], name=f"best complete: trial {best.number}", mode="markers",
                           marker={"symbol": "star", "size": 14, "color": ACCENT})  # fmt: skip
    return page_plot(title, figure, f"Complete trials only; the aim is to {records.objectives[index].direction}.")


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
        style = {"color": ACCENT, "dash": "solid", "width": 2.5} if is_good else {"color": GREY, "dash": "dot"}
        trace.update(opacity=1.0, line=style)
    figure.update_annotations(font_color=None)  # the theme's
    return page_plot(
        title,
        figure,
        f"Left axis: {name}. Solid: the best quarter of trials. {len(shown)} of {len(params)} settings are "
        "shown: the most important ones where one stands out, else the first ones drawn.",
        min_width=760,
    )


def importances(records: Records, index: int) -> tuple[Plot, dict[str, dict[str, float]]]:
    """fANOVA's and PED-ANOVA's importances side by side, if there is one to speak of.

    Of few trials they are noise and name any setting first; so they are shown only if a setting stands out from chance,
    and one of the two puts it first.

    Returns:
        The plot, and the shares by evaluator and setting; none where they are not shown.
    """
    name = records.objectives[index].name
    title = f"What mattered for {name}"
    varied = _varied(records)
    if len(records.counted) < _NEEDED_FOR_IMPORTANCE or not varied:
        return Plot(title, None, missing=_needs(_NEEDED_FOR_IMPORTANCE, records)), {}
    study = _counted_study(records)
    complete = study.get_trials(deepcopy=False)
    values = [trial.values[index] for trial in complete]
    if len(set(values)) < 2:
        return Plot(title, None, missing=f"All complete trials have the same {name}."), {}
    first = standout([trial.params for trial in complete], values, varied, records.settings.seed)
    shares = {} if first is None else _shares(records, study, index, varied)
    if first is None or not any(share and max(share, key=share.__getitem__) == first for share in shares.values()):
        missing = f"In {len(complete)} complete trials no setting stands out from chance: importances would be noise."
        return Plot(title, None, missing=missing), {}
    order = sorted(varied, key=lambda param: sum(share.get(param, 0.0) for share in shares.values()))
    figure = go.Figure()
    for (label, share), shape in zip(shares.items(), ("", "/"), strict=True):
        figure.add_bar(y=order, x=[share.get(param) for param in order], name=label, orientation="h",
                       marker={"pattern": {"shape": shape}, "line": {"width": 1, "color": GREY}})  # fmt: skip
    figure.update_layout(height=120 + 34 * len(order), xaxis_title="share of importance")
    caption = (
        f"From {len(complete)} complete trials. {first} stands out from chance (permutation test, "
        f"{SIGNIFICANCE:.0%}); the order of the others may be noise. fANOVA: share of the variance over all of the "
        "space, of settings that every complete trial has. PED-ANOVA: what sets the best tenth apart, settings of "
        "single curricula included, roughly where few trials have them. Where both agree, trust them more."
    )
    return page_plot(title, figure, caption), shares


def _shares(records: Records, study: optuna.Study, index: int, varied: list[str]) -> dict[str, dict[str, float]]:
    """Importances by evaluator and setting, the most important first."""
    trials = study.get_trials(deepcopy=False)
    evaluators = {
        "fANOVA": (
            FanovaImportanceEvaluator(n_trees=_TREES, seed=records.settings.seed),
            [param for param in varied if all(param in trial.params for trial in trials)],
        ),
        "PED-ANOVA": (PedAnovaImportanceEvaluator(), varied),
    }
    sign = 1 if records.objectives[index].direction == "minimize" else -1
    with warnings.catch_warnings():
        # That low values are taken for good, which the sign sees to, and that few trials have some settings.
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes|Some regimes for parameter")
        return {
            label: get_param_importances(
                study, evaluator=evaluator, params=params, target=lambda trial: sign * trial.values[index]
            )
            for label, (evaluator, params) in evaluators.items()
        }


def _counted_study(records: Records) -> optuna.Study:
    """A study of the complete trials, each training once."""
    numbers = {trial.number for trial in records.counted}
    study = optuna.create_study(directions=records.study.directions)
    study.add_trials(trial for trial in records.study.get_trials(deepcopy=False) if trial.number in numbers)
    return study


def slices(records: Records, params: list[str]) -> list[Plot]:
    """The first objective by each of the first of these settings."""
    name = records.objectives[0].name
    plots: list[Plot] = []
    if len(records.complete) < _NEEDED_FOR_PLOT:
        return plots
    for param in params[:_SHOWN]:
        figure = visualization.plot_slice(records.study, [param], target=_target(0), target_name=name)
        figure.update_traces(marker_colorscale=_SCALE, marker_showscale=False)
        plots.append(page_plot(param, figure, "", height=320))
    return plots


def contour(records: Records, params: list[str], *, stands_out: bool) -> Plot:
    """The first objective over the two most important settings, if one stands out."""
    title = "The two most important settings together, by fANOVA"
    if len(records.counted) >= _NEEDED_FOR_IMPORTANCE and not stands_out:
        return Plot(title, None, missing="Needs a setting that stands out from chance.")
    both = [trial for trial in records.complete if all(param in trial.params for param in params[:2])]
    if len(params) < 2 or len(both) < _NEEDED_FOR_IMPORTANCE:
        return Plot(title, None, missing=_needs(_NEEDED_FOR_IMPORTANCE, records))
    figure = visualization.plot_contour(
        records.study, params[:2], target=_target(0), target_name=records.objectives[0].name
    )
    return page_plot(
        title, figure, "Points are complete trials; the surface between them is interpolated, not measured."
    )


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
