"""Notes on trials: what optuna-dashboard itself reads of them, and what its server says of a search that runs."""

import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import optuna
import pytest
from optuna_dashboard import get_note, save_note

from deepmlf.tune.experiment.notes import describe, read_note
from deepmlf.tune.experiment.study import FAIL_REASON, OVERRIDES, RESTARTS, create_study, name_objectives
from deepmlf.tune.experiment.study import note as set_attribute
from deepmlf.tune.objective import make_objectives
from tests.tune.experiments import drive, settings, space_of, start

OBJECTIVES = make_objectives(["valid/MAE"])
SETTINGS = {"model.fusion_depth": 3, "curriculum.name": "joint", "model.fusion_layers": [1, 2, 3]}


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """One with a trial of a setting."""
    study = create_study(tmp_path / "search", "search", None, OBJECTIVES)
    study.ask().set_user_attr(OVERRIDES, json.dumps(SETTINGS))
    return study


def as_shown(study: optuna.Study, number: int = 0) -> str:
    """A trial's note by the dashboard's own function."""
    return get_note(optuna.trial.Trial(study, study.trials[number]._trial_id))


def test_the_settings_are_in_the_note_from_the_start(study: optuna.Study) -> None:
    describe(study, 0)
    assert as_shown(study) == read_note(study, 0) == (
        "| setting in effect | value |\n|---|---|\n| `curriculum.name` | `\"joint\"` |\n"
        "| `model.fusion_depth` | `3` |\n| `model.fusion_layers` | `[1, 2, 3]` |"
    )  # fmt: skip


def test_restarts_and_the_reason_of_a_failure_come_first(study: optuna.Study) -> None:
    describe(study, 0)
    settings = as_shown(study)
    for restarts in (["its worker died"], ["its worker died", "preempted"]):
        set_attribute(study, 0, RESTARTS, restarts)
        describe(study, 0)
    assert as_shown(study) == f"**Started again** because of\n\n~~~\nits worker died\npreempted\n~~~\n\n{settings}"
    set_attribute(study, 0, FAIL_REASON, "ValueError: <b>*x*</b>")
    describe(study, 0)
    assert as_shown(study).startswith("**Failed**\n\n~~~\nValueError: <b>*x*</b>\n~~~\n\n**Started again** because of")
    assert as_shown(study).endswith(settings)


def test_a_note_is_written_when_it_changes_only(study: optuna.Study, tmp_path: Path) -> None:
    describe(study, 0)
    before = (tmp_path / "search" / "optuna.journal").read_bytes()
    describe(study, 0)
    name_objectives(study, OBJECTIVES)
    assert (tmp_path / "search" / "optuna.journal").read_bytes() == before


def test_long_notes_of_several_trials_are_whole_and_may_become_shorter(study: optuna.Study) -> None:
    study.ask().set_user_attr(OVERRIDES, json.dumps({f"section.name_{number}": "x" * 50 for number in range(100)}))
    for number in (0, 1):
        describe(study, number)
    assert len(as_shown(study, 1)) > 5000
    assert as_shown(study, 1).count("x" * 50) == 100
    assert as_shown(study, 0).count("\n") == 4
    study._storage.set_trial_user_attr(study.trials[1]._trial_id, OVERRIDES, "{}")
    save_note(optuna.trial.Trial(study, study.trials[1]._trial_id), "")
    set_attribute(study, 1, FAIL_REASON, "short")
    describe(study, 1)
    assert as_shown(study, 1) == "**Failed**\n\n~~~\nshort\n~~~"


def test_what_a_person_has_written_stays(study: optuna.Study) -> None:
    describe(study, 0)
    save_note(optuna.trial.Trial(study, study.trials[0]._trial_id), "looks promising")
    set_attribute(study, 0, FAIL_REASON, "ValueError: no")
    describe(study, 0)
    assert as_shown(study) == "looks promising"


@contextmanager
def dashboard(journal: Path) -> Iterator[Callable[[str], Any]]:
    """optuna-dashboard on a journal, on loopback; gives the JSON of a route of its API."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = ["--host", "127.0.0.1", "--port", str(port), "--server", "wsgiref", "--quiet"]
    command = [sys.executable, "-m", "optuna_dashboard._cli", str(journal), *words]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # it tells every request

    def get(route: str) -> Any:
        with urlopen(f"http://127.0.0.1:{port}/api/{route}", timeout=30) as answer:
            return json.load(answer)

    try:
        yield get
    finally:
        process.terminate()
        process.wait(20)


def until(ask: Callable[[], Any], holds: Callable[[Any], bool], seconds: float = 90) -> Any:
    """What is answered once it is as it must become."""
    deadline, answer = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        try:
            answer = ask()
            if holds(answer):
                return answer
        except URLError:  # it is starting
            pass
        time.sleep(0.3)
    raise TimeoutError(f"last answer: {answer}")


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.server
def test_the_dashboard_follows_a_search_that_runs(tmp_path: Path, small_data: Path) -> None:
    """One trial fails, one is restarted, one is slow."""
    space = space_of(tmp_path, 0.5, 0.125, 0.00390625)
    search = settings(small_data, tmp_path, space=space, trials=3, epochs=4, scheduler="none")
    driver = start(drive, tmp_path / "search", search)
    journal = tmp_path / "search" / "optuna.journal"
    until(journal.is_file, bool)
    with dashboard(journal) as get:
        (listed,) = until(lambda: get("studies"), lambda answer: len(answer["study_summaries"]) == 1)["study_summaries"]
        assert listed["study_name"] == "search"
        route = f"studies/{listed['study_id']}?after=0"
        running = until(lambda: get(route), lambda answer: _states(answer)[2:] == ["Running"] and _has_reported(answer))
        assert running["objective_names"] == ["valid/MAE"]
        failed, _, slow = running["trials"]
        assert failed["note"]["body"].startswith("**Failed**\n\n~~~\nValueError: learning rate of 0.5")
        assert "| `training.lr_av` | `0.00390625` |" in slow["note"]["body"]
        driver.join(120)
        assert driver.exitcode == 0
        ended = until(lambda: get(route), lambda answer: _states(answer) == ["Fail", "Complete", "Complete"])
        restarted = ended["trials"][1]
        [reason] = json.loads({pair["key"]: pair["value"] for pair in restarted["user_attrs"]}[RESTARTS])
        assert reason.endswith(" died")
        assert restarted["note"]["body"].startswith(f"**Started again** because of\n\n~~~\n{reason}\n~~~\n\n| setting")
        assert len(ended["trials"][2]["intermediate_values"]) == 4


def _states(study: dict[str, Any]) -> list[str]:
    return [trial["state"] for trial in study["trials"]]


def _has_reported(study: dict[str, Any]) -> bool:
    return len(study["trials"][2]["intermediate_values"]) > 0
