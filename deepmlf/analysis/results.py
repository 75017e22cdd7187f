"""An experiment as a table: one row per trial and fusion epoch."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
from optuna.trial import TrialState
from rich.console import Console
from rich.table import Table

from deepmlf.analysis.curves import CurvePoint, seed_curve
from deepmlf.config import TrialConfig
from deepmlf.files import new_file
from deepmlf.places import RemoteFolder, is_remote, join
from deepmlf.tune.decide.searcher import FAIL_REASON, OVERRIDES
from deepmlf.tune.driver.faults import RESTARTS
from deepmlf.tune.driver.recorder import read_metrics
from deepmlf.tune.experiment.remote import open_experiment
from deepmlf.tune.experiment.study import open_study, own_trials
from deepmlf.tune.objective import best_first, make_objectives, pareto_front
from deepmlf.tune.settings import read_manifest
from deepmlf.tune.worker.trainable import trial_folder

EPOCH_SECONDS = "time/epoch_seconds"
_AV_REUSED = "curriculum/av_reused"


def load_results(place: str | Path) -> pa.Table:
    """All trials of an experiment: one row per trial and fusion epoch, dotted parameters as columns.

    Trials taken over from an earlier experiment are left out. A trial without any finished fusion epoch has one row
    whose epoch and metrics are null. ``seconds`` counts from the trial's start, stages before fusion included; a stage
    that was taken from the store counts as none. It is null where epochs were not timed. ``cpus`` and ``gpus`` are what
    the trial held for that time.

    Raises:
        SearchError: If the folder is no experiment.
    """
    experiment = open_experiment(place)
    manifest = read_manifest(experiment)
    base, search = manifest["base"], manifest["settings"]
    rows: list[dict[str, Any]] = []
    for trial in own_trials(open_study(experiment)):
        if trial.state == TrialState.WAITING:
            continue
        folder = trial_folder(experiment, trial.number)
        overrides = json.loads(trial.user_attrs.get(OVERRIDES, "{}"))
        settings = TrialConfig.from_overrides(base, overrides).flat() if overrides else {}
        common = {
            "trial": trial.number,
            "state": trial.state.name,
            "fail_reason": trial.user_attrs.get(FAIL_REASON),
            "objective": trial.values[0] if trial.values else None,
            "cpus": search["cpus_per_trial"],
            "gpus": search["gpus_per_trial"],
        } | {name: json.dumps(v) if isinstance(v, list) else v for name, v in settings.items()}
        epochs = _with_seconds(read_metrics(folder))
        fusion = [
            {name: value for name, value in metrics.items() if not isinstance(value, list)}  # attention is no number
            for metrics in epochs
            if "fusion_epoch" in metrics
        ]
        seconds = epochs[-1]["seconds"] if epochs else None
        rows += [common | metrics for metrics in fusion] or [common | {"fusion_epoch": None, "seconds": seconds}]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _with_seconds(epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The epochs, each with the seconds that the trial had taken by its end."""
    # A stage that was taken from the store is reported once, without measurements.
    spent: Iterable[float | None] = (
        metrics.get(EPOCH_SECONDS, 0.0 if metrics.get(_AV_REUSED) else None) for metrics in epochs
    )
    totals = accumulate(spent, lambda total, more: None if total is None or more is None else total + more)
    return [metrics | {"seconds": total} for metrics, total in zip(epochs, totals, strict=True)]


def write_results(experiment: Path) -> Path:
    """Write ``results.parquet`` into the experiment and return its path.

    Raises:
        SearchError: If the folder is no experiment.
    """
    path = experiment / "results.parquet"
    with new_file(path) as temporary:
        pq.write_table(load_results(experiment), temporary)
    return path


