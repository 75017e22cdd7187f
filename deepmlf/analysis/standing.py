"""How an experiment stands: computed once, shown by the terminal, the report and scripts alike."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from deepmlf.analysis.curves import CurvePoint, seed_curve
from deepmlf.analysis.leaderboard import Leaderboard, Row, leaderboard_of
from deepmlf.analysis.next_steps import Missing, what_is_missing
from deepmlf.analysis.records import Records, baselines_of, load_records
from deepmlf.tables import whole_table
from deepmlf.training.baselines import baselines_line
from deepmlf.training.reports import Seconds
from deepmlf.tune.driver.screen import UNFINISHED, settings_line, time_line
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.experiment.study import FAIL_REASON, RESTARTS
from deepmlf.tune.objective import pareto_front

_LISTED, _WITH_SETTINGS = 20, 3  # trials that a person reads in a terminal


@dataclass(frozen=True)
class Standing:
    """How an experiment stands."""

    experiment: StoredExperiment
    ranked: list[FrozenTrial]
    """Trials that came to something, stopped early or not, best first by the first objective."""
    leaderboard: Leaderboard
    """All trials."""
    repeats: dict[int, int]
    """Trials that train what another one trains, with the same seed, and the number of that one: both count as one."""
    front: list[int]
    """Numbers of those that no other one beats in all objectives; of repeats the first."""
    states: dict[str, int]
    """How many trials are in each state."""
    failures: dict[int, str]
    """Why trials failed."""
    restarts: dict[int, list[str]]
    """Why trials started again."""
    baselines: dict[str, float]
    """The first objective of simple models; see `deepmlf.analysis.baselines`."""
    curve: list[CurvePoint]
    """Of a grid over seeds."""
    fusion_epochs_spent: int
    fusion_epochs_full: int
    """What full training of all trials would have taken."""
    fusion_epochs_saved: int
    """What stopped trials did not train; what failed ones or running ones lack is not saved."""
    seconds: Seconds
    """What its trials took, stages before fusion included."""

    @property
    def best_trial(self) -> int | None:
        """Number of the best trial by the first objective."""
        return self.leaderboard.best.trial if self.leaderboard.best else None

    @property
    def value(self) -> float | None:
        """Its first objective."""
        return self.leaderboard.best.values[0] if self.leaderboard.best else None

    @property
    def best_folder(self) -> str | None:
        """Its path or URI."""
        best = self.best_trial
        return None if best is None else str(self.experiment.place_of_trial(best))

    @property
    def unbeaten(self) -> list[str]:
        """Baselines that the best trial does not beat."""
        best, objective = self.value, self.experiment.objectives[0]
        if best is None:
            return []
        return [name for name, value in self.baselines.items() if not objective.is_better(best, value)]

    @property
    def trials_unfinished(self) -> int:
        """Trials that the search has yet to end."""
        ended = sum(self.states[state.name] for state in TrialState if state.is_finished())
        return max(0, self.experiment.manifest.settings.trials - ended)

    @property
    def missing(self) -> Missing | None:
        """What too few trials leave out; None if there are enough of them."""
        return what_is_missing(self.experiment, self.leaderboard, is_unfinished=bool(self.trials_unfinished))

    @property
    def recipe(self) -> str | None:
        """The recipe that held where neither the space nor ``--set`` said otherwise."""
        return self.experiment.manifest.settings.recipe

    def to_dict(self) -> dict[str, Any]:
        """What scripts are told."""
        return {
            "experiment": str(self.experiment.place),
            "recipe": self.recipe,
            "best_trial": self.best_trial,
            "best_folder": self.best_folder,
            "metric": self.experiment.objectives[0].name,
            "value": self.value,
            "common_fidelity": {
                "fusion_epochs": self.leaderboard.common.epochs,
                "reached_by": len(self.leaderboard.common.values),
                "of": self.leaderboard.common.trials,
            },
            "leaderboard": [asdict(row) for row in self.leaderboard.rows],
            "baselines": self.baselines,
            "unbeaten": self.unbeaten,
            "front": self.front,
            "repeats": self.repeats,
            "states": self.states,
            "trials_unfinished": self.trials_unfinished,
            "failures": self.failures,
            "restarts": self.restarts,
            "curve": [asdict(point) for point in self.curve],
            "fusion_epochs_spent": self.fusion_epochs_spent,
            "fusion_epochs_full": self.fusion_epochs_full,
            "fusion_epochs_saved": self.fusion_epochs_saved,
            "seconds": round(self.seconds.total, 1),
            "seconds_before_fusion": round(self.seconds.before_fusion, 1),
        }


def standing_of(
    experiment: StoredExperiment, table: pa.Table | None = None, records: Records | None = None
) -> Standing:
    """How an experiment stands by its study and what its trials have reported.

    Args:
        experiment: The experiment.
        table: What `results_of` returned for it, if that is known.
        records: Its trials, if they are loaded.
    """
    trials, epochs = experiment.trials(), experiment.manifest.settings.epochs
    records = load_records(experiment, table) if records is None else records
    by_number = {trial.number: trial for trial in trials}
    ranked = [by_number[trial.number] for trial in records.ranked]
    repeats = {trial.number: trial.repeats for trial in records.trials if trial.repeats is not None}
    front = pareto_front([trial for trial in ranked if trial.number not in repeats], experiment.objectives)
    stopped = [max(t.intermediate_values, default=0) for t in trials if t.state == TrialState.PRUNED]
    return Standing(
        experiment=experiment,
        ranked=ranked,
        leaderboard=leaderboard_of(records, by_number, front),
        repeats=repeats,
        front=front,
        states={s.name: sum(t.state == s for t in trials) for s in TrialState if s != TrialState.WAITING},
        failures={t.number: t.user_attrs.get(FAIL_REASON, "") for t in trials if t.state == TrialState.FAIL},
        restarts={t.number: t.user_attrs[RESTARTS] for t in trials if RESTARTS in t.user_attrs},
        baselines=baselines_of(experiment, ranked),
        curve=seed_curve(trial for trial in trials if trial.number not in repeats),
        fusion_epochs_spent=sum(max(t.intermediate_values, default=0) for t in trials),
        fusion_epochs_full=len(trials) * epochs,
        fusion_epochs_saved=sum(epochs - reached for reached in stopped),
        seconds=experiment.seconds_of(trials),
    )


def show_standing(standing: Standing, console: Console, *, nobody_trains: bool = False) -> None:
    """Print the leaderboard, states, failures, the epochs that early stopping saved and what too few trials lack.

    Args:
        standing: Of the experiment.
        console: Where.
        nobody_trains: Whether its driver has ended, so that trials without an end are unfinished, not running.
    """
    names = {TrialState.RUNNING.name: UNFINISHED} if nobody_trains else {}
    console.print(_leaderboard_table(standing, names))
    for line in _leaderboard_lines(standing):
        console.print(line, highlight=False, soft_wrap=True, markup=False)
    if standing.recipe is not None:
        console.print(f"recipe: {standing.recipe}, where neither the space nor --set says otherwise", highlight=False)
    for line in baseline_lines(standing):
        console.print(line, highlight=False, soft_wrap=True)
    states = ", ".join(f"{count} {names.get(name, name)}" for name, count in standing.states.items() if count)
    console.print(f"states: {states}", highlight=False)
    spent, full = standing.fusion_epochs_spent, standing.fusion_epochs_full
    saved = standing.fusion_epochs_saved / max(full, 1)
    console.print(f"fusion epochs: {spent} spent of {full} in full training ({saved:.0%} saved)", highlight=False)
    if standing.seconds.total:
        console.print(f"time: {time_line(standing.seconds)}", highlight=False)
    if standing.curve:
        console.print(_curve_table(standing))
    if standing.repeats:
        pairs = ", ".join(f"{number} as {first}" for number, first in standing.repeats.items())
        console.print(f"trained the same as an earlier trial, and count once: {pairs}", highlight=False)
    for number, reason in standing.failures.items():
        console.print(f"trial {number} failed: {reason}", markup=False)
    for number, reasons in standing.restarts.items():
        console.print(f"trial {number} started again: {'; '.join(reasons)}", markup=False)
    if standing.missing is not None:
        console.print(str(standing.missing), markup=False, highlight=False, soft_wrap=True)


def baseline_lines(standing: Standing) -> list[str]:
    """What simple models reach, and whether the best trial does not beat them."""
    if not standing.baselines:
        return []
    lines = [baselines_line(standing.experiment.objectives[0].name, standing.baselines)]
    if standing.unbeaten:
        lines.append(f"trial {standing.best_trial}, the best, does not beat {'; '.join(standing.unbeaten)}")
    return lines


def _leaderboard_table(standing: Standing, names_of_states: Mapping[str, str]) -> Table:
    objectives, board = standing.experiment.objectives, standing.leaderboard
    has_order = len(objectives) == 1
    columns = [f"best {objectives[0].name}", *(objective.name for objective in objectives[1:])]
    title = f"Trials of {standing.experiment.folder.name}, {'best' if has_order else 'Pareto front'} first"
    names = ["rank" if has_order else "front", "trial", "state", "fusion epochs", *columns]
    if not board.common.is_full:
        names.append(f"by epoch {board.common.epochs}")
    table = whole_table(*names, title=title)
    for row in board.rows[:_LISTED]:
        place = "" if row.rank is None else str(row.rank) if has_order else "yes" if row.on_front else ""
        cells = [place, str(row.trial), _state(row, names_of_states), f"{row.epochs} of {board.common.full}"]
        cells += [_number(value) for value in row.values] or [""] * len(columns)
        if not board.common.is_full:
            cells.append("" if row.at_common is None else _number(row.at_common))
        table.add_row(*cells)
    return table


def _leaderboard_lines(standing: Standing) -> list[str]:
    """What to know when reading the leaderboard."""
    board = standing.leaderboard
    lines = []
    if len(board.rows) > _LISTED:
        lines.append(f"{len(board.rows) - _LISTED} more trials are in the report of `deepmlf analyze`")
    if not board.common.is_full and board.common.values:
        lines.append(
            "ranked by each trial's best epoch, of however many it had; all compare "
            f"at fusion epoch {board.common.epochs}, reached by {board.common.reached_by}"
        )
    if board.lead_of_a_stopped_trial is not None:
        lines.append(board.lead_of_a_stopped_trial)
    return lines + [f"trial {row.trial}: {settings_line(row.params)}" for row in board.ranked[:_WITH_SETTINGS]]


def _state(row: Row, names: Mapping[str, str]) -> str:
    state = names.get(row.state, row.state)
    return state if row.repeats is None else f"{state}, as trial {row.repeats}"


def _number(value: float) -> str:
    return f"{value:.4f}" if value % 1 else f"{value:.0f}"


def _curve_table(standing: Standing) -> Table:
    curve, objective = standing.curve, standing.experiment.objectives[0].name
    # Points lack what is conditional on a setting that they do not have.
    names = list(dict.fromkeys(name for point in curve for name in point.setting))
    title = "Over seeds, mean ± standard deviation"
    if standing.states[TrialState.PRUNED.name]:
        title += " of the trials that were not stopped early: better than the settings are"
    table = whole_table(*names, objective, "seeds", title=title)
    for point in curve:
        cells = [str(point.setting.get(name, "")) for name in names]
        table.add_row(*cells, f"{point.mean:.4f} ± {point.std:.4f}", str(point.seeds))
    return table
