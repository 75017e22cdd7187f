"""Workers that hang, that need too much memory, that die with their node: noticed, noted, and no trial is lost."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import psutil
import pytest
from ray import tune
from ray.cluster_utils import Cluster

from deepmlf.analysis.standing import standing_of
from deepmlf.tune.cluster.ray_patches import deaths_are_survived, signal_handlers_stay
from deepmlf.tune.driver import faults
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.messages import TrialWaits
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.worker.wire import Message, result_of
from tests.tune.experiments import assert_whole, drive, epochs_trained, settings, space_of, start, wait_for_epochs
from tests.tune.parts import RayTrial

GIB = 2**30


@pytest.mark.ray
def test_a_worker_that_hangs_is_started_again(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    space = space_of(tmp_path, 0.015625, 0.001)
    run_search(settings(small_data, tmp_path, space=space, trials=2, epochs=3, scheduler="none", trial_timeout=4.0))
    experiment = tmp_path / "search"
    assert_whole(experiment, 2)
    trials = open_experiment(experiment).study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert trials[0].user_attrs["restarts"] == ["no report for 4 s"]
    assert "restarts" not in trials[1].user_attrs
    assert standing_of(open_experiment(experiment)).to_dict()["restarts"] == {0: ["no report for 4 s"]}
    assert epochs_trained(experiment)["0000_search", 1] <= 2


@pytest.mark.ray
def test_a_trial_that_waits_for_anothers_stage_is_not_taken_for_stuck(
    ray_cluster: None, tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The one that has the lock reports every 1.5 s, the other one is silent for 4.5 s: longer than the timeout."""
    space = space_of(tmp_path, 0.001953125)
    search = settings(small_data, tmp_path, space=space, trials=2, epochs=3, scheduler="none", trial_timeout=3.0)
    run_search(search.model_copy(update={"quiet": False}))
    trials = open_experiment(tmp_path / "search").study.get_trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "COMPLETE"]
    assert not any("restarts" in trial.user_attrs for trial in trials)
    assert "waits for another trial's stage" in capsys.readouterr().err


def test_the_clock_of_a_trial_stands_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fakes of the time and of Ray's kill."""
    now, killed = [0.0], []
    monkeypatch.setattr(faults.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(faults, "kill_worker", lambda trial: killed.append(trial) or True)
    watch, trial = faults.FaultWatch(optuna.create_study(), 10.0), RayTrial.of(0)

    def after(seconds: float, message: Message | None = None) -> list[RayTrial]:
        now[0] += seconds
        if message is not None:
            watch.on_trial_result(0, [], trial, result_of(message))
        watch.on_step_end(0, [])
        return killed

    watch.on_trial_start(0, [], trial)
    assert after(9) == []
    assert after(0, TrialWaits("another trial's work")) == []
    assert after(1000) == []
    assert after(0, TrialWaits(None)) == []
    assert after(9) == []
    assert after(2) == [trial]  # a hang after the wait is one


class _KillIdleWorker(tune.Callback):
    """Kills the worker of the first finished trial before it is handed the next one."""

    def __init__(self) -> None:
        self.killed = 0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if not self.killed:
            os.kill(trial.last_result["pid"], signal.SIGKILL)
            self.killed += 1


def _report_one(config: dict[str, Any]) -> None:
    tune.report({"score": config["x"]})


def _report_and_linger(config: dict[str, Any]) -> None:
    """Take longer to end, once stopped, than Tune waits for."""
    try:
        tune.report({"score": config["x"]})
        tune.report({"score": 0})
    finally:
        time.sleep(20 if config["x"] == 1 else 0)


def _tune(function: Callable[[dict[str, Any]], None], folder: Path, **options: Any) -> list[int]:
    """Three trials, one after the other in one worker; their scores, or an error if one of them has none."""
    with deaths_are_survived(), signal_handlers_stay():
        results = tune.Tuner(
            tune.with_resources(function, {"cpu": 1}),
            param_space={"x": tune.grid_search([1, 2, 3])},
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=str(folder), failure_config=tune.FailureConfig(max_failures=1), verbose=0, **options
            ),
        ).fit()
    assert not results.errors
    return sorted(result.metrics["score"] for result in results)


@pytest.mark.ray
def test_a_worker_that_dies_between_two_trials_costs_neither(ray_cluster: None, tmp_path: Path) -> None:
    callback = _KillIdleWorker()
    assert _tune(_report_one, tmp_path, callbacks=[callback]) == [1, 2, 3]
    assert callback.killed == 1


@pytest.mark.ray
@pytest.mark.slow
def test_a_worker_that_cannot_let_go_of_a_trial_does_not_cost_the_next_one(ray_cluster: None, tmp_path: Path) -> None:
    assert _tune(_report_and_linger, tmp_path, stop={"training_iteration": 1}) == [1, 2, 3]


@pytest.fixture
def two_nodes() -> Iterator[Cluster]:
    """A Ray cluster of two nodes, each with processes of its own."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    yield cluster
    cluster.shutdown()


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_is_killed_costs_the_epoch_in_progress(
    two_nodes: Cluster, tmp_path: Path, small_data: Path
) -> None:
    experiment = tmp_path / "search"
    search = settings(
        small_data, tmp_path, trials=10, epochs=6, concurrent=3, scheduler="none", address=two_nodes.address,
        sampler="random",  # which takes no time, so that the node is not found between two trials
    )  # fmt: skip
    driver = start(drive, experiment, search)
    wait_for_epochs(experiment, 8)
    node = next(iter(two_nodes.worker_nodes))
    two_nodes.remove_node(node, allow_graceful=False)
    driver.join(110)
    assert driver.exitcode == 0
    assert_whole(experiment, 10)
    trials = open_experiment(experiment).study.get_trials()
    assert {trial.state.name for trial in trials} == {"COMPLETE"}
    restarted = [trial for trial in trials if "restarts" in trial.user_attrs]
    assert restarted
    trained = epochs_trained(experiment)
    for trial in trials:
        mine = {epoch: times for (folder, epoch), times in trained.items() if folder[:4] == f"{trial.number:04d}"}
        again = [epoch for epoch, times in mine.items() if times > 1]
        # The mock trainer reports a checkpoint's own epoch again, as the real one does, and then goes on.
        assert len(again) <= 2 * len(trial.user_attrs.get("restarts", []))


@pytest.mark.ray
@pytest.mark.slow
def test_a_trial_that_needs_too_much_memory_is_ended_after_its_second_worker(tmp_path: Path, small_data: Path) -> None:
    space = space_of(tmp_path, 0.0078125, 0.001)
    search = settings(small_data, tmp_path, space=space, trials=2, epochs=3, concurrent=1, scheduler="none")
    limit = (psutil.virtual_memory().used + 3 * GIB) / psutil.virtual_memory().total
    driver = multiprocessing.get_context("spawn").Process(target=_search_within, args=(limit, search))
    driver.start()
    driver.join(200)
    assert driver.exitcode == 0
    trials = open_experiment(tmp_path / "search").study.get_trials()
    assert [trial.state.name for trial in trials] == ["FAIL", "COMPLETE"]
    assert trials[0].user_attrs["restarts"] == ["its node ran out of memory"] * 2
    assert trials[0].user_attrs["fail_reason"] == "killed 2 times because its node ran out of memory"


def _search_within(limit: float, search: SearchSettings) -> None:
    """A search on a Ray cluster of its own, whose memory monitor kills workers above a share of the memory."""
    os.environ |= {"RAY_memory_usage_threshold": str(limit), "RAY_memory_monitor_refresh_ms": "100"}
    run_search(search)
