"""What the driver does as trials go on: records, TensorBoard, progress, and the end before the end."""

import contextlib
import json
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
from ray.tune import Callback

from deepmlf.config import TrialConfig
from deepmlf.events.note import trial_note
from deepmlf.events.writer import TrialWriter
from deepmlf.training.curriculum import stages_of
from deepmlf.tune.decide.scheduler import FIDELITY
from deepmlf.tune.decide.searcher import FAIL_REASON
from deepmlf.tune.driver.screen import Best, Progress, RunningTrial
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.study import drop_torn_line, get_trial, own_trials
from deepmlf.tune.objective import VALID, Objective, best_first
from deepmlf.tune.space.columns import shown_settings
from deepmlf.tune.worker.trainable import NO_SPACE, NO_STORAGE, ONLY_RECORD, OUT_OF_REACH, trial_folder

METRICS_FILE = "metrics.jsonl"


class _Record:
    """One trial as the driver has seen it."""

    def __init__(
        self, folder: Path, base: dict[str, Any], overrides: dict[str, Any], objectives: tuple[Objective, ...]
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        drop_torn_line(folder / METRICS_FILE)
        self.folder, self.objectives = folder, objectives
        self.lines = read_metrics(folder)
        self.best: dict[str, float] = {}
        self.best_epoch: dict[str, Any] = {}
        for metrics in self.lines:
            self._keep_best(metrics)
        # What an earlier driver wrote after the last recorded epoch is hidden, so that curves stay one line.
        self.writer = TrialWriter(folder, purge_step=self.lines[-1]["epoch"] + 1 if self.lines else None)
        settings = TrialConfig.from_overrides(base, overrides)
        self.planned_epochs = sum(stage.epochs for stage in stages_of(settings))
        self.planned_fusion_epochs = settings.training.epochs
        self.writer.start(shown_settings(base, overrides), trial_note(base | overrides))

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
            self.best_epoch = metrics
            shown = {objective.name for objective in self.objectives}
            self.best = {
                name.rpartition("/")[2]: value
                for name, value in metrics.items()
                if name.startswith(VALID) or name in shown
            }


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The recorded epochs of a trial, in order; a line torn by a kill or damaged is left out."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    lines: dict[int, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            metrics = json.loads(line)
            lines[metrics["epoch"]] = metrics
    return [lines[epoch] for epoch in sorted(lines)]


class ExperimentRecorder(Callback):
    """Writes each trial's metrics and TensorBoard events from its start, and shows how the search goes.

    Args:
        experiment: The experiment's folder.
        base: Overrides common to all trials.
        study: To read the states that trials ended with.
        objectives: What is shown, and by whose first one the best epoch is picked.
        progress: Shows it.
    """

    def __init__(
        self,
        experiment: Path,
        base: dict[str, Any],
        study: optuna.Study,
        objectives: tuple[Objective, ...],
        progress: Progress,
    ) -> None:
        self._experiment, self._base, self._study, self._objectives = experiment, base, study, objectives
        self._progress = progress
        self._records: dict[int, _Record] = {}
        self._running: dict[int, _Record] = {}

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray pickles its run config for a restore that this project never does; files and screens stay here.
        return object, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not trial.config.get(ONLY_RECORD):
            self._running[trial.config["number"]] = self._record(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        metrics = {
            name: value
            for name, value in result.items()
            if name in ("stage", "epoch", FIDELITY, "finished") or "/" in name
        }
        if "epoch" in metrics and self._record(trial).add(metrics):
            self._progress.epoch(trial.config["number"], metrics)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not trial.config.get(ONLY_RECORD):
            path = self._record(trial).folder / "error.txt"
            if not path.exists():  # a killed worker could not write its own
                path.write_text(str(trial.get_error()))
        self._close(trial)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._progress.is_due:
            self._draw()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._draw()
        self._progress.close()

    def _record(self, trial: Any) -> _Record:
        number = trial.config["number"]
        if number not in self._records:
            folder = trial_folder(self._experiment, number, trial.config["name"])
            self._records[number] = _Record(folder, self._base, trial.config["overrides"], self._objectives)
        return self._records[number]

    def _close(self, trial: Any) -> None:
        if trial.config.get(ONLY_RECORD):
            return
        number = trial.config["number"]
        frozen = get_trial(self._study, number)
        record = self._record(trial)
        record.writer.close(frozen.state.name, record.best_epoch)
        self._running.pop(number, None)
        del self._records[number]  # all metrics of thousands of trials would fill the driver's memory
        states, best = self._standing()
        self._progress.ended(number, frozen.state.name, frozen.user_attrs.get(FAIL_REASON), states, best)

    def _draw(self) -> None:
        running = [
            RunningTrial(number, record.lines, record.best, record.planned_epochs, record.planned_fusion_epochs)
            for number, record in sorted(self._running.items())
        ]
        self._progress.draw(running, *self._standing())

    def _standing(self) -> tuple[Counter[str], Best | None]:
        trials = own_trials(self._study)
        ranked = best_first(trials, self._objectives)
        best = Best(ranked[0].number, ranked[0].values[0], ranked[0].params) if ranked else None
        return Counter(trial.state.name for trial in trials), best


class Stop(Callback):
    """Ends a search as Ctrl-C does, so that what runs can be resumed.

    It ends when its time is up, when the disk is full, when workers cannot reach data, language model or storage, or
    when another driver has taken it over.

    Args:
        time_budget: Seconds from now; None for no end.
        lease: The driver's own, of a remote experiment.
    """

    def __init__(self, time_budget: float | None, lease: Lease | None = None) -> None:
        self._lease = lease
        self._deadline = None if time_budget is None else time.monotonic() + time_budget
        self._stopped = False
        self.out_of_time = False
        self.reason: str | None = None

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray pickles its run config for a restore that this project never does; the lease has a thread.
        return object, ()

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        if NO_SPACE in result:
            self.reason = f"{NO_SPACE}; free some and resume"
        elif NO_STORAGE in result:
            self.reason = f"{result[NO_STORAGE]}; resume when it does"
        elif OUT_OF_REACH in result:
            self.reason = f"{result[OUT_OF_REACH]}; mend that and resume"
        if self.reason is not None and not self._stopped:
            self._stop()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._stopped:
            return
        if self._lease is not None and self._lease.lost:
            self.reason = "another driver has taken it over"
            self._stop()
        elif self._deadline is not None and time.monotonic() > self._deadline:
            self.out_of_time = True
            self._stop()

    def _stop(self) -> None:
        self._stopped = True
        signal.raise_signal(signal.SIGINT)  # Ray's handler of it ends the run after this step
