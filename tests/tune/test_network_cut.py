"""A node whose network is cut for longer than Ray waits for it, and mended again: no trial is lost, none is doubled."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from benchmarks.parts.endings import endings_told
from deepmlf.tune.experiment.stored import open_experiment
from tests.tune.experiments import assert_whole, drive, epochs_trained, settings, start

TRIALS, EPOCHS = 6, 60
HERE, THERE = "10.213.77.1", "10.213.77.2"
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 5,
}


class Link:
    """A network namespace on this machine, and the one link to it."""

    def __init__(self) -> None:
        self.space, self.here, self._there = (f"dmlf{os.getpid()}{end}" for end in ("", "a", "b"))
        for command in (
            f"netns add {self.space}",
            f"link add {self.here} type veth peer name {self._there} netns {self.space}",
            f"addr add {HERE}/30 dev {self.here}",
            f"link set {self.here} up",
            f"-n {self.space} addr add {THERE}/30 dev {self._there}",
            f"-n {self.space} link set lo up",
            f"-n {self.space} link set {self._there} up",
        ):
            ip(command)

    def set(self, state: str) -> None:
        ip(f"link set {self.here} {state}")


def ip(command: str) -> str:
    return subprocess.run(["ip", *command.split()], check=True, capture_output=True, text=True).stdout


@pytest.fixture
def link() -> Iterator[Link]:
    try:
        link = Link()
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"network namespaces cannot be made here (needs root and iproute2): {error}")
    yield link
    ip(f"netns del {link.space}")


@pytest.fixture
def cluster(link: Link) -> Iterator[Cluster]:
    """A head with room for one trial, and a node for another one behind the link."""
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 1, "include_dashboard": False, "node_ip_address": HERE, "_system_config": HEALTH
        },
    )  # fmt: skip
    command = [
        "ip", "netns", "exec", link.space, sys.executable, "-m", "ray.scripts.scripts", "start", "--block",
        "--address", str(cluster.address), "--node-ip-address", THERE, "--num-cpus", "1",
    ]  # fmt: skip
    # The head's, which another test's Ray in this process may have set; by itself a node takes any token it finds.
    environment = os.environ | {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE", "disabled")}
    node = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180  # a start takes a minute beside three processes that compute
        while len(cluster.global_state.node_table()) < 2:
            assert time.monotonic() < deadline, "the node behind the link does not join"
            time.sleep(0.1)
        yield cluster
    finally:
        cluster.shutdown()
        for pid in ip(f"netns pids {link.space}").split():
            os.kill(int(pid), signal.SIGKILL)
        node.wait(30)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.cluster
def test_a_node_whose_network_is_cut_and_mended_loses_nothing(
    link: Link, cluster: Cluster, tmp_path: Path, small_data: Path
) -> None:
    experiment = tmp_path / "search"
    search = settings(small_data, tmp_path, trials=TRIALS, epochs=EPOCHS, scheduler="none", address=cluster.address)
    driver = start(drive, experiment, search)
    deadline = time.monotonic() + 180
    while True:
        trained = Counter(folder for folder, _ in epochs_trained(experiment))
        if sum(epochs < EPOCHS for epochs in trained.values()) == 2:
            break
        assert time.monotonic() < deadline, "the node behind the link has no trial"
        time.sleep(0.1)
    link.set("down")
    deadline = time.monotonic() + 60
    while all(node["Alive"] for node in cluster.global_state.node_table()):
        assert time.monotonic() < deadline, "the cut was not noticed"
        time.sleep(0.1)
    link.set("up")
    driver.join(240)
    assert driver.exitcode == 0
    assert_whole(experiment, TRIALS)
    trials = open_experiment(experiment).study.get_trials()
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    assert endings_told(experiment) == dict.fromkeys(range(TRIALS), 1)
    assert any("restarts" in trial.user_attrs for trial in trials), "the cut was not noticed"
