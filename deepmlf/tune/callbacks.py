"""What the driver does as trials go on: records, TensorBoard, the live table, and the end before the end."""

import json
import signal
import sys
import time
from pathlib import Path
from typing import Any

import optuna
from ray.tune import Callback
from rich.console import Console
from rich.live import Live
from rich.table import Table

from deepmlf.config import TrialConfig
from deepmlf.training.tensorboard import TrialWriter
from deepmlf.tune.objective import VALID, Objective
from deepmlf.tune.searcher import FAIL_REASON
from deepmlf.tune.study import drop_torn_line
from deepmlf.tune.trainable import NO_SPACE, ONLY_RECORD, trial_folder

METRICS_FILE = "metrics.jsonl"


class _Record:
    """One trial as the driver has seen it."""

    def __init__(self, folder: Path, overrides: dict[str, Any], objectives: tuple[Objective, ...]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        drop_torn_line(folder / METRICS_FILE)
        self.folder, self.overrides, self.objectives = folder, overrides, objectives
        self.lines = read_metrics(folder)
        self.best: dict[str, float] = {}
        for metrics in self.lines:
            self._keep_best(metrics)
        # What an earlier driver wrote after the last recorded epoch is hidden, so that curves stay one line.
        self.writer = TrialWriter(folder, purge_step=self.lines[-1]["epoch"] + 1 if self.lines else None)
        names = tuple(objective.short for objective in objectives)
        self.writer.start(overrides, metrics=tuple(self.best) or names)

    def add(self, metrics: dict[str, Any]) -> bool:
        """Record one epoch; False if it is known already (a resumed trial reports its last epoch again)."""
        if self.lines and metrics["epoch"] <= self.lines[-1]["epoch"]:
            return False
        self.lines.append(metrics)
        with (self.folder / METRICS_FILE).open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        self._keep_best(metrics)
        self.writer.write(metrics, self.best)
        return True

    def _keep_best(self, metrics: dict[str, Any]) -> None:
        first = self.objectives[0]
        if first.name in metrics and first.is_better(metrics[first.name], self.best.get(first.short)):
            shown = {objective.name for objective in self.objectives}
            self.best = {
                name.rpartition("/")[2]: value
                for name, value in metrics.items()
                if name.startswith(VALID) or name in shown
            }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The recorded epochs of a trial, in order; a last line torn by a kill is left out."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    lines: dict[int, dict[str, Any]] = {}
    for line in path.read_text().splitlines():
        try:
            metrics = json.loads(line)
        except ValueError:
            continue
        lines[metrics["epoch"]] = metrics
    return [lines[epoch] for epoch in sorted(lines)]


class ExperimentRecorder(Callback):
    """Writes each trial's metrics and TensorBoard events from its start, and shows how the search goes.

    Args:
        experiment: The experiment's folder.
        base: Overrides common to all trials.
        study: To read the states that trials ended with.
        objectives: What is shown, and by whose first one the best epoch is picked.
        quiet: Print nothing.
    """

    def __init__(
        self,
        experiment: Path,
        base: dict[str, Any],
        study: optuna.Study,
        objectives: tuple[Objective, ...],
        *,
        quiet: bool = False,
    ) -> None:
        self._experiment, self._base, self._study, self._objectives = experiment, base, study, objectives
        self._records: dict[int, _Record] = {}
        self._console = Console(file=sys.stderr, quiet=quiet)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray pickles its run config for a restore that this project never does; files and screens stay here.
        return object, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not trial.config.get(ONLY_RECORD):
            self._record(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        metrics = {
            name: value
            for name, value in result.items()
            if name in ("stage", "epoch", "fusion_epoch", "finished") or "/" in name
        }
        if "epoch" in metrics and self._record(trial).add(metrics):
            self._say(trial.config["number"], metrics)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not trial.config.get(ONLY_RECORD):
            path = self._record(trial).folder / "error.txt"
            if not path.exists():  # a killed worker could not write its own
                path.write_text(str(trial.get_error()))
        self._close(trial)

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        if self._live is not None:
            self._live.stop()

    def _record(self, trial: Any) -> _Record:
        number = trial.config["number"]
        if number not in self._records:
            overrides = TrialConfig.from_overrides(self._base, trial.config["overrides"]).flat()
            shown = {name: overrides[name] for name in trial.config["overrides"]}
            self._records[number] = _Record(trial_folder(self._experiment, number), shown, self._objectives)
        return self._records[number]

    def _close(self, trial: Any) -> None:
        if trial.config.get(ONLY_RECORD):
            return
        number = trial.config["number"]
        frozen = self._study.get_trials(deepcopy=False)[number]
        self._record(trial).writer.close(frozen.state.name)
        reason = frozen.user_attrs.get(FAIL_REASON)
        if self._live is None:
            self._print(f"trial {number}: {frozen.state.name}" + (f" ({reason})" if reason else ""))
        else:
            self._live.update(self._table(), refresh=True)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _say(self, number: int, metrics: dict[str, Any]) -> None:
        if self._live is None:
            first = self._objectives[0].name
            shown = f"{first} {metrics[first]:.4f}" if first in metrics else f"loss {metrics['train/loss']:.4f}"
            self._print(f"trial {number}: {metrics['stage']} epoch {metrics['epoch']}, {shown}")
            return
        if not self._live.is_started:
            self._live.start()
        self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        columns = [column for objective in self._objectives for column in (objective.name, f"best {objective.short}")]
        table = Table("trial", "state", "stage", "fusion epoch", *columns, title=self._experiment.name)
        states = {trial.number: trial.state.name for trial in self._study.get_trials(deepcopy=False)}
        for number, record in sorted(self._records.items()):
            last = record.lines[-1] if record.lines else {}
            values = [value for one in self._objectives for value in (last.get(one.name), record.best.get(one.short))]
            table.add_row(
                str(number),
                states.get(number, ""),
                str(last.get("stage", "")),
                str(last.get("fusion_epoch", "")),
                *("" if value is None else f"{value:.4g}" for value in values),
            )
        return table


class Stop(Callback):
    """Ends a search as Ctrl-C does, so that what runs can be resumed: when its time is up, or the disk is full.

    Args:
        time_budget: Seconds from now; None for no end.
    """

    def __init__(self, time_budget: float | None) -> None:
        self._deadline = None if time_budget is None else time.monotonic() + time_budget
        self._stopped = False
        self.out_of_time = False
        self.reason: str | None = None

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if NO_SPACE in result and not self._stopped:
            self.reason = f"{NO_SPACE}; free some and resume"
            self._stop()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._deadline is not None and time.monotonic() > self._deadline and not self._stopped:
            self.out_of_time = True
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        signal.raise_signal(signal.SIGINT)  # Ray's handler of it ends the run after this step
