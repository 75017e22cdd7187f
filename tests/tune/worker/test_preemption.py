"""Workers that are told to leave: the epoch in progress is saved first, and the restart is noted as what it is."""

import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from benchmarks.parts.s3 import S3
from deepmlf.analysis.standing import standing_of
from deepmlf.places import RemoteFolder
from deepmlf.tune.driver.faults import reason_of
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import run_search
from deepmlf.tune.worker import preemption
from tests.tune.experiments import assert_whole, epochs_trained, settings, space_of, wait_for_epochs


@pytest.fixture
def left() -> Iterator[list[float]]:
    """When this process would have left."""
    times: list[float] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: times.append(time.monotonic()))
    preemption.save_before_leaving()
    yield times
    signal.signal(signal.SIGTERM, before)
    preemption.saved()


def test_a_worker_leaves_when_its_trial_is_saved(left: list[float]) -> None:
    saved: list[float] = []

    def save() -> None:
        saved.append(time.monotonic())
        preemption.saved()

    preemption.training()
    threading.Timer(0.3, save).start()
    told = time.monotonic()
    signal.raise_signal(signal.SIGTERM)
    [when] = left
    assert saved, "it has not waited"
    assert told < saved[0] <= when < told + preemption.GRACE_SECONDS


def test_a_worker_without_a_trial_leaves_at_once(left: list[float]) -> None:
    told = time.monotonic()
    signal.raise_signal(signal.SIGTERM)
    [when] = left
    assert when - told < preemption.GRACE_SECONDS


def test_a_worker_does_not_wait_longer_than_its_node(left: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preemption, "GRACE_SECONDS", 0.2)
    preemption.training()
    signal.raise_signal(signal.SIGTERM)
    assert len(left) == 1


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ("Worker exits unexpectedly. Worker exits with an exit code 1. The process receives a SIGTERM.", "preempted"),
        ("\tthe actor's node was terminated expectedly: received SIGTERM", "preempted"),
        ("\tthe actor's node was preempted: Node received SIGTERM; draining before shutdown.", "preempted"),
        ("The actor died because its node has died. Node Id: 12\n\tthe actor's node was terminated", "its node died"),
        ("The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR", "its worker died"),
    ],
)
def test_what_ray_says_of_a_death_is_told_in_a_word(told: str, reason: str) -> None:
    """The texts are Ray 2.60's own, of workers, raylets and `ray start --block` sent a SIGTERM or a SIGKILL."""
    head = "1 (occurred at 2030-01-01_00-00-00)\nThe actor died unexpectedly before finishing this task.\n\tpid: 7\n"
    assert reason_of(head + told) == reason


@pytest.mark.ray
@pytest.mark.slow
def test_a_preempted_trial_goes_on_from_the_epoch_it_was_in(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    experiment = tmp_path / "search"

    def preempt() -> None:
        wait_for_epochs(experiment, 1)
        time.sleep(0.5)  # into the second epoch, which takes three seconds
        _preempt_worker()

    notice = threading.Thread(target=preempt)
    notice.start()
    space = space_of(tmp_path, 0.00390625)
    run_search(settings(small_data, tmp_path, space=space, trials=1, epochs=3, concurrent=1, scheduler="none"))
    notice.join()
    assert_whole(experiment, 1)
    assert standing_of(open_experiment(experiment)).to_dict()["restarts"] == {0: ["preempted"]}
    # The mock trainer goes through a checkpoint's own epoch again: the second one, which the first worker has finished.
    assert {epoch: times for (_, epoch), times in epochs_trained(experiment).items()} == {1: 1, 2: 2, 3: 1}


@pytest.mark.ray
@pytest.mark.slow
def test_a_preempted_trial_leaves_when_storage_has_its_epoch(
    ray_cluster: None, s3: S3, elsewhere: Path, tmp_path: Path, small_data: Path
) -> None:
    trial = RemoteFolder(s3.uri("left/search/trials/0000_search"))

    def preempt() -> None:
        while "reported.jsonl" not in trial.sizes():
            time.sleep(0.1)
        time.sleep(0.5)  # into the second epoch, which takes three seconds
        s3.fails.touch()
        _preempt_worker()
        time.sleep(5)  # the epoch is over by then, and what came of it refused
        s3.fails.unlink()

    notice = threading.Thread(target=preempt, daemon=True)
    notice.start()
    space = space_of(tmp_path, 0.00390625)
    search = settings(small_data, tmp_path, space=space, trials=1, epochs=3, concurrent=1, scheduler="none")
    run_search(search.model_copy(update={"storage": s3.uri("left")}))
    notice.join()
    experiment = open_experiment(s3.uri("left/search"))
    assert_whole(experiment.folder, 1)
    assert standing_of(experiment).to_dict()["restarts"] == {0: ["preempted"]}
    reported = (trial.read("reported.jsonl") or b"").splitlines()
    assert [json.loads(line)["epoch"] for line in reported] == [1, 2, 2, 3]  # the second one by both workers


def _preempt_worker() -> None:
    for process in psutil.Process().children(recursive=True):
        if "Trainable.train" in " ".join(process.cmdline()):
            process.terminate()
