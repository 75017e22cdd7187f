"""Drivers killed at random moments, and a disk that fills up: no finished trial is lost, none is told twice."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import ray

from benchmarks.parts.endings import endings_told
from deepmlf.errors import SearchError
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import resume_search, run_search
from tests.tune.experiments import assert_whole, drive, epochs_trained, settings, start, wait_for_epochs


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.long)])
def test_kills_lose_nothing_and_double_nothing(ray_cluster: None, tmp_path: Path, small_data: Path, kills: int) -> None:
    experiment, trials = tmp_path / "search", 4 * kills
    address = ray.get_runtime_context().gcs_address
    search = settings(small_data, tmp_path, trials=trials, epochs=3, address=address)
    generator = np.random.default_rng(0)
    killed = 0
    while killed < kills:
        driver = start(drive, experiment, search)
        epochs = int(generator.integers(0, 6))  # how much more is trained before the kill
        if epochs:
            wait_for_epochs(experiment, epochs_trained(experiment).total() + epochs)
        time.sleep(generator.uniform(0.0, 0.3 if epochs else 3.0))
        driver.kill()
        driver.join()
        assert driver.exitcode == -9, "the search ended before it was killed often enough"
        killed += 1
    finished = {
        trial.number: trial.state
        for trial in open_experiment(experiment).study.get_trials()
        if trial.state.is_finished()
    }
    assert 0 < len(finished) < trials
    last = start(drive, experiment, search)
    last.join(300)
    assert last.exitcode == 0
    assert_whole(experiment, trials)
    ended = open_experiment(experiment).study.get_trials()
    assert all(ended[number].state == state for number, state in finished.items())
    assert endings_told(experiment) == dict.fromkeys(range(trials), 1)
    assert len({str(sorted(trial.params.items())) for trial in ended}) == trials
    # A trial under way at a kill reports its last epoch again; nothing else is trained twice.
    assert sum(times - 1 for times in epochs_trained(experiment).values()) <= kills * search.concurrent


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.ray
@pytest.mark.parametrize("concurrent", [1, 2])
def test_a_full_disk_stops_the_search_and_loses_no_finished_trial(
    ray_cluster: None, tmp_path: Path, small_data: Path, small_disk: Path, concurrent: int
) -> None:
    space = tmp_path / "mine.py"
    space.write_text(
        "def space(trial):\n"
        "    # From the third trial on, a checkpoint is larger than the disk.\n"
        "    return {'training.lr_av': 0.001 if trial.number < 2 else 0.03125, 'model.fusion_depth': 1,\n"
        "            'model.num_fusion_tokens': trial.suggest_int('model.num_fusion_tokens', 2, 12)}\n"
    )
    search = settings(
        small_data, small_disk, space=str(space), trials=4, epochs=2, scheduler="none", concurrent=concurrent
    )
    try:
        reason = run_search(search).stop_reason
    except SearchError as error:  # the driver's own files may be the first not to fit
        reason = str(error)
    assert reason is not None
    assert "no space left on the device; free some" in reason
    experiment = small_disk / "search"
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    before = [trial for trial in open_experiment(experiment).study.get_trials() if trial.state.is_finished()]
    assert {trial.state.name for trial in before} == {"COMPLETE"}
    assert {0, 1} - {trial.number for trial in before} == set() or concurrent > 1
    resume_search(experiment)
    ends = [
        (trial.state.name, trial.user_attrs.get("fail_reason"))
        for trial in open_experiment(experiment).study.get_trials()
    ]
    assert ends == [("COMPLETE", None)] * 4
    assert_whole(experiment, 4)
