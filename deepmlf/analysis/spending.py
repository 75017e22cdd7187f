"""What a search spent and what early stopping saved: rungs, fusion epochs, device-hours, failures."""

from collections import defaultdict
from dataclasses import dataclass

from deepmlf.analysis.records import Records
from deepmlf.tune.decide import scheduler


@dataclass(frozen=True)
class RungRecord:
    """What became of the trials that reached a rung and have ended."""

    bracket: int
    epoch: int
    """Fusion epochs."""
    cutoff: float | None
    """What one more trial would have to reach."""
    reached: list[int]
    went_on: list[int]
    stopped: list[int]
    failed: list[int]


@dataclass(frozen=True)
class Spending:
    """Fusion epochs and device time."""

    epochs: int
    epochs_full: int
    """What full training of all trials would have taken."""
    device: str
    """``GPU`` or ``CPU``."""
    hours: float | None
    """Seconds of all trials times the devices that each held, in hours; None where no epoch was timed."""
    hours_before_fusion: float | None
    """Of those, what stages before fusion took."""
    hours_saved: float | None
    """The epochs that stopped trials did not train, at each one's own seconds per fusion epoch."""


def rungs_of(records: Records) -> list[RungRecord]:
    """The rungs of ASHA or Hyperband; none for other schedulers."""
    filled = scheduler.scheduler_of(records.settings, records.study, records.objectives[0])
    trials = {trial.number: trial for trial in records.trials}
    rungs = []
    for rung in scheduler.rungs_of(filled):
        numbers = map(scheduler.number_in_study, rung.trial_ids)
        reached = sorted(number for number in numbers if number is not None)
        went_on = [n for n in reached if trials[n].epochs > rung.epochs or trials[n].is_complete]
        stopped = [n for n in reached if n not in went_on and trials[n].state == "PRUNED"]
        failed = [n for n in reached if n not in went_on and n not in stopped]
        rungs.append(RungRecord(rung.bracket, rung.epochs, rung.cutoff, reached, went_on, stopped, failed))
    return rungs


def spending_of(records: Records) -> Spending:
    """Fusion epochs and device-hours of all trials, failed ones included."""
    settings = records.settings
    # A device that was named is used whether or not Ray has counted it.
    has_gpu = settings.gpus_per_trial or records.manifest.base.get("training.device", "auto") not in ("auto", "cpu")
    device, count = ("GPU", settings.gpus_per_trial or 1.0) if has_gpu else ("CPU", settings.cpus_per_trial)
    timed = [trial.seconds for trial in records.trials if trial.seconds is not None]
    saved = [
        (settings.epochs - trial.epochs) * trial.seconds_per_epoch
        for trial in records.trials
        if trial.state == "PRUNED" and trial.seconds_per_epoch is not None
    ]
    return Spending(
        sum(trial.epochs for trial in records.trials),
        len(records.trials) * settings.epochs,
        device,
        sum(timed) * count / 3600 if timed else None,
        sum(trial.seconds_before_fusion or 0.0 for trial in records.trials) * count / 3600 if timed else None,
        sum(saved) * count / 3600 if timed else None,
    )


def failures_by_reason(records: Records) -> dict[str, list[int]]:
    """Numbers of failed trials by reason, the commonest first."""
    reasons: dict[str, list[int]] = defaultdict(list)
    for trial in records.trials:
        if trial.state == "FAIL":
            reasons[trial.fail_reason or "no reason recorded"].append(trial.number)
    return dict(sorted(reasons.items(), key=lambda item: -len(item[1])))
