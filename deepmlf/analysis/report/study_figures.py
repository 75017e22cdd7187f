"""The report's plots of the study: of all trials at the fidelity that enough have reached, so that they compare.

One that needs more than there is, is a sentence that says so.
"""

import random
import warnings
from collections.abc import Callable
from functools import partial
from itertools import accumulate
from typing import Any

import optuna
import plotly.graph_objects as go
from optuna import visualization
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState, create_trial

from deepmlf.analysis.fidelity import NEEDED_FOR_IMPORTANCE, NEEDED_FOR_PLOT, CommonFidelity, common_fidelity
from deepmlf.analysis.records import Records
from deepmlf.analysis.report.plot import ACCENT, GREY, Plot, page_plot, whole_numbers
from deepmlf.analysis.statistics.standout import SIGNIFICANCE, Effect, effects, standout
from deepmlf.tune.experiment.study import Excerpt

_TREES = 32  # with Optuna's 64, shares of 200 trials vary less with the seed, by 0.01 for 0.02, and take twice as long
_COMPARED = 400  # trials that importances are of: fANOVA's time grows with the square of their number
_DRAWN = 300  # trials in a plot that has a line or a point for each
_SHOWN = 6  # settings, most important first, that fit into one look
_SCALE = ((0.0, "#0b7fd6"), (1.0, GREY))


def history(records: Records, index: int) -> Plot:
    """One objective by trial, whole or stopped early, and the best so far."""
    objective = records.objectives[index]
    title = f"{objective.name} by trial"
    reached = [
        (trial.number, float(trial.best[objective.name]), trial.is_complete)
        for trial in sorted(records.ranked, key=lambda trial: trial.number)
        if objective.name in trial.best
    ]
    if not reached:
        return Plot(title, None, missing="Needs a trial that has ended.")
    figure = go.Figure()
    for is_whole, label, symbol in ((True, "trained to its end", "circle"), (False, "stopped early", "circle-open")):
        of_these = [(number, value) for number, value, whole in reached if whole == is_whole]
        figure.add_scatter(
            x=[number for number, _ in of_these], y=[value for _, value in of_these], mode="markers", name=label,
            marker={"symbol": symbol, "color": GREY, "size": 9},
        )  # fmt: skip
    if len(records.objectives) == 1:  # of two, none is the best in all
        so_far = accumulate((value for _, value, _ in reached), lambda best, value: objective.best((best, value)))
        figure.add_scatter(x=[number for number, _, _ in reached], y=list(so_far), mode="lines", name="best so far",
                           line={"shape": "hv", "color": ACCENT, "width": 1.5})  # fmt: skip
    figure.update_xaxes(title="trial", rangemode="tozero", **whole_numbers(number for number, _, _ in reached))
    figure.update_yaxes(title=objective.name)
    caption = f"Each trial's best epoch, however far it got; the aim is to {objective.direction}."
    return page_plot(title, figure, caption)


def parallel_coordinates(records: Records, params: list[str]) -> Plot:
    """Trials as lines through the most important settings."""
    title = "Settings of trials, parallel coordinates"
    shown, common = params[:_SHOWN], common_fidelity(records)
    if len(common.values) < NEEDED_FOR_PLOT or not shown:
        return Plot(title, None, missing=_needs(NEEDED_FOR_PLOT, common))
    name = records.objectives[0].name
    figure = visualization.plot_parallel_coordinate(_study(records, common), shown, target=_target(0), target_name=name)
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
        f"Left axis: {name} {common.where}{_of_them(len(common.values), _DRAWN)}. Solid: the best quarter of these. "
        f"{len(shown)} of {len(params)} settings "
        "are shown: the most important ones where one stands out, else those that explain most by themselves.",
        min_width=760,
    )


def explained(records: Records, index: int) -> tuple[Plot, list[Effect]]:
    """What each setting explains by itself, beside what chance would have it explain.

    Returns:
        The plot, and the effects, the furthest above chance first; none where there are too few trials.
    """
    name, common = records.objectives[index].name, common_fidelity(records)
    title = f"What each setting explains of {name} by itself"
    trials, varied = _counted(records, common), _varied(records, common)
    found: list[Effect] = []
    if len(trials) >= NEEDED_FOR_PLOT:
        values = [trial.values[index] for trial in trials]
        found = effects([trial.params for trial in trials], values, varied, records.settings.seed)
    if not found:
        return Plot(title, None, missing=_needs(NEEDED_FOR_PLOT, common)), []
    order = [effect.name for effect in reversed(found)]
    figure = go.Figure()
    figure.add_bar(
        y=order, x=[effect.by_chance for effect in reversed(found)], name="what chance reaches, 95 %", orientation="h",
        marker={"color": GREY, "opacity": 0.35, "pattern": {"shape": "/"}},
    )  # fmt: skip
    figure.add_scatter(
        y=order, x=[effect.share for effect in reversed(found)], name="explained", mode="markers",
        marker={"symbol": "diamond", "size": 11, "color": ACCENT},
    )  # fmt: skip
    figure.update_layout(height=140 + 34 * len(order))
    figure.update_xaxes(title="share of the variance of ranks", range=[0, 1])
    caption = (
        f"{name} {common.where}; {_counted_words(records, common)}. Hatched: a setting that does not matter stays "
        "within it in 95 % of permutations of the results, so that one of twenty such lies beyond it by chance. A "
        "sampler that goes where it expects the best varies little of what it likes, and hides what it does."
    )
    return page_plot(title, figure, caption), found


