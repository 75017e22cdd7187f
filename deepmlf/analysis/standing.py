"""How an experiment stands: computed once, shown by the terminal, the report and scripts alike."""

from dataclasses import asdict, dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table

from deepmlf.analysis.baselines import baselines_of
from deepmlf.analysis.curves import CurvePoint, seed_curve
from deepmlf.analysis.distinct import repeats_of, settings_of
from deepmlf.training.baselines import baselines_line
from deepmlf.training.reports import Seconds
from deepmlf.tune.driver.screen import settings_line, time_line
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.experiment.study import FAIL_REASON, RESTARTS
from deepmlf.tune.objective import best_first, pareto_front

_LISTED = 10  # trials that a person reads


@dataclass(frozen=True)
class Standing:
    """How an experiment stands."""

    experiment: StoredExperiment
    ranked: list[FrozenTrial]
    """Trials that came to something, stopped early or not, best first by the first objective."""
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
        return self.ranked[0].number if self.ranked else None

    @property
    def best_folder(self) -> str | None:
        """Its path or URI."""
        best = self.best_trial
        return None if best is None else str(self.experiment.place_of_trial(best))

    @property
    def unbeaten(self) -> list[str]:
        """Baselines that the best trial does not beat."""
        if not self.ranked:
            return []
        best, objective = self.ranked[0].values[0], self.experiment.objectives[0]
        return [name for name, value in self.baselines.items() if not objective.is_better(best, value)]

    @property
    def trials_unfinished(self) -> int:
        """Trials that the search has yet to end."""
        ended = sum(self.states[state.name] for state in TrialState if state.is_finished())
        return max(0, self.experiment.manifest.settings.trials - ended)

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
            "value": self.ranked[0].values[0] if self.ranked else None,
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


def standing_of(experiment: StoredExperiment) -> Standing:
    """How an experiment stands by its study."""
    trials, epochs = experiment.trials(), experiment.manifest.settings.epochs
    ranked = best_first(trials, experiment.objectives)
    repeats = repeats_of(settings_of(experiment, trials), trials)
    stopped = [max(t.intermediate_values, default=0) for t in trials if t.state == TrialState.PRUNED]
    return Standing(
        experiment=experiment,
        ranked=ranked,
        repeats=repeats,
        front=pareto_front([trial for trial in ranked if trial.number not in repeats], experiment.objectives),
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


def show_standing(standing: Standing, console: Console) -> None:
    """Print best trials, states, failures and the epochs that early stopping saved."""
    console.print(_best_table(standing))
    if standing.recipe is not None:
        console.print(f"recipe: {standing.recipe}, where neither the space nor --set says otherwise", highlight=False)
    for line in baseline_lines(standing):
        console.print(line, highlight=False, soft_wrap=True)
    console.print("states: " + ", ".join(f"{count} {name}" for name, count in standing.states.items() if count))
    spent, full = standing.fusion_epochs_spent, standing.fusion_epochs_full
    saved = standing.fusion_epochs_saved / max(full, 1)
    console.print(f"fusion epochs: {spent} spent of {full} in full training ({saved:.0%} saved)")
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


def baseline_lines(standing: Standing) -> list[str]:
    """What simple models reach, and whether the best trial does not beat them."""
    if not standing.baselines:
        return []
    lines = [baselines_line(standing.experiment.objectives[0].name, standing.baselines)]
    if standing.unbeaten:
        lines.append(f"trial {standing.best_trial}, the best, does not beat {'; '.join(standing.unbeaten)}")
    return lines


def _best_table(standing: Standing) -> Table:
    objectives = standing.experiment.objectives
    counted = [trial for trial in standing.ranked if trial.number not in standing.repeats]
    has_order = len(objectives) == 1
    listed = counted[:_LISTED] if has_order else [t for t in counted if t.number in standing.front]
    title = "Best trials" if has_order else "Pareto front"
    columns = [f"best {objectives[0].name}", *(objective.name for objective in objectives[1:])]
    title = f"{title} of {standing.experiment.folder.name}"
    table = Table("trial", *columns, "fusion epochs", "settings", title=title)
    for trial in listed:
        values = [f"{value:.4f}" if value % 1 else f"{value:.0f}" for value in trial.values]
        table.add_row(str(trial.number), *values, str(max(trial.intermediate_values)), settings_line(trial.params))
    return table


def _curve_table(standing: Standing) -> Table:
    curve, objective = standing.curve, standing.experiment.objectives[0].name
    # Points lack what is conditional on a setting that they do not have.
    names = list(dict.fromkeys(name for point in curve for name in point.setting))
    title = "Over seeds, mean ± standard deviation"
    if standing.states[TrialState.PRUNED.name]:
        title += " of the trials that were not stopped early: better than the settings are"
    table = Table(*names, objective, "seeds", title=title)
    for point in curve:
        cells = [str(point.setting.get(name, "")) for name in names]
        table.add_row(*cells, f"{point.mean:.4f} ± {point.std:.4f}", str(point.seeds))
    return table
