"""Trials by fusion depth, as an analysis has them."""

from dataclasses import replace

import optuna

from benchmarks.parts.synthetic_experiment import LM
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.report.answers import QUESTIONS
from deepmlf.training.reports import FIDELITY, EpochReport
from deepmlf.tune.experiment.manifest import Manifest
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.settings import SearchSettings

DEPTH = QUESTIONS[0]
LAST = 4
"""Fusion epochs of a full training of `trained`."""


def records_of(
    values: dict[int, list[float | None]],
    objective: str = "valid/MAE",
    *,
    sampler: str = "grid",
    scheduler: str = "none",
    unended: str = "PRUNED",
    epochs: int = 15,
) -> Records:
    """Trials by fusion depth; None is one that was stopped, or ended in another such state."""
    pairs = [(depth, value) for depth, group in values.items() for value in group]
    trials = [
        TrialRecord(
            number, unended if value is None else "COMPLETE", {DEPTH.setting: depth}, {DEPTH.setting: depth}, {},
            value, {}, None, None, None, None, [],
        )
        for number, (depth, value) in enumerate(pairs)
    ]  # fmt: skip
    settings = SearchSettings(data="set", space="mosi", sampler=sampler, scheduler=scheduler, epochs=epochs)
    manifest = Manifest.now(settings, space_source="", base={}, language_model=LM, data_fingerprint="", secret=None)
    return Records(manifest, make_objectives([objective]), trials, optuna.create_study())


def with_curves(records: Records, curves: dict[int, list[list[float]]]) -> Records:
    """The same trials with what each reported of the first objective, by fusion depth and in the trials' order."""
    name = records.objectives[0].name
    given = [curve for group in curves.values() for curve in group]
    trials = [
        replace(
            trial,
            curve=dict(enumerate(curve, start=1)),
            reports=tuple(EpochReport({FIDELITY: epoch, name: value}) for epoch, value in enumerate(curve, start=1)),
        )
        for trial, curve in zip(records.trials, given, strict=True)
    ]
    return replace(records, trials=trials)


def trained(*curves: list[float], states: dict[int, str] | None = None, objective: str = "valid/MAE") -> Records:
    """Trials by what they reported; those that got to the end are complete, the others were stopped, unless said."""
    values = [min(curve) if len(curve) == LAST else None for curve in curves]
    records = with_curves(records_of({5: values}, objective, epochs=LAST), {5: list(curves)})
    trials = [replace(trial, state=(states or {}).get(trial.number, trial.state)) for trial in records.trials]
    return replace(records, trials=trials)