def importances(records: Records, index: int) -> tuple[Plot, dict[str, dict[str, float]]]:
    """fANOVA's and PED-ANOVA's importances side by side, if there is one to speak of.

    Of few trials they are noise and name any setting first; so they are shown only if a setting stands out from chance,
    and one of the two puts it first.

    Returns:
        The plot, and the shares by evaluator and setting; none where they are not shown.
    """
    name, common = records.objectives[index].name, common_fidelity(records)
    title = f"What mattered for {name}"
    varied, counted = _varied(records, common), _counted(records, common)
    if len(counted) < NEEDED_FOR_IMPORTANCE or not varied:
        return Plot(title, None, missing=_needs(NEEDED_FOR_IMPORTANCE, common, len(counted))), {}
    values = [trial.values[index] for trial in counted]
    if len(set(values)) < 2:
        return Plot(title, None, missing=f"All trials have the same {name}."), {}
    first = standout([trial.params for trial in counted], values, varied, records.settings.seed)
    shares = {} if first is None else _shares(records, counted, index, varied)
    if first is None or not any(share and max(share, key=share.__getitem__) == first for share in shares.values()):
        among = f"In {_counted_words(records, common)} {common.where}"
        missing = f"{among}, no setting stands out from chance: importances would be noise."
        return Plot(title, None, missing=missing), {}
    order = sorted(varied, key=lambda param: sum(share.get(param, 0.0) for share in shares.values()))
    figure = go.Figure()
    for (label, share), shape in zip(shares.items(), ("", "/"), strict=True):
        figure.add_bar(y=order, x=[share.get(param) for param in order], name=label, orientation="h",
                       marker={"pattern": {"shape": shape}, "line": {"width": 1, "color": GREY}})  # fmt: skip
    figure.update_layout(height=120 + 34 * len(order), xaxis_title="share of importance")
    caption = (
        f"Of {_counted_words(records, common)} {common.where}. {first} stands out from chance (permutation test, "
        f"{SIGNIFICANCE:.0%}); the order of the others may be noise. fANOVA: share of the variance over all of the "
        "space, of settings that every trial has. PED-ANOVA: what sets the best tenth apart, settings of "
        "single curricula included, roughly where few trials have them. Where both agree, trust them more."
    )
    return page_plot(title, figure, caption), shares


def _shares(records: Records, trials: list[FrozenTrial], index: int, varied: list[str]) -> dict[str, dict[str, float]]:
    """Importances by evaluator and setting, the most important first."""
    study = optuna.create_study(directions=records.study.directions)
    study.add_trials(trials)
    evaluators = {
        "fANOVA": (
            FanovaImportanceEvaluator(n_trees=_TREES, seed=records.settings.seed),
            [param for param in varied if all(param in trial.params for trial in trials)],
        ),
        "PED-ANOVA": (PedAnovaImportanceEvaluator(), varied),
    }
    sign = records.objectives[index].sign
    with warnings.catch_warnings():
        # That low values are taken for good, which the sign sees to, and that few trials have some settings.
        warnings.filterwarnings("ignore", "PedAnovaImportanceEvaluator computes|Some regimes for parameter")
        return {
            label: get_param_importances(
                study, evaluator=evaluator, params=params, target=lambda trial: sign * trial.values[index]
            )
            for label, (evaluator, params) in evaluators.items()
        }


def slices(records: Records, params: list[str]) -> list[Plot]:
    """The first objective by each of the first of these settings."""
    name, common = records.objectives[0].name, common_fidelity(records)
    plots: list[Plot] = []
    if len(common.values) < NEEDED_FOR_PLOT:
        return plots
    study = _study(records, common)
    for param in params[:_SHOWN]:
        figure = visualization.plot_slice(study, [param], target=_target(0), target_name=name)
        figure.update_traces(marker_colorscale=_SCALE, marker_showscale=False)
        drawn = [x for trace in figure.data for x in trace.x]
        if all(isinstance(x, int) and not isinstance(x, bool) for x in drawn):
            figure.update_xaxes(**whole_numbers(drawn))
        plots.append(page_plot(param, figure, "", height=320))
    return plots


