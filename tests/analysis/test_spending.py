"""Hours are told as those of what trials trained on."""

from pathlib import Path
from typing import Any

import pytest

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.records import load_records
from deepmlf.analysis.spending import spending_of
from deepmlf.tune.experiment.stored import open_experiment


@pytest.mark.parametrize(
    ("settings", "device", "count"),
    [
        ({"gpus_per_trial": 0.5, "cpus_per_trial": 4.0}, "GPU", 0.5),
        ({"gpus_per_trial": 0.0, "cpus_per_trial": 4.0}, "CPU", 4.0),
        ({"cpus_per_trial": 4.0}, "CPU", 4.0),
        ({"overrides": {"training.device": "cpu"}}, "CPU", 1.0),
        ({"overrides": {"training.device": "mps"}, "cpus_per_trial": 4.0}, "GPU", 1.0),  # Ray counts no Apple GPU
    ],
)
def test_hours_are_those_of_what_a_trial_held(
    tmp_path: Path, settings: dict[str, Any], device: str, count: float
) -> None:
    records = load_records(open_experiment(make_experiment(tmp_path, 4, epochs=3, **settings)))
    spending = spending_of(records)
    seconds = sum(trial.seconds for trial in records.trials if trial.seconds is not None)
    assert (spending.device, spending.hours) == (device, pytest.approx(seconds * count / 3600))
