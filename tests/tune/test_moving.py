"""`deepmlf stop` and `copy`: a search that leaves when it is asked to, and goes on at another place."""

import json
import os
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
from filelock import FileLock

from benchmarks.parts.s3 import S3
from deepmlf.places import Place, RemoteFolder
from deepmlf.tune.experiment import lease, parts, stop_request
from deepmlf.tune.experiment.layout import COPYING, LEASE, LOCK, MANIFEST, STOP
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.manifest import read_manifest
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.uploader import Uploader
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings
from tests.command import deepmlf
from tests.tune.experiments import assert_whole, settings, start
from tests.tune.parts import write_experiment


def counted(data: Path, storage: Path, **changes: Any) -> SearchSettings:
    """A search whose trained epochs are counted beside a dataset of its own, on the cluster of the tests."""
    own = shutil.copytree(data, storage / "own" / "data")
    address = ray.get_runtime_context().gcs_address
    asked = {"train_function": "fake_training:train_counted", "scheduler": "none", "address": address}
    return settings(own, storage, **(asked | {"trials": 4, "epochs": 40, "cpus_per_trial": 0.5} | changes))


def trained(storage: Path) -> Counter[str]:
    """How often each trial's each epoch has been trained."""
    log = storage / "own" / "trained.log"
    return Counter(log.read_text().splitlines()) if log.exists() else Counter()


