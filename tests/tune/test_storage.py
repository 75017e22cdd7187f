"""Experiments on S3: searched, killed, resumed elsewhere, evaluated; storage that fails for a while, and for good."""

import json
import multiprocessing
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import boto3
import pytest
import ray

from deepmlf.analysis.board import Board
from deepmlf.analysis.confirm import confirm
from deepmlf.analysis.results import load_results, summarise
from deepmlf.config import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.remote import RemoteFolder, check_uri, fetch, join, local_copy
from deepmlf.data.synthetic import make_synthetic
from deepmlf.errors import DataError, LanguageModelError, SearchError
from deepmlf.model import lm_store
from deepmlf.training.evaluate import evaluate_trial
from deepmlf.training.predictor import Predictor
from deepmlf.training.tensorboard import TrialWriter
from deepmlf.tune import storage
from deepmlf.tune.callbacks import Stop, read_metrics
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings, read_manifest
from deepmlf.tune.storage import TrialCopy, open_experiment, open_trial
from deepmlf.tune.study import open_study
from tests.analysis.served import served
from tests.analysis.synthetic_experiment import make_experiment
from tests.tune.experiments import assert_whole, settings

BUCKET = "experiments"


class S3:
    """A server, and where its bucket is."""

    def __init__(self, folder: Path) -> None:
        self.flag = folder / "fail"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [sys.executable, "-m", "tests.tune.s3_server", str(self.port), str(self.flag)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        client = boto3.client("s3", endpoint_url=f"http://127.0.0.1:{self.port}", region_name="us-east-1")
        deadline = time.monotonic() + 60
        while True:
            try:
                client.create_bucket(Bucket=BUCKET)
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def uri(self, path: str = "", bucket: str = BUCKET) -> str:
        return join(f"s3://{bucket}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1", path)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    server = S3(tmp_path_factory.mktemp("s3"))
    yield server
    server.process.terminate()
    server.process.wait()


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of this process's own: workers have another one, as on another machine."""
    home = tmp_path / "home"
    monkeypatch.setenv("DEEPMLF_HOME", str(home))
    return home


def test_a_uri_keeps_its_options_at_the_end() -> None:
    assert join("s3://b/runs?region=x", "name", "trials") == "s3://b/runs/name/trials?region=x"
    assert local_copy("s3://b/runs/name?region=x") == local_copy("s3://b/runs/name")
    assert local_copy("s3://b/runs/name") != local_copy("s3://c/runs/name")


@pytest.mark.parametrize(
    "uri",
    [
        "s3://me:secret@bucket/x",
        "s3://bucket/x?secret_key=s",
        "s3://bucket/x?access_key=a",
        "gs://token@bucket",
        "abfs://container:secret@account.dfs.core.windows.net/x",
    ],
)
def test_credentials_in_a_uri_are_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(DataError, match="holds credentials; give them by the environment") as caught:
        RemoteFolder(uri)
    assert "secret" not in str(caught.value).split(":", 2)[1]
    assert "me:" not in str(caught.value)
    check_uri("abfs://container@account.dfs.core.windows.net/x")
    check_uri("s3://bucket/x?endpoint_override=127.0.0.1:5555&scheme=http&region=us-east-1")


def test_a_file_system_that_nobody_knows_is_told() -> None:
    with pytest.raises(DataError, match="nonsense://x: no file system that can be used"):
        RemoteFolder("nonsense://x")


def test_storage_that_cannot_be_written_is_told_before_anything_starts(
    s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    place = s3.uri(bucket="nonsuch")
    with pytest.raises(SearchError, match=r"--storage s3://nonsuch/search\?.*: cannot be written"):
        run_search(settings(small_data, tmp_path).model_copy(update={"storage": place}))


def test_a_file_that_only_grows_is_taken_where_it_is_longer(s3: S3, elsewhere: Path, tmp_path: Path) -> None:
    place = s3.uri("grows")
    remote, local = RemoteFolder(place), local_copy(place)
    for name, here, there in (
        ("optuna.journal", "one\ntwo\nthree\n", "one\ntwo\n"),
        ("trials/0000_x/metrics.jsonl", "one\n", "one\ntwo\n"),
        ("search.json", '{"id": "a", "n": 1}', '{"id": "a", "n": 2}'),
    ):
        source = tmp_path / "source"
        source.write_text(there)
        remote.upload(source.read_bytes(), name)
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_text(here)
    assert open_experiment(place) == local
    assert (local / "optuna.journal").read_text() == "one\ntwo\nthree\n"
    assert (local / "trials/0000_x/metrics.jsonl").read_text() == "one\ntwo\n"
    assert json.loads((local / "search.json").read_text())["n"] == 2


def test_what_is_left_of_an_earlier_experiment_is_not_mixed_in(s3: S3, elsewhere: Path, tmp_path: Path) -> None:
    place = s3.uri("again")
    remote, local = RemoteFolder(place), local_copy(place)
    for name, here, there in (
        ("search.json", '{"id": "earlier"}', '{"id": "later"}'),
        ("optuna.journal", "one\ntwo\n", "one\n"),
    ):
        source = tmp_path / "source"
        source.write_text(there)
        remote.upload(source.read_bytes(), name)
        local.mkdir(parents=True, exist_ok=True)
        (local / name).write_text(here)
    assert (open_experiment(place) / "optuna.journal").read_text() == "one\n"


def _checkpoint(trial: TrialCopy, epoch: int) -> Path:
    folder = trial.folder / "checkpoints" / f"epoch_{epoch:06d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(str(epoch))
    (folder / "state.json").write_text("{}")
    return folder


def test_a_checkpoint_without_its_last_file_is_not_taken(
    s3: S3, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = TrialCopy(s3.uri("torn"), "id", "0000_x")
    trial.fetch(TrialConfig())
    for epoch in (1, 2):
        trial.save({"epoch": epoch}, _checkpoint(trial, epoch))
    remote = RemoteFolder(s3.uri("torn/trials/0000_x"))
    assert "checkpoints/epoch_000002/state.json" in remote.sizes()
    remote.upload(b"3", "checkpoints/epoch_000003/model.safetensors")
    monkeypatch.setenv("DEEPMLF_HOME", str(elsewhere / "other"))
    other = TrialCopy(s3.uri("torn"), "id", "0000_x")
    assert other.fetch(TrialConfig()) == [{"epoch": 1}, {"epoch": 2}]
    assert [path.name for path in (other.folder / "checkpoints").iterdir()] == ["epoch_000002"]
    assert (other.folder / "checkpoints/epoch_000002/model.safetensors").read_text() == "2"


def test_what_another_trial_has_left_under_the_same_number_is_removed(
    s3: S3, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, later = (TrialConfig.from_overrides({"training.seed": seed}) for seed in (1, 2))
    trial = TrialCopy(s3.uri("left"), "id", "0000_x")
    assert trial.fetch(earlier) == []
    trial.save({"epoch": 1}, _checkpoint(trial, 1))
    assert trial.fetch(earlier) == [{"epoch": 1}]
    assert trial.fetch(later) == []
    assert [path.name for path in trial.folder.iterdir()] == ["config.json"]
    assert set(RemoteFolder(s3.uri("left/trials/0000_x")).sizes()) == {"config.json"}
    trial.save({"epoch": 1}, _checkpoint(trial, 1))
    RemoteFolder(s3.uri("left/trials")).delete("0000_x")
    assert trial.fetch(later) == []
    assert [path.name for path in trial.folder.iterdir()] == ["config.json"]


def test_data_on_s3_is_fetched_once_and_anew_when_it_has_changed(
    s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    place = s3.uri("data/small")
    remote = RemoteFolder(place)
    with pytest.raises(DataError, match=r"small\?.*: no such folder, or nothing in it"):
        Dataset.open(place)
    for path in small_data.glob("*.*"):
        remote.upload(path.read_bytes(), path.name)
    opened = Dataset.open(place)
    assert opened.info == Dataset.open(small_data).info
    assert opened.split("valid").texts == Dataset.open(small_data).split("valid").texts
    written = (opened.path / "train.arrow").stat().st_mtime_ns
    assert Dataset.open(place).path == opened.path
    assert (opened.path / "train.arrow").stat().st_mtime_ns == written
    other = make_synthetic(tmp_path / "other", seed=5, sizes=(8, 4, 4))
    for path in (tmp_path / "other").glob("*.*"):
        remote.upload(path.read_bytes(), path.name)
    assert Dataset.open(place).info == other


def test_processes_that_ask_at_once_fetch_once(s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path) -> None:
    place = s3.uri("data/at-once")
    for path in small_data.glob("*.*"):
        RemoteFolder(place).upload(path.read_bytes(), path.name)
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        folders = pool.map(fetch, [place] * 8)
    assert set(folders) == {local_copy(place)}
    made = {path.stat().st_ino for path in local_copy(place).glob("*.arrow")}
    assert len(made) == 3
    assert not list(local_copy(place).parent.glob(".*.[0-9]*"))


def test_a_language_model_on_s3_that_is_none_is_told(s3: S3, elsewhere: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"nonsuch\?.*: no such folder, or nothing in it"):
        lm_store.resolve(s3.uri("lms/nonsuch"))
    RemoteFolder(s3.uri("lms/bert")).upload(b'{"model_type": "bert"}', "config.json")
    with pytest.raises(LanguageModelError, match="model_type='bert' is not supported"):
        lm_store.get(s3.uri("lms/bert"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_on_s3_equals_one_on_a_path(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    here = settings(small_data, tmp_path, trials=6, epochs=3, concurrent=1)
    there = here.model_copy(update={"storage": s3.uri("equal")})
    on_path, on_s3 = run_search(here), run_search(there)
    place = s3.uri("equal/search")
    assert on_s3.experiment == place
    assert (on_s3.states, on_s3.value, on_s3.best_trial) == (on_path.states, on_path.value, on_path.best_trial)
    shutil.rmtree(elsewhere)
    columns = ["trial", "state", "fusion_epoch", "valid/MAE"]
    assert load_results(place).select(columns).equals(load_results(on_path.experiment).select(columns))
    facts = summarise(place, quiet=True)
    assert facts["best_folder"] == join(place, "trials", f"{on_path.best_trial:04d}_search")
    names = set(RemoteFolder(place).sizes())
    assert {"search.json", "optuna.journal", "results.parquet", "trials/0000_search/config.json"} <= names
    assert not [name for name in names if "/." in name or name.startswith(".")]
    for name in names:
        RemoteFolder(place).download(name, tmp_path / "all" / name)
        assert b"planted" not in (tmp_path / "all" / name).read_bytes(), f"{name} holds a credential"
    with pytest.raises(SearchError, match="exists; choose another --name, or run `deepmlf resume s3://"):
        run_search(there)


@pytest.mark.ray
@pytest.mark.slow
def test_an_experiment_on_s3_guides_another_search(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    search = settings(small_data, tmp_path, trials=2, epochs=1, concurrent=1, scheduler="none")
    run_search(search.model_copy(update={"storage": s3.uri("earlier")}))
    place = s3.uri("earlier/search")
    shutil.rmtree(elsewhere)
    run_search(search.model_copy(update={"warm_start": place}))
    guides = [t.user_attrs.get("warm_start") for t in open_study(tmp_path / "search").get_trials()]
    assert guides == ["search/0", "search/1", None, None]
    assert read_manifest(tmp_path / "search")["settings"]["warm_start"] == place
    with pytest.raises(SearchError) as caught:
        run_search(search.model_copy(update={"name": "other", "warm_start": s3.uri("nonsuch")}))
    assert str(caught.value) == f"--warm-start {s3.uri('nonsuch')}: not an experiment (no search.json there)"


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_driver_goes_on_from_another_machine(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    place = s3.uri("killed/search")
    search = settings(small_data, tmp_path, trials=40, epochs=3, address=ray.get_runtime_context().gcs_address)
    driver = _driver(elsewhere, search.model_copy(update={"storage": s3.uri("killed")}))
    local = local_copy(place)
    _wait(lambda: len(list(local.glob("trials/*/metrics.jsonl"))) >= 5)
    time.sleep(1.5)  # an upload or two
    driver.kill()
    driver.join()
    finished = {t.number for t in open_study(local).get_trials() if t.state.is_finished()}
    assert finished
    assert len(finished) < 40
    shutil.rmtree(elsewhere)
    resume_search(place)
    assert_whole(local, 40)
    rows = load_results(place).to_pylist()
    # What the dead driver had heard and could not send up any more is there, too.
    assert set(Counter(row["trial"] for row in rows if row["state"] == "COMPLETE").values()) == {3}


@pytest.mark.ray
@pytest.mark.slow
def test_storage_that_fails_for_twenty_seconds_loses_nothing(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    place = s3.uri("stalled/search")
    search = settings(small_data, tmp_path, trials=16, epochs=3, address=ray.get_runtime_context().gcs_address)
    driver = _driver(elsewhere, search.model_copy(update={"storage": s3.uri("stalled")}))
    local = local_copy(place)
    _wait(lambda: len(list(local.glob("trials/*/metrics.jsonl"))) >= 3)
    s3.flag.touch()
    time.sleep(20)
    s3.flag.unlink()
    driver.join(120)
    assert driver.exitcode == 0
    shutil.rmtree(elsewhere)
    assert_whole(open_experiment(place), 16)
    assert {t.state.name for t in open_study(local).get_trials()} <= {"COMPLETE", "PRUNED"}


@pytest.mark.ray
@pytest.mark.slow
def test_storage_that_fails_for_good_stops_the_search_and_loses_no_trial(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, local = s3.uri("gone/search"), local_copy(s3.uri("gone/search"))
    search = settings(small_data, tmp_path, trials=8, epochs=3, scheduler="none")
    there = {"storage": s3.uri("gone"), "train_function": "fake_training:train_impatiently"}
    given_up, stop = threading.Event(), Stop._stop

    def noted_stop(self: Stop) -> None:
        given_up.set()
        stop(self)

    monkeypatch.setattr(Stop, "_stop", noted_stop)

    def fail() -> None:
        _wait(lambda: len(list(local.glob("trials/*/metrics.jsonl"))) >= 3)
        s3.flag.touch()
        given_up.wait(120)  # until then a worker tries again, and pyarrow on its own
        s3.flag.unlink()

    failing = threading.Thread(target=fail)
    failing.start()
    summary = run_search(search.model_copy(update=there))
    failing.join()
    assert given_up.is_set()
    assert re.match(r"the storage does not answer \(.*\); resume when it does", summary.stop_reason or "")
    assert not {"FAIL", "PRUNED"} & {t.state.name for t in open_study(local).get_trials()}
    shutil.rmtree(elsewhere)
    assert resume_search(place).states["FAIL"] == 0
    assert_whole(local, 8)


@pytest.mark.ray
@pytest.mark.slow
def test_the_best_weights_are_evaluated_from_s3(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    summary = run_search(real_settings(small_data, tmp_path, s3.uri("real"), trials=1, epochs=2))
    assert summary.value is not None
    shutil.rmtree(elsewhere)
    trial = join(summary.experiment, "trials", "0000_search")
    assert evaluate_trial(open_trial(trial), split="valid")["MAE"] == pytest.approx(summary.value, abs=1e-6)


def test_an_exported_model_predicts_from_a_uri(elsewhere: Path, small_export: Path, small_data: Path) -> None:
    dataset = Dataset.open(small_data)
    here, copy = (Predictor.open(open_trial(place)) for place in (small_export, small_export.as_uri()))
    assert copy.predict(dataset, "test").equals(here.predict(dataset, "test"))


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_on_s3_is_confirmed(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path
) -> None:
    summary = run_search(
        real_settings(small_data, tmp_path, s3.uri("sure"), trials=2, epochs=1, scheduler="none", sampler="random")
    )
    shutil.rmtree(elsewhere)
    report = confirm(summary.experiment, top=2, seeds=2, quiet=True)
    assert [len(setting["seeds"]) for setting in report["settings"]] == [2, 2]
    name = "confirm-{}-{}-x2".format(*(setting["trial"] for setting in report["settings"]))
    names = RemoteFolder(join(summary.experiment, name)).sizes()
    assert "confirm.json" in names
    assert f"trials/0003_{name}/best/model.safetensors" in names


def real_settings(data: Path, folder: Path, storage: str, **changes: Any) -> SearchSettings:
    """A search with the real trainer, on storage of its own."""
    return settings(
        data,
        folder,
        train_function="deepmlf.training.trainer:train",
        overrides={"model.max_text_len": 16, "model.av_frames": 6, "curriculum.av_epochs": 1},
        **changes,
    ).model_copy(update={"storage": storage})


def _driver(home: Path, search: SearchSettings) -> BaseProcess:
    """A driver in a process of its own, forked from one that has imported everything."""
    drivers = multiprocessing.get_context("forkserver")
    drivers.set_forkserver_preload(["deepmlf.tune.search"])
    process = drivers.Process(target=_search, args=(home, search))
    process.start()
    return process


def _search(home: Path, search: SearchSettings) -> None:
    os.environ["DEEPMLF_HOME"] = str(home)
    storage.Uploader.__init__.__defaults__ = (0.5,)
    run_search(search)


def _wait(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the search did not get that far"
        time.sleep(0.1)


@pytest.mark.slow
def test_tensorboard_follows_an_experiment_on_s3(s3: S3, elsewhere: Path, tmp_path: Path) -> None:
    place, trial = s3.uri("board"), "0001_synthetic"
    remote, made = RemoteFolder(place), make_experiment(tmp_path, 2, epochs=3, running=1, events=True)

    def upload() -> None:
        for path in made.rglob("*"):
            if path.is_file():
                remote.upload(path.read_bytes(), path.relative_to(made).as_posix())

    upload()
    with served(place) as server:
        server.until(lambda: len(server.get("scalars", "tags")) == 2)
        last = read_metrics(made / "trials" / trial)[-1]
        (events,) = (made / "trials" / trial).glob("events*")
        writer = TrialWriter(tmp_path)
        writer.write(last | {"epoch": last["epoch"] + 1}, {})
        (grown,) = tmp_path.glob("events*")
        events.write_bytes(events.read_bytes() + grown.read_bytes())
        shutil.copytree(made / "trials" / trial, made / "trials" / "0002_synthetic")
        upload()
        server.until(lambda: len(server.get("scalars", "tags")) == 3)
        server.until(lambda: len(server.steps(trial, "train/loss")) == last["epoch"] + 1)
    with pytest.raises(SearchError, match=r"nonsuch\?.*: not an experiment \(no search.json there\)"):
        Board(s3.uri("nonsuch"), "127.0.0.1", 0)
