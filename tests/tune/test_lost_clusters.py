"""Drivers that die together with a node, and whole clusters that are lost: the search goes on, and no trial is lost."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from benchmarks.parts.endings import endings_told
from deepmlf.tune.experiment.stored import open_experiment
from tests.tune.experiments import assert_whole, drive, epochs_trained, settings, start, wait_for_epochs

TRIALS = 12
EPOCHS = 4

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.cluster]


def new_cluster() -> Cluster:
    """A head without work, and two nodes for one trial each."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(2):
        cluster.add_node(num_cpus=1)
    return cluster


def lose(cluster: Cluster) -> None:
    """All nodes at once, without a chance to say so."""
    for node in cluster.list_all_nodes()[::-1]:
        cluster.remove_node(node, allow_graceful=False)
    cluster.shutdown()


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    cluster = new_cluster()
    yield cluster
    if cluster.head_node is not None:
        lose(cluster)


def assert_nothing_lost(experiment: Path) -> None:
    """After one restart of everything."""
    assert_whole(experiment, TRIALS)
    assert {trial.state.name for trial in open_experiment(experiment).study.get_trials()} == {"COMPLETE"}
    assert endings_told(experiment) == dict.fromkeys(range(TRIALS), 1)
    again = [folder for (folder, _), times in epochs_trained(experiment).items() for _ in range(times - 1)]
    assert len(again) == len(set(again)), "a trial has lost more than the epoch in progress"
    assert len(again) <= 2


def test_a_driver_and_a_node_killed_at_once_lose_nothing(cluster: Cluster, tmp_path: Path, small_data: Path) -> None:
    experiment = tmp_path / "search"
    search = settings(small_data, tmp_path, trials=TRIALS, epochs=EPOCHS, scheduler="none", address=cluster.address)
    driver = start(drive, experiment, search)
    wait_for_epochs(experiment, 10)
    driver.kill()
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    driver.join()
    assert epochs_trained(experiment).total() < TRIALS * EPOCHS
    driver = start(drive, experiment, search)
    driver.join(110)
    assert driver.exitcode == 0
    assert_nothing_lost(experiment)


def test_a_search_whose_cluster_is_lost_goes_on_on_another_one(
    cluster: Cluster, tmp_path: Path, small_data: Path
) -> None:
    experiment = tmp_path / "search"
    search = settings(small_data, tmp_path, trials=TRIALS, epochs=EPOCHS, scheduler="none", address=cluster.address)
    driver = start(drive, experiment, search)
    wait_for_epochs(experiment, 10)
    lost = cluster.address
    driver.kill()
    lose(cluster)
    driver.join()
    resume = [sys.executable, "-m", "deepmlf", "resume", str(experiment)]  # here, Ray may be connected already
    refused = subprocess.run(resume, capture_output=True, text=True, timeout=60)
    assert refused.returncode != 0
    assert re.search(f"--address {lost}: nothing answers there .*; is the cluster up", refused.stderr)
    another = new_cluster()
    try:
        driver = start(drive, experiment, search.model_copy(update={"address": another.address}))
        driver.join(110)
        assert driver.exitcode == 0
    finally:
        lose(another)
    assert_nothing_lost(experiment)
