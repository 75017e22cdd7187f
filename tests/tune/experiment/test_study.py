"""Where a study lives: a journal, SQLite, PostgreSQL; what is written down of its URL; what is told if it is away."""

import json
import socket
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from deepmlf.errors import SearchError
from deepmlf.training.reports import EpochReport
from deepmlf.tune.experiment.alone import reconcile
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import create_study, record_epoch, without_password
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.settings import SearchSettings
from tests.tune.parts import write_experiment
from tests.tune.postgres import SECRET

OBJECTIVES = make_objectives(["valid/MAE"])


def experiment(folder: Path, url: str | None) -> Path:
    """The folder of an experiment whose manifest names a database, without the password."""
    storage = url and without_password(url)
    write_experiment(folder, SearchSettings(data="set", space="demo", name="search", study_storage=storage))
    return folder


def assert_others_can_read(url: str) -> None:
    """What optuna-dashboard does with a URL."""
    storage = optuna.storages.RDBStorage(url)
    (summary,) = optuna.get_all_study_summaries(storage)
    study = optuna.load_study(study_name=summary.study_name, storage=storage)
    assert (summary.study_name, summary.n_trials) == ("search", 2)
    assert [trial.state for trial in study.get_trials()] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert study.get_trials()[0].intermediate_values == {1: 0.9, 2: 0.8}
    assert study.best_value == 0.8


def fill(study: optuna.Study) -> None:
    finished = study.ask()
    finished.suggest_int("model.num_fusion_tokens", 2, 12)
    finished.report(0.9, 1)
    finished.report(0.8, 2)
    study.tell(finished, 0.8)
    study.ask()


def test_a_study_in_sqlite_can_be_read_while_the_search_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = experiment(tmp_path / "search", "sqlite:///study.db")
    study = create_study(folder, "search", "sqlite:///study.db", OBJECTIVES)
    fill(study)
    assert_others_can_read(f"sqlite:///{tmp_path}/study.db")
    monkeypatch.chdir("/")  # the manifest holds the absolute path
    assert [trial.state.name for trial in open_experiment(folder).study.get_trials()] == ["COMPLETE", "RUNNING"]
    with pytest.raises(SearchError, match="study search exists in --study-storage; choose another --name"):
        create_study(folder, "search", f"sqlite:///{tmp_path}/study.db", OBJECTIVES)
    with pytest.raises(SearchError, match=r"other.db: has no study search"):
        _ = open_experiment(folder, f"sqlite:///{tmp_path}/other.db").study


@pytest.mark.parametrize(
    ("url", "written"),
    [
        (f"postgresql://me:{SECRET}@db.lab:5433/studies", "postgresql+psycopg://me@db.lab:5433/studies"),
        (f"postgresql://me@db.lab/studies?password={SECRET}&sslmode=require",
         "postgresql+psycopg://me@db.lab/studies?sslmode=require"),
        (f"mysql+pymysql://me:{SECRET}@db.lab/studies", "mysql+pymysql://me@db.lab/studies"),
        ("sqlite:////data/study.db", "sqlite:////data/study.db"),
    ],
)  # fmt: skip
def test_a_password_is_not_written_down(url: str, written: str) -> None:
    assert without_password(url) == written


