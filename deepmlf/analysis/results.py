"""An experiment as a table: one row per trial and fusion epoch."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deepmlf.config.trial import TrialConfig
from deepmlf.files import new_file
from deepmlf.places import Place
from deepmlf.training.reports import FIDELITY, seconds_of, seconds_spent
from deepmlf.tune.experiment.layout import RESULTS
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment
from deepmlf.tune.experiment.study import FAIL_REASON, OVERRIDES


def load_results(place: str | Path | Place) -> pa.Table:
    """All trials of an experiment; see `results_of`.

    Args:
        place: Its folder or URI.

    Raises:
        SearchError: If there is no experiment.
    """
    return results_of(open_experiment(place))


def results_of(experiment: StoredExperiment) -> pa.Table:
    """All trials of an experiment: one row per trial and fusion epoch, dotted parameters as columns.

    Trials taken over from an earlier experiment are left out. A trial without any finished fusion epoch has one row
    whose epoch and metrics are null. ``seconds`` counts from the trial's start, stages before fusion included; a stage
    that was taken from the store counts as none. It is null where epochs were not timed; ``seconds_before_fusion``
    is the part of those stages. ``cpus`` and ``gpus`` are what
    the trial held for that time.
    """
    base, search = experiment.manifest.base, experiment.manifest.settings
    rows: list[dict[str, Any]] = []
    for trial in experiment.trials():
        overrides = json.loads(trial.user_attrs.get(OVERRIDES, "{}"))
        settings = TrialConfig.from_overrides(base, overrides).flat() if overrides else {}
        common = {
            "trial": trial.number,
            "state": trial.state.name,
            "fail_reason": trial.user_attrs.get(FAIL_REASON),
            "objective": trial.values[0] if trial.values else None,
            "cpus": search.cpus_per_trial,
            "gpus": search.gpus_per_trial or 0.0,
        } | settings
        reports = experiment.reports_of(trial)
        seconds = seconds_spent(reports)
        fusion = [
            {name: value for name, value in report.metrics.items() if not isinstance(value, list)}  # attention is none
            | {"seconds": spent}
            for report, spent in zip(reports, seconds, strict=True)
            if report.fidelity is not None
        ]
        last = seconds[-1] if seconds else None
        common["seconds_before_fusion"] = None if last is None else seconds_of(reports).before_fusion
        rows += [common | metrics for metrics in fusion] or [common | {FIDELITY: None, "seconds": last}]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: column([row.get(name) for row in rows]) for name in names})


def column(values: list[Any]) -> list[Any]:
    """Lists as text; where a setting is a list in some trials, all its values, as a column has one type."""
    if not any(isinstance(value, list) for value in values):
        return values
    return [None if value is None else json.dumps(value) for value in values]


def write_results(experiment: StoredExperiment, out: Path | None = None, table: pa.Table | None = None) -> str:
    """Write ``results.parquet`` into the experiment, or into another folder, and return its path or URI.

    Args:
        experiment: The experiment.
        out: The folder, made if missing; None: the experiment's.
        table: What `results_of` returned for it, if that is known.

    Raises:
        OSError: If it cannot be written.
    """
    path = (experiment.folder if out is None else out) / RESULTS
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as temporary:
        pq.write_table(results_of(experiment) if table is None else table, temporary, write_page_checksum=True)
    return str(path) if out is not None else experiment.place.publish(RESULTS)
