"""Places on S3: URIs, copies, checkpoints, data and language models."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import pytest

from benchmarks.parts.s3 import S3
from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.synthetic import make_synthetic
from deepmlf.errors import DataError, LanguageModelError, SearchError
from deepmlf.model import lm_store
from deepmlf.places import Place, RemoteFolder, check_uri
from deepmlf.tune.experiment.remote import refresh
from deepmlf.tune.search import run_search
from deepmlf.tune.worker.trial_copy import TrialCopy, reports_of_worker
from tests.tune.experiments import settings


def test_a_uri_keeps_its_options_at_the_end() -> None:
    assert str(Place.of("s3://b/runs?region=x") / "name" / "trials") == "s3://b/runs/name/trials?region=x"
    assert (
        Place.of("s3://b/runs/name?region=x").folder
        == Place.of("s3://b/runs/name").folder
        == Place.of("s3://b/runs/name/").folder
    )
    assert Place.of("s3://b/runs/name").folder != Place.of("s3://c/runs/name").folder


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
    remote, local = RemoteFolder(place), Place.of(place).folder
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
    refresh(Place.of(place))
    assert (local / "optuna.journal").read_text() == "one\ntwo\nthree\n"
    assert (local / "trials/0000_x/metrics.jsonl").read_text() == "one\ntwo\n"
    assert json.loads((local / "search.json").read_text())["n"] == 2


def test_what_is_left_of_an_earlier_experiment_is_not_mixed_in(s3: S3, elsewhere: Path, tmp_path: Path) -> None:
    place = s3.uri("again")
    remote, local = RemoteFolder(place), Place.of(place).folder
    for name, here, there in (
        ("search.json", '{"id": "earlier"}', '{"id": "later"}'),
        ("optuna.journal", "one\ntwo\n", "one\n"),
    ):
        source = tmp_path / "source"
        source.write_text(there)
        remote.upload(source.read_bytes(), name)
        local.mkdir(parents=True, exist_ok=True)
        (local / name).write_text(here)
    refresh(Place.of(place))
    assert (local / "optuna.journal").read_text() == "one\n"


def _checkpoint(trial: TrialCopy, epoch: int) -> Path:
    folder = trial.folder / "checkpoints" / f"epoch_{epoch:06d}"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text(str(epoch))
    (folder / "state.json").write_text("{}")
    return folder


def test_a_checkpoint_without_its_last_file_is_not_taken(
    s3: S3, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = TrialCopy(Place.of(s3.uri("torn")), "id", "0000_x")
    trial.fetch(TrialConfig())
    for epoch in (1, 2):
        trial.save({"epoch": epoch}, _checkpoint(trial, epoch))
    remote = RemoteFolder(s3.uri("torn/trials/0000_x"))
    assert "checkpoints/epoch_000002/state.json" in remote.sizes()
    remote.upload(b"3", "checkpoints/epoch_000003/model.safetensors")
    monkeypatch.setenv("DEEPMLF_HOME", str(elsewhere / "other"))
    other = TrialCopy(Place.of(s3.uri("torn")), "id", "0000_x")
    other.fetch(TrialConfig())
    assert reports_of_worker(other.folder) == [{"epoch": 1}, {"epoch": 2}]
    assert [path.name for path in (other.folder / "checkpoints").iterdir()] == ["epoch_000002"]
    assert (other.folder / "checkpoints/epoch_000002/model.safetensors").read_text() == "2"


def test_what_another_trial_has_left_under_the_same_number_is_removed(
    s3: S3, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    earlier, later = (TrialConfig.from_overrides({"training.seed": seed}) for seed in (1, 2))
    trial = TrialCopy(Place.of(s3.uri("left")), "id", "0000_x")

    def reported_after(config: TrialConfig) -> list[dict[str, Any]]:
        trial.fetch(config)
        return reports_of_worker(trial.folder)

    assert reported_after(earlier) == []
    trial.save({"epoch": 1}, _checkpoint(trial, 1))
    assert reported_after(earlier) == [{"epoch": 1}]
    assert reported_after(later) == []
    assert [path.name for path in trial.folder.iterdir()] == ["config.json"]
    assert set(RemoteFolder(s3.uri("left/trials/0000_x")).sizes()) == {"config.json"}
    trial.save({"epoch": 1}, _checkpoint(trial, 1))
    RemoteFolder(s3.uri("left/trials")).delete("0000_x")
    assert reported_after(later) == []
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
        folders = pool.map(Place.fetched, [Place.of(place)] * 8)
    assert set(folders) == {Place.of(place).folder}
    made = {path.stat().st_ino for path in Place.of(place).folder.glob("*.arrow")}
    assert len(made) == 3
    assert not list(Place.of(place).folder.parent.glob(".*.[0-9]*"))


def test_a_language_model_on_s3_that_is_none_is_told(s3: S3, elsewhere: Path) -> None:
    with pytest.raises(LanguageModelError, match=r"nonsuch\?.*: no such folder, or nothing in it"):
        lm_store.resolve(s3.uri("lms/nonsuch"))
    RemoteFolder(s3.uri("lms/bert")).upload(b'{"model_type": "bert"}', "config.json")
    with pytest.raises(LanguageModelError, match="gives no number of layers or no width"):
        lm_store.get(s3.uri("lms/bert"))
