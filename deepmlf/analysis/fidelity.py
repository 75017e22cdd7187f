"""At which fidelity an experiment's trials can be compared: the highest one that enough of them have reached."""

from dataclasses import dataclass
from functools import lru_cache

from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.training.reports import EpochReport
from deepmlf.tune.objective import values_of

ENOUGH = 0.75
"""Share of trials that must have reached a fidelity. Those that were stopped before it are the worse ones, so that
values of the others alone look more alike than they are."""
NEEDED_FOR_PLOT = 5
"""Trials at one fidelity, for plots that compare them."""
NEEDED_FOR_IMPORTANCE = 10
"""The same for importances, which are noise below that."""


@dataclass(frozen=True)
class CommonFidelity:
    """Trials' objectives by one and the same fusion epoch, so that none is better for having trained longer."""

    epochs: int
    """Fusion epochs."""
    full: int
    """Of a full training."""
    trials: int
    """How many there are to compare, whether or not they got so far; see `common_fidelity`."""
    values: dict[int, list[float]]
    """By trial that got so far: all objectives, in its best epoch by the first of them until then."""

    @property
    def is_full(self) -> bool:
        """Whether it is full fidelity."""
        return self.epochs >= self.full

    @property
    def reached_by(self) -> str:
        """How many trials got so far, in words."""
        return f"{len(self.values)} of {self.trials} trials"

    @property
    def where(self) -> str:
        """It and the trials that got so far, in words: ``at fusion epoch 3 of 9, reached by 11 of 12 trials``."""
        if self.is_full:
            return f"at full fidelity ({self.full} fusion epochs), reached by {self.reached_by}"
        return f"at fusion epoch {self.epochs} of {self.full}, reached by {self.reached_by}"


@lru_cache(maxsize=1)
def common_fidelity(records: Records) -> CommonFidelity:
    """The highest fidelity that three of four trials have reached, or else the highest of those that most have.

    A trial that is complete has reached all: it ended by its own patience where it has fewer epochs. One that was
    stopped or failed has reached what it has reported. One that runs counts from the first rung on. An epoch without
    all MM blocks is none that a trial has reached, as what it measured is another model.
    """
    settings = records.settings
    ended = sum(trial.state != "RUNNING" or trial.epochs >= settings.first_rung for trial in records.trials)
    reached: dict[int, dict[int, list[float]]] = {epochs: {} for epochs in range(1, settings.epochs + 1)}
    for trial in records.trials:
        for epochs, values in _reached(trial, records).items():
            reached[epochs][trial.number] = values
    enough = [epochs for epochs, values in reached.items() if values and len(values) >= ENOUGH * ended]
    epochs = max(enough) if enough else max(reached, key=lambda epochs: (len(reached[epochs]), epochs))
    return CommonFidelity(epochs, settings.epochs, max(ended, len(reached[epochs])), reached[epochs])


def _reached(trial: TrialRecord, records: Records) -> dict[int, list[float]]:
    """A trial's objectives by each fidelity that it has reached."""
    first, full = records.objectives[0], records.settings.epochs
    reports = {report.fidelity: report for report in trial.reports}
    best: EpochReport | None = None
    reached: dict[int, list[float]] = {}
    for epochs in range(1, full + 1 if trial.is_complete else min(trial.epochs + 1, full)):
        report = reports.get(epochs)
        if report is not None and report.is_better(best, first.name, first.direction):
            best = report
        values = None if best is None else values_of(records.objectives, best)
        if values is not None:
            reached[epochs] = values
    if trial.is_complete and trial.value is not None and len(records.objectives) == 1:
        reached[full] = [trial.value]  # known even where its epochs are lost
    return reached
