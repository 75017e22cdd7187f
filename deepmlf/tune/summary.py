"""How a search ended."""

import json
from typing import Any

from optuna.trial import TrialState
from pydantic import BaseModel

from deepmlf.tune.experiment.study import OVERRIDES, own_trials
from deepmlf.tune.objective import best_first, pareto_front
from deepmlf.tune.plan import SearchPlan


class SearchSummary(BaseModel):
    """How a search ended."""

    experiment: str
    best_trial: int | None
    """The best trial by the first objective."""
    metric: str
    value: float | None
    front: list[int]
    """Trials that no other one beats: one for one objective, the Pareto front for two."""
    config: dict[str, Any]
    states: dict[str, int]
    seconds: float
    fusion_epochs_spent: int
    fusion_epochs_full: int
    trial_seconds: float
    """What its trials took together, stages before fusion included."""
    trial_seconds_before_fusion: float
    interrupted: bool
    out_of_time: bool
    """Whether the time budget interrupted it."""
    stop_reason: str | None
    exhausted: bool
    """Whether it ended because no setting was found that no trial has."""


def summarise(
    plan: SearchPlan, *, seconds: float, out_of_time: bool, stop_reason: str | None, is_exhausted: bool
) -> SearchSummary:
    """Sum up a search as its study has it now.

    Args:
        plan: The search.
        seconds: What this driver took.
        out_of_time: Whether its time budget ended it.
        stop_reason: What else ended it before its end, if anything.
        is_exhausted: Whether its searcher had nothing left to draw.
    """
    trials, objectives = own_trials(plan.experiment.study), plan.experiment.objectives
    ranked = best_first(trials, objectives)
    best = ranked[0] if ranked else None
    ended, running = sum(t.state.is_finished() for t in trials), any(t.state == TrialState.RUNNING for t in trials)
    wanted, spent = plan.settings.trials, plan.experiment.seconds_of(trials)
    return SearchSummary(
        experiment=str(plan.experiment.place),
        best_trial=best.number if best else None,
        metric=objectives[0].name,
        value=best.values[0] if best else None,
        front=pareto_front(ranked, objectives),
        config=json.loads(best.user_attrs[OVERRIDES]) if best else {},
        states={state.name: sum(t.state == state for t in trials) for state in TrialState},
        seconds=round(seconds, 1),
        fusion_epochs_spent=sum(max(t.intermediate_values, default=0) for t in trials),
        fusion_epochs_full=wanted * plan.settings.epochs,
        trial_seconds=round(spent.total, 1),
        trial_seconds_before_fusion=round(spent.before_fusion, 1),
        interrupted=(running or (ended < wanted and not is_exhausted)) and stop_reason is None,
        out_of_time=out_of_time,
        stop_reason=stop_reason,
        exhausted=is_exhausted,
    )
