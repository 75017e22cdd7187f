"""Shared by the tests of whole searches: settings of a quick one, drivers to kill, and what must hold in the end."""

import multiprocessing
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from deepmlf.analysis.results import load_results
from deepmlf.tune.driver.ray_records import ended_in_ray
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import resume_search, run_search
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


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A driver in a process of its own, forked from one that has imported everything."""
    drivers = multiprocessing.get_context("forkserver")
    drivers.set_forkserver_preload(["deepmlf.tune.search"])
    driver = drivers.Process(target=target, args=arguments)
    driver.start()
    return driver


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
    study = open_experiment(experiment).study.get_trials()
    assert [trial.number for trial in study] == list(range(trials))
    assert all(trial.state.is_finished() for trial in study)
    table = load_results(experiment).to_pydict()
    assert set(table["trial"]) == set(range(trials))
    rows = list(zip(table["trial"], table["fusion_epoch"], strict=True))
    assert len(rows) == len(set(rows))
    assert ended_in_ray(experiment) == dict.fromkeys(range(trials), 1)
    folders = sorted(path.name[:4] for path in (experiment / "trials").glob("*/"))
    assert folders == [f"{number:04d}" for number in range(trials)]
    for trial in study:
        epochs = [epoch for number, epoch in rows if number == trial.number and epoch is not None]
        assert epochs == sorted(trial.intermediate_values)


def space_of(folder: Path, *rates: float) -> str:
    """A space whose trials have these values of ``training.lr_av``; the mock trainer misbehaves at some of them."""
    path = folder / "mine.py"
    path.write_text(
        "def space(trial):\n"
        f"    return {{'training.lr_av': {rates}[trial.number % {len(rates)}], 'model.fusion_depth': 1,\n"
        "            'model.num_fusion_tokens': trial.suggest_int('model.num_fusion_tokens', 2, 12)}\n"
    )
    return str(path)
