"""Shared by the tests of whole searches: settings of a quick one, drivers to kill, and what must hold in the end."""

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

from deepmlf.analysis.results import load_results
from deepmlf.tune.experiment.study import open_study
from deepmlf.tune.search import ray_records, resume_search, run_search
from deepmlf.tune.settings import SearchSettings


def settings(data: Path, storage: Path, **changes: Any) -> SearchSettings:
    """A search with the mock trainer."""
    defaults: dict[str, Any] = {
        "data": str(data), "space": "demo", "lm": "tiny-random", "trials": 8, "epochs": 9, "concurrent": 2,
        "storage": str(storage), "name": "search", "train_function": "fake_training:train", "quiet": True,
    }  # fmt: skip
    return SearchSettings.model_validate(defaults | changes)


def drive(experiment: Path, started: SearchSettings) -> None:
    """A driver: begin the search, or resume it if it has begun; its process fails if the search does not end."""
    begun = (experiment / "search.json").is_file()
    summary = resume_search(experiment, address=started.address) if begun else run_search(started)
    assert not summary.interrupted, summary


def epochs_trained(experiment: Path) -> Counter[tuple[str, int]]:
    """How often the mock trainer has gone through each trial's each epoch."""
    return Counter(
        (log.parent.name, int(line)) for log in experiment.glob("trials/*/epochs.log") for line in log.open()
    )


def wait_for_epochs(experiment: Path, count: int, seconds: float = 90) -> None:
    """Until so many epochs have been trained in all.

    Raises:
        TimeoutError: If that takes too long.
    """
    deadline = time.monotonic() + seconds
    while epochs_trained(experiment).total() < count:
        if time.monotonic() > deadline:
            raise TimeoutError(f"{experiment}: no {count} epochs within {seconds} s")
        time.sleep(0.02)


def assert_whole(experiment: Path, trials: int) -> None:
    """N trials, none lost and none doubled, in Optuna's study, Ray's records and results.parquet alike."""
    study = open_study(experiment).get_trials()
    assert [trial.number for trial in study] == list(range(trials))
    assert all(trial.state.is_finished() for trial in study)
    table = load_results(experiment).to_pydict()
    assert set(table["trial"]) == set(range(trials))
    rows = list(zip(table["trial"], table["fusion_epoch"], strict=True))
    assert len(rows) == len(set(rows))
    assert ray_records(experiment) == dict.fromkeys(range(trials), 1)
    folders = sorted(path.name[:4] for path in (experiment / "trials").glob("*/"))
    assert folders == [f"{number:04d}" for number in range(trials)]
    for trial in study:
        epochs = [epoch for number, epoch in rows if number == trial.number and epoch is not None]
        assert epochs == sorted(trial.intermediate_values)


def endings_told(experiment: Path) -> Counter[int]:
    """How often the journal says of each trial that it ended."""
    told: Counter[int] = Counter()
    for line in (experiment / "optuna.journal").read_text().splitlines():
        entry = json.loads(line)
        if entry["op_code"] == JournalOperation.SET_TRIAL_STATE_VALUES:
            told[entry["trial_id"]] += TrialState(entry["state"]).is_finished()
    return +told
