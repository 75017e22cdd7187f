"""Experiments on S3: searched, killed, resumed elsewhere, evaluated; storage that fails for a while, and for good."""

import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray

from benchmarks.parts.s3 import S3
from benchmarks.parts.served import served
from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.board import Board
from deepmlf.analysis.results import load_results, write_results
from deepmlf.analysis.standing import standing_of
from deepmlf.analysis.verdict import confirm
from deepmlf.data.dataset import Dataset
from deepmlf.errors import SearchError
from deepmlf.events.writer import TrialWriter
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.inference.predictor import Predictor
from deepmlf.places import Place, RemoteFolder
from deepmlf.training.reports import EpochReport, read_reports
from deepmlf.tune.driver.stop import Stop
from deepmlf.tune.experiment.manifest import read_manifest
from deepmlf.tune.experiment.remote import open_trial
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.uploader import Uploader
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings
from tests.tune.experiments import assert_whole, settings, start


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
    experiment = open_experiment(place)
    assert write_results(experiment) == str(Place.of(place) / "results.parquet")
    facts = standing_of(experiment).to_dict()
    assert facts["best_folder"] == str(Place.of(place) / "trials" / f"{on_path.best_trial:04d}_search")
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
    guides = [t.user_attrs.get("warm_start") for t in open_experiment(tmp_path / "search").study.get_trials()]
    assert guides == ["search/0", "search/1", None, None]
    assert read_manifest(Place.of(tmp_path / "search")).settings.warm_start == place
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
    driver = start(_search, elsewhere, search.model_copy(update={"storage": s3.uri("killed")}))
    local = Place.of(place).folder
    _wait(lambda: len(list(local.glob("trials/*/metrics.jsonl"))) >= 5)
    time.sleep(1.5)  # an upload or two
    driver.kill()
    driver.join()
    finished = {t.number for t in open_experiment(local).study.get_trials() if t.state.is_finished()}
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
@pytest.mark.parametrize("seconds", [6, pytest.param(20, marks=pytest.mark.long)])
def test_storage_that_fails_for_seconds_loses_nothing(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path, seconds: float
) -> None:
    place = s3.uri(f"stalled{seconds}/search")
    search = settings(small_data, tmp_path, trials=16, epochs=3, address=ray.get_runtime_context().gcs_address)
    driver = start(_search, elsewhere, search.model_copy(update={"storage": s3.uri(f"stalled{seconds}")}))
    local = Place.of(place).folder
    _wait(lambda: len(list(local.glob("trials/*/metrics.jsonl"))) >= 3)
    s3.fails.touch()
    time.sleep(seconds)
    s3.fails.unlink()
    driver.join(120)
    assert driver.exitcode == 0
    shutil.rmtree(elsewhere)
    assert_whole(open_experiment(place).folder, 16)
    assert {t.state.name for t in open_experiment(local).study.get_trials()} <= {"COMPLETE", "PRUNED"}


@pytest.mark.ray
@pytest.mark.slow
def test_storage_that_fails_for_good_stops_the_search_and_loses_no_trial(
    ray_cluster: None, s3: S3, elsewhere: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, local = s3.uri("gone/search"), Place.of(s3.uri("gone/search")).folder
    search = settings(small_data, tmp_path, trials=8, epochs=3, scheduler="none")
    there = {"storage": s3.uri("gone"), "train_function": "fake_training:train_impatiently"}
    given_up, stop = threading.Event(), Stop._stop

    def noted_stop(self: Stop) -> None:
        given_up.set()
        stop(self)

    monkeypatch.setattr(Stop, "_stop", noted_stop)

    def fail() -> None:
        _wait(lambda: len(list(local.glob("trials/*/metrics.jsonl"))) >= 3)
        s3.fails.touch()
        given_up.wait(120)  # until then a worker tries again, and pyarrow on its own
        s3.fails.unlink()

    failing = threading.Thread(target=fail)
    failing.start()
    summary = run_search(search.model_copy(update=there))
    failing.join()
    assert given_up.is_set()
    assert re.match(r"the storage does not answer \(.*\); resume when it does", summary.stop_reason or "")
    assert not {"FAIL", "PRUNED"} & {t.state.name for t in open_experiment(local).study.get_trials()}
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
    trial = str(Place.of(summary.experiment) / "trials" / "0000_search")
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
    names = RemoteFolder(str(Place.of(summary.experiment) / name)).sizes()
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


def _search(home: Path, search: SearchSettings) -> None:
    os.environ["DEEPMLF_HOME"] = str(home)
    Uploader.__init__.__defaults__ = (0.5,)
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
        lines = [dict(report.metrics) for report in read_reports(made / "trials" / trial)]
        epochs, last = len(lines), lines[-1]
        (events,) = (made / "trials" / trial).glob("events*")
        writer = TrialWriter(tmp_path)
        writer.write(EpochReport(last | {name: last[name] + 1 for name in ("epoch", "fusion_epoch")}), {})
        (grown,) = tmp_path.glob("events*")
        events.write_bytes(events.read_bytes() + grown.read_bytes())
        shutil.copytree(made / "trials" / trial, made / "trials" / "0002_synthetic")
        upload()
        server.until(lambda: len(server.get("scalars", "tags")) == 3)
        server.until(lambda: len(server.steps(trial, "train/loss")) == epochs + 1)
    with pytest.raises(SearchError, match=r"nonsuch\?.*: neither an experiment \(no search.json there\)"):
        Board(s3.uri("nonsuch"), "127.0.0.1", 0)