def until(condition: Callable[[], object], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not get that far"
        time.sleep(0.1)


def drive(home: str, search: SearchSettings) -> None:
    """A driver that begins a search, at home there."""
    os.environ["DEEPMLF_HOME"] = home
    Uploader.__init__.__defaults__ = (0.5,)
    lease.BEAT_SECONDS, parts.PART_BYTES = 0.3, 1 << 12
    assert run_search(search).interrupted


def go_on(home: str, place: str) -> None:
    """A driver that goes on with one."""
    os.environ["DEEPMLF_HOME"] = home
    lease.BEAT_SECONDS, parts.PART_BYTES = 0.3, 1 << 12
    assert resume_search(place).interrupted


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_goes_from_a_laptop_to_a_bucket_and_back_without_a_redone_epoch(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    search, laptop, bucket = counted(small_data, tmp_path), tmp_path / "search", s3.uri("moved/first")
    driver = start(drive, str(elsewhere), search)
    until(lambda: trained(tmp_path).total() >= 20)
    refused = deepmlf("copy", laptop, bucket)
    assert refused.stderr == f"deepmlf: {laptop}: another driver is running this search\n"
    stopped = deepmlf("stop", laptop)
    assert stopped.stdout == f"stopped; go on with `deepmlf resume {laptop}`\n"
    assert stopped.stderr == f"deepmlf: waiting until the search has saved and left {laptop}\n"
    driver.join(30)
    assert driver.exitcode == 0
    assert deepmlf("copy", laptop, bucket).returncode == 0
    before = trained(tmp_path).total()
    driver = start(go_on, str(elsewhere), bucket)
    until(lambda: trained(tmp_path).total() >= before + 20)
    assert deepmlf("stop", bucket).returncode == 0
    driver.join(30)
    assert driver.exitcode == 0
    assert trained(tmp_path).total() < 160
    home = tmp_path / "home-again"
    assert deepmlf("copy", bucket, home).returncode == 0
    shutil.rmtree(elsewhere)
    assert resume_search(home).states["COMPLETE"] == 4
    assert_whole_trials(home)
    assert set(trained(tmp_path).values()) == {1}
    assert trained(tmp_path).total() == 160
    manifest = read_manifest(Place.of(home))
    assert manifest.copied_from == bucket
    assert len({manifest.id, read_manifest(Place.of(laptop)).id}) == 2


def assert_whole_trials(experiment: Path) -> None:
    opened = open_experiment(experiment)
    assert_whole(experiment, 4)
    assert all(len(trial.intermediate_values) == 40 for trial in opened.study.get_trials())


@pytest.mark.ray
@pytest.mark.slow
def test_a_driver_on_a_bucket_is_stopped_from_another_machine(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    place = s3.uri("asked/search")
    search = counted(small_data, tmp_path, epochs=400).model_copy(update={"storage": s3.uri("asked")})
    driver = start(drive, str(tmp_path / "theirs"), search)
    until(lambda: trained(tmp_path).total() >= 10)
    asked = json.loads(deepmlf("stop", place, "--json").stdout)
    driver.join(30)
    assert driver.exitcode == 0
    assert asked == {"experiment": place, "was_running": True}
    assert not {STOP, LEASE} & set(RemoteFolder(place).sizes())
    again = deepmlf("stop", place)
    assert (again.returncode, again.stdout, again.stderr) == (0, f"{place}: nothing runs it\n", "")
    summary = resume_search(place, time_budget=1.0)
    assert summary.out_of_time  # the wish was for the other driver


def test_what_nothing_runs_is_said_to_be_so(tmp_path: Path) -> None:
    write_experiment(tmp_path / "mine", SearchSettings(data="data", space="demo"))
    told = deepmlf("stop", tmp_path / "mine")
    assert (told.returncode, told.stdout, told.stderr) == (0, f"{tmp_path / 'mine'}: nothing runs it\n", "")
    assert not (tmp_path / "mine" / STOP).exists()
    refused = deepmlf("stop", tmp_path)
    assert refused.stderr == f"deepmlf: {tmp_path}: not an experiment (no search.json there)\n"
    assert refused.returncode == 2


def test_a_second_stop_waits_with_the_first(tmp_path: Path) -> None:
    write_experiment(tmp_path, SearchSettings(data="data", space="demo"))
    found: list[bool] = []
    with FileLock(tmp_path / LOCK):
        both = [
            threading.Thread(target=lambda: found.append(stop_request.stop_driver(Place.of(tmp_path), lambda: None)))
            for _ in range(2)
        ]
        for one in both:
            one.start()
        until((tmp_path / STOP).exists)
        (tmp_path / STOP).unlink()  # as a driver does that has come this moment
        until((tmp_path / STOP).exists)
    for one in both:
        one.join(30)
    assert found == [True, True]
    assert not (tmp_path / STOP).exists()


def test_a_driver_that_has_died_in_a_bucket_is_not_waited_for(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stop_request, "PATIENCE_SECONDS", 1.0)
    remote = RemoteFolder(s3.uri("dead"))
    remote.upload(b"{}", MANIFEST)
    remote.upload(json.dumps({"id": "x", "host": "another", "pid": 1, "beat": "y"}).encode(), LEASE)
    told = deepmlf("stop", remote.uri)
    assert (told.returncode, told.stdout) == (0, f"{remote.uri}: nothing runs it\n")
    assert STOP not in remote.sizes()


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A small experiment, with files that no copy needs."""
    folder = tmp_path / "made"
    write_experiment(folder, SearchSettings(data="data", space="demo"))
    for name in (
        "optuna.journal", "trials/0000_made/metrics.jsonl", "trials/0000_made/checkpoints/epoch_000001/state.json",
        "trials/0000_made/.unfinished.0/x", "ray/experiment_state-1.json", "ray/tuner.pkl", "av_encoders/a/state.json",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x\n")
    write_experiment(folder / "confirm-0-x2", SearchSettings(data="data", space="demo"))
    return folder


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != LOCK}


def test_a_copy_has_what_takes_part_and_an_identity_of_its_own(made: Path, tmp_path: Path) -> None:
    told = deepmlf("copy", made, tmp_path / "there", "--json")
    assert json.loads(told.stdout) == {"experiment": str(tmp_path / "there"), "files": 7}
    assert files_in(tmp_path / "there") == {
        "search.json", "optuna.journal", "trials/0000_made/metrics.jsonl", "confirm-0-x2/search.json",
        "trials/0000_made/checkpoints/epoch_000001/state.json", "ray/experiment_state-1.json",
        "av_encoders/a/state.json",
    }  # fmt: skip
    for name in ("", "confirm-0-x2"):
        ours, theirs = (read_manifest(Place.of(root / name)) for root in (made, tmp_path / "there"))
        assert ours.id != theirs.id
        assert theirs.copied_from == str(made / name)
        assert theirs.settings == ours.settings


def test_a_copy_that_was_cut_short_is_begun_anew(made: Path, s3: S3) -> None:
    remote = RemoteFolder(s3.uri("cut"))
    remote.upload(b"", COPYING)
    remote.upload(b"of the first attempt", "trials/0000_made/checkpoints/epoch_000009/state.json")
    assert deepmlf("copy", made, remote.uri).returncode == 0
    assert files_in(made) - set(remote.sizes()) == {"ray/tuner.pkl", "trials/0000_made/.unfinished.0/x"}
    assert set(remote.sizes()) < files_in(made)


def test_what_is_at_the_target_stays(made: Path, tmp_path: Path, s3: S3) -> None:
    remote, folder = RemoteFolder(s3.uri("taken-already")), tmp_path / "taken"
    remote.upload(b"mine", "notes.txt")
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    for target in (remote.uri, str(folder)):
        refused = deepmlf("copy", made, target)
        assert (refused.returncode, refused.stderr) == (2, f"deepmlf: {target}: exists; choose another place\n")
    assert (set(remote.sizes()), files_in(folder)) == ({"notes.txt"}, {"notes.txt"})


def test_a_copy_that_cannot_be_is_refused(made: Path, tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "there"
    with FileLock(made / LOCK):
        assert deepmlf("copy", made, target).stderr == f"deepmlf: {made}: another driver is running this search\n"
    with FileLock(made / "confirm-0-x2" / LOCK):
        inside = made / "confirm-0-x2"
        assert deepmlf("copy", made, target).stderr == f"deepmlf: {inside}: another driver is running this search\n"
    (tmp_path / "file").touch()
    assert "cannot be written (Not a directory)" in deepmlf("copy", made, tmp_path / "file" / "there").stderr
    assert "not an experiment (no search.json there)" in deepmlf("copy", tmp_path, target).stderr
    nowhere = s3.uri("there", bucket="nonsuch")
    assert f"deepmlf: {nowhere}: cannot be written" in deepmlf("copy", made, nowhere).stderr
    write_experiment(tmp_path / "shared", SearchSettings(data="data", space="demo", study_storage="sqlite:///s.db"))
    assert deepmlf("copy", tmp_path / "shared", target).stderr == (
        f"deepmlf: {tmp_path / 'shared'}: its study is in sqlite:///s.db, where a copy would share it; resume it from "
        "any machine that reaches both\n"
    )
    assert not target.exists()


def test_an_experiment_in_a_bucket_that_a_driver_is_at_is_not_copied(
    made: Path, tmp_path: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "BEAT_SECONDS", 0.2)
    place = s3.uri("driven")
    assert deepmlf("copy", made, place).returncode == 0
    with Lease(RemoteFolder(place)):
        refused = deepmlf("copy", place, tmp_path / "there")
    assert f"{place}: another driver is running this search, on " in refused.stderr
    assert refused.returncode == 2