def summarise(place: str | Path, *, top: int = 10, quiet: bool = False) -> dict[str, Any]:
    """Print best trials, states, failures and the epochs that early stopping saved; return the same as a dict.

    Saved are the epochs that stopped trials did not train; those that failed ones or running ones lack are not.

    Args:
        place: The experiment's folder or URI.
        top: Trials to list.
        quiet: Print nothing.

    Raises:
        SearchError: If the folder is no experiment.
    """
    experiment = open_experiment(place)
    settings = read_manifest(experiment)["settings"]
    objectives = make_objectives(settings["objectives"])
    path = write_results(experiment)
    shown: str | Path = path
    if is_remote(place):
        RemoteFolder(str(place)).upload(path.read_bytes(), path.name)
        shown = join(str(place), path.name)
    trials = [t for t in own_trials(open_study(experiment)) if t.state != TrialState.WAITING]
    complete = best_first(trials, objectives)
    front = pareto_front(complete, objectives)
    listed = complete[:top] if len(objectives) == 1 else [t for t in complete if t.number in front]
    spent = sum(max(t.intermediate_values, default=0) for t in trials)
    full = len(trials) * settings["epochs"]
    stopped = [max(t.intermediate_values, default=0) for t in trials if t.state == TrialState.PRUNED]
    saved = sum(settings["epochs"] - epochs for epochs in stopped)
    console = Console(quiet=quiet)
    title = "Best trials" if len(objectives) == 1 else "Pareto front"
    columns = [f"best {objectives[0].name}", *(objective.name for objective in objectives[1:])]
    table = Table("trial", *columns, "fusion epochs", "settings", title=f"{title} of {experiment.name}")
    for trial in listed:
        values = [f"{value:.4f}" if value % 1 else f"{value:.0f}" for value in trial.values]
        table.add_row(str(trial.number), *values, str(max(trial.intermediate_values)), _short(trial))
    console.print(table)
    states = {state.name: sum(t.state == state for t in trials) for state in TrialState if state.name != "WAITING"}
    ended = sum(t.state.is_finished() for t in trials)
    console.print("states: " + ", ".join(f"{count} {name}" for name, count in states.items() if count))
    console.print(f"fusion epochs: {spent} spent of {full} in full training ({saved / max(full, 1):.0%} saved)")
    curve = seed_curve(trials)
    if curve:
        console.print(_curve_table(curve, objectives[0].name))
    failures = {t.number: t.user_attrs.get(FAIL_REASON, "") for t in trials if t.state == TrialState.FAIL}
    for number, reason in failures.items():
        console.print(f"trial {number} failed: {reason}", markup=False)
    restarts = {t.number: t.user_attrs[RESTARTS] for t in trials if RESTARTS in t.user_attrs}
    for number, reasons in restarts.items():
        console.print(f"trial {number} started again: {'; '.join(reasons)}", markup=False)
    console.print(f"table: {shown}", soft_wrap=True)
    return {
        "experiment": str(place) if is_remote(place) else str(experiment),
        "best_trial": complete[0].number if complete else None,
        "best_folder": place_of_trial(place, experiment, complete[0].number) if complete else None,
        "metric": objectives[0].name,
        "value": complete[0].values[0] if complete else None,
        "front": front,
        "states": states,
        "trials_unfinished": max(0, settings["trials"] - ended),
        "failures": failures,
        "restarts": restarts,
        "curve": [asdict(point) for point in curve],
        "fusion_epochs_spent": spent,
        "fusion_epochs_full": full,
        "fusion_epochs_saved": saved,
    }


def place_of_trial(place: str | Path, experiment: Path, number: int) -> str:
    """Path or URI of a trial of the experiment at `place`, whose folder on this machine is `experiment`."""
    folder = trial_folder(experiment, number)
    return join(str(place), "trials", folder.name) if is_remote(place) else str(folder)


def _curve_table(curve: list[CurvePoint], objective: str) -> Table:
    # Points lack what is conditional on a setting that they do not have.
    names = list(dict.fromkeys(name for point in curve for name in point.setting))
    table = Table(*names, objective, "seeds", title="Over seeds, mean ± standard deviation")
    for point in curve:
        cells = [str(point.setting.get(name, "")) for name in names]
        table.add_row(*cells, f"{point.mean:.4f} ± {point.std:.4f}", str(point.seeds))
    return table


def _short(trial: optuna.trial.FrozenTrial) -> str:
    return ", ".join(
        f"{name.rpartition('.')[2]}={value:.3g}" if isinstance(value, float) else f"{name.rpartition('.')[2]}={value}"
        for name, value in trial.params.items()
    )