@pytest.mark.parametrize("url", [f"no url {SECRET}", "sqlite://", "sqlite:///:memory:"])
def test_what_is_no_database_is_refused_without_repeating_a_password(url: str) -> None:
    with pytest.raises(SearchError, match="--study-storage") as caught:
        without_password(url)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        (f"postgresql://me:{SECRET}@127.0.0.1:{{port}}/studies", "cannot be reached"),
        ("sqlite:////nonsuch/folder/study.db", "cannot be reached (unable to open database file)"),
        (f"oracle+nonsuch://me:{SECRET}@127.0.0.1/studies", "cannot be reached"),
    ],
)
@pytest.mark.timeout(60)
def test_a_database_that_is_away_is_told_within_seconds_in_one_line(tmp_path: Path, url: str, reason: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = url.format(port=unused.getsockname()[1])
        with pytest.raises(SearchError) as caught:
            create_study(tmp_path, "search", url, OBJECTIVES)
    assert str(caught.value).startswith(f"--study-storage {without_password(url)}: ")
    assert reason in str(caught.value)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.timeout(60)  # the database's client would wait for ever
def test_a_database_that_never_answers_is_told_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # takes connections, says nothing
        with pytest.raises(SearchError, match="cannot be reached"):
            create_study(tmp_path, "search", f"postgresql://me@127.0.0.1:{silent.getsockname()[1]}/studies", OBJECTIVES)


@pytest.mark.slow
def test_a_study_in_postgresql_can_be_read_while_the_search_runs(
    tmp_path: Path, postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = experiment(tmp_path / "search", postgres)
    assert "s3cr3t" not in (folder / "search.json").read_text()
    fill(create_study(folder, "search", postgres, OBJECTIVES))
    assert_others_can_read(postgres.replace("postgresql:", "postgresql+psycopg:"))
    monkeypatch.setenv("DEEPMLF_STUDY_STORAGE", postgres)
    assert len(open_experiment(folder).study.get_trials()) == 2
    monkeypatch.delenv("DEEPMLF_STUDY_STORAGE")
    assert len(open_experiment(folder, postgres).study.get_trials()) == 2
    with pytest.raises(SearchError, match="cannot be reached .*password.* is given by DEEPMLF_STUDY_STORAGE"):
        _ = open_experiment(folder).study
    with pytest.raises(SearchError, match="study search exists in --study-storage; choose another --name"):
        create_study(folder, "search", postgres, OBJECTIVES)


TWO = make_objectives(["valid/MAE", "model/trained_parameters"])


def epoch(number: int, mae: float, parameters: int = 1000, **more: Any) -> dict[str, Any]:
    metrics = {"stage": "fusion", "epoch": number, "fusion_epoch": number, "valid/MAE": mae}
    return metrics | {"model/trained_parameters": parameters} | more


def test_an_epoch_is_recorded_once_and_of_two_objectives_the_best_one_of_the_whole_model() -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    study.ask()
    for metrics in (
        {"stage": "av", "epoch": 1},
        epoch(1, 0.4, 500, **{"curriculum/missing_blocks": 1}),
        epoch(2, 0.8),
        epoch(3, 0.6),
        epoch(3, 0.1),
        epoch(4, 0.7),
    ):
        assert record_epoch(study, TWO, 0, EpochReport(metrics)) is None
    trial = study.trials[0]
    assert trial.intermediate_values == {1: 0.4, 2: 0.8, 3: 0.6, 4: 0.7}
    assert trial.user_attrs == {"best_values": [0.6, 1000]}
    reason = record_epoch(study, TWO, 0, EpochReport(epoch(5, float("inf"))))
    assert reason == "valid/MAE became inf in fusion epoch 5"
    assert study.trials[0].intermediate_values.keys() == {1, 2, 3, 4}


def test_a_driver_on_another_machine_finds_both_objectives_of_what_a_lost_one_had_not_sent_up(tmp_path: Path) -> None:
    names = [objective.name for objective in TWO]
    write_experiment(tmp_path, SearchSettings(data="set", space="demo", name="search", objectives=names))
    create_study(tmp_path, "search", None, TWO).ask()
    folder = tmp_path / "trials" / "0000_search"
    folder.mkdir(parents=True)
    lines = [json.dumps(epoch(number, mae)) for number, mae in ((1, 0.9), (2, 0.7), (3, 0.8))]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    experiment = open_experiment(tmp_path)
    reconcile(experiment)
    trial = experiment.study.trials[0]
    assert trial.intermediate_values == {1: 0.9, 2: 0.7, 3: 0.8}
    assert trial.user_attrs["best_values"] == [0.7, 1000]