def together(records: Records, params: list[str], *, stands_out: bool) -> Plot:
    """Trials over the two most important settings, if one stands out."""
    title, common = "The two most important settings together, by fANOVA", common_fidelity(records)
    counted = _counted(records, common)
    if len(counted) >= NEEDED_FOR_IMPORTANCE and not stands_out:
        return Plot(title, None, missing="Needs a setting that stands out from chance.")
    both = [trial for trial in counted if all(param in trial.params for param in params[:2])]
    if len(params) < 2 or len(both) < NEEDED_FOR_IMPORTANCE:
        return Plot(title, None, missing=_needs(NEEDED_FOR_IMPORTANCE, common, len(both)))
    objective = records.objectives[0]
    ranked = sorted(both, key=lambda trial: objective.sign * trial.values[0])
    quarters = [ranked[start * len(ranked) // 4 : (start + 1) * len(ranked) // 4] for start in range(4)]
    figure = go.Figure()
    for place, (label, trials) in enumerate(zip(("best", "second", "third", "worst"), quarters, strict=True)):
        figure.add_scatter(
            x=[trial.params[params[0]] for trial in trials], y=[trial.params[params[1]] for trial in trials],
            mode="markers", name=f"{label} quarter", text=[f"{trial.values[0]:.4f}" for trial in trials],
            marker={"symbol": "circle-open" if place else "diamond", "size": 16 - 4 * place,
                    "color": GREY if place else ACCENT},
        )  # fmt: skip
    for axis, param in ((figure.update_xaxes, params[0]), (figure.update_yaxes, params[1])):
        is_log = getattr(ranked[0].distributions[param], "log", False)
        axis(title=param, type="log" if is_log else None)
    return page_plot(title, figure, f"Trials {common.where}; the larger, the better {objective.name}.")


def by_importance(shares: dict[str, dict[str, float]], alone: list[Effect], records: Records) -> list[str]:
    """Settings that were varied, most important first: by fANOVA, then by PED-ANOVA what that leaves out, or, where
    none stands out, by what each explains by itself."""
    order = [*shares.get("fANOVA", {}), *shares.get("PED-ANOVA", {}), *(effect.name for effect in alone)]
    return list(dict.fromkeys([*order, *_varied(records, common_fidelity(records))]))


def _varied(records: Records, common: CommonFidelity) -> list[str]:
    """Settings that took two values at least in trials that have reached a fidelity."""
    values: dict[str, set[Any]] = {}
    for trial in records.trials:
        if trial.number in common.values:
            for param, value in trial.params.items():
                values.setdefault(param, set()).add(value)
    return [param for param in records.params if len(values.get(param, ())) > 1]


def _study(records: Records, common: CommonFidelity) -> optuna.Study:
    """A study as if trials had been trained to a fidelity and no further, under their numbers; of many some."""
    known = records.study.get_trials(deepcopy=False)
    drawn = [_at(known[number], common) for number in _some(sorted(common.values), _DRAWN, records)]
    return Excerpt(optuna.create_study(directions=records.study.directions), drawn)


def _counted(records: Records, common: CommonFidelity) -> list[FrozenTrial]:
    """Trials that have reached a fidelity, as if trained no further, each training once; of many some."""
    known = records.study.get_trials(deepcopy=False)
    return [_at(known[number], common) for number in _some(_distinct(records, common), _COMPARED, records)]


def _distinct(records: Records, common: CommonFidelity) -> list[int]:
    """The trials that have reached a fidelity, each training once, by their numbers."""
    return sorted(common.values.keys() - {trial.number for trial in records.trials if trial.repeats is not None})


def _some(numbers: list[int], most: int, records: Records) -> list[int]:
    """So many of these numbers, drawn at random if there are more."""
    if len(numbers) <= most:
        return numbers
    return sorted(random.Random(records.settings.seed).sample(numbers, most))


def _of_them(count: int, most: int) -> str:
    return "" if count <= most else f", {most} of them, drawn at random"


def _counted_words(records: Records, common: CommonFidelity) -> str:
    count = len(_distinct(records, common))
    return f"{count} trainings that differ" + (f", {_COMPARED} of them drawn at random," if count > _COMPARED else "")


def _at(trial: FrozenTrial, common: CommonFidelity) -> FrozenTrial:
    compared = create_trial(
        state=TrialState.COMPLETE,
        values=common.values[trial.number],
        params=trial.params,
        distributions=trial.distributions,
    )
    compared.number = trial.number
    return compared


def _target(index: int) -> Callable[[FrozenTrial], float]:
    return partial(_value, index)


def _value(index: int, trial: FrozenTrial) -> float:
    return float(trial.values[index])


def _needs(count: int, common: CommonFidelity, have: int | None = None) -> str:
    """Why there is no plot of trials at a fidelity, of which so many count, or all."""
    have = len(common.values) if have is None else have
    if have < count:
        return f"Needs {count} trials at one fidelity, and has {have}."
    return "Needs settings that differ between trials."
