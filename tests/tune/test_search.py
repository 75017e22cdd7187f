"""Whole searches with a mock trainer on a real Ray cluster: states, failures, kills."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from deepmlf.analysis.results import write_results
from deepmlf.analysis.standing import standing_of
from deepmlf.errors import SearchError
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import OVERRIDES
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings
from tests.tune.experiments import assert_whole, settings, space_of, wait_for_epochs


@pytest.mark.ray
def test_states_reach_optuna_at_their_fidelity(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    summary = run_search(settings(small_data, tmp_path))
    experiment = tmp_path / "search"
    assert_whole(experiment, 8)
    assert summary.states["COMPLETE"] >= 1
    assert summary.states["PRUNED"] >= 1
    assert summary.fusion_epochs_spent < summary.fusion_epochs_full == 72
    for trial in open_experiment(experiment).study.get_trials():
        last = max(trial.intermediate_values)
        assert (last == 9) == (trial.state.name == "COMPLETE")
        if trial.state.name == "COMPLETE":
            assert trial.value == min(trial.intermediate_values.values())
    with pytest.raises(SearchError, match=r"search: exists; choose another --name, or run `deepmlf resume"):
        run_search(settings(small_data, tmp_path))
    again = resume_search(experiment)
    assert again.states == summary.states
    facts = standing_of(open_experiment(experiment)).to_dict()
    assert facts["best_trial"] == summary.best_trial
    table = write_results(open_experiment(experiment))
    assert pq.read_table(table).num_rows == summary.fusion_epochs_spent


@pytest.mark.ray
def test_after_a_search_ctrl_c_does_what_it_did(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run_search(settings(small_data, tmp_path, trials=1, epochs=1))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.ray
def test_the_same_seed_gives_the_same_trials(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    params = []
    for name in ("first", "second"):
        run_search(settings(small_data, tmp_path, name=name, concurrent=1, trials=5, epochs=2))
        params.append([trial.params for trial in open_experiment(tmp_path / name).study.get_trials()])
    assert params[0] == params[1]


def failing_space(path: Path, condition: str) -> str:
    path.write_text(
        "def space(trial):\n"
        f"    bad = {condition}\n"
        "    kind = (0.5, 0.25)[trial.number % 2] if bad else 0.001\n"
        "    return {'training.lr_av': kind, 'model.fusion_depth': 2,\n"
        "            'model.num_fusion_tokens': trial.suggest_int('model.num_fusion_tokens', 2, 12)}\n"
    )
    return str(path)


@pytest.mark.ray
def test_a_space_of_four_settings_is_exhausted_by_four_trials(
    ray_cluster: None, tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of eight depths that are drawn four fit the language model's layers."""
    (tmp_path / "mine.py").write_text(
        """
def space(trial, lm):
    depth = min(trial.suggest_int("model.fusion_depth", 1, 8), lm.num_layers)
    return {"model.fusion_start": 0.0, "model.fusion_depth": depth}
"""
    )
    asked = settings(small_data, tmp_path, space=str(tmp_path / "mine.py"), trials=9, epochs=2, quiet=False)
    summary = run_search(asked)
    assert (summary.exhausted, summary.interrupted, summary.stop_reason) == (True, False, None)
    told = "deepmlf: the space is exhausted: 2,000 draws found no setting that no trial has\n"
    assert told in capsys.readouterr().err
    trials = open_experiment(tmp_path / "search").trials()
    assert sorted(json.loads(trial.user_attrs[OVERRIDES])["model.fusion_depth"] for trial in trials) == [1, 2, 3, 4]
    again = resume_search(tmp_path / "search")
    assert (again.exhausted, again.states) == (True, summary.states)


@pytest.mark.ray
def test_a_failed_trial_is_recorded_and_the_search_goes_on(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    space = failing_space(tmp_path / "mine.py", "trial.number in (1, 4)")
    summary = run_search(settings(small_data, tmp_path, space=space, trials=6, epochs=2, scheduler="none"))
    assert_whole(tmp_path / "search", 6)
    assert summary.states["FAIL"] == 2
    assert summary.states["COMPLETE"] == 4
    failures = standing_of(open_experiment(tmp_path / "search")).to_dict()["failures"]
    assert failures == {
        1: "NonFiniteLossError: the loss became nan in epoch 1",
        4: "ValueError: learning rate of 0.5",
    }
    assert "learning rate of 0.5" in next((tmp_path / "search/trials").glob("0004_*/error.txt")).read_text()


@pytest.mark.ray
def test_three_failures_at_the_start_stop_the_search(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    space = failing_space(tmp_path / "mine.py", "True")
    summary = run_search(settings(small_data, tmp_path, space=space, trials=20, concurrent=1))
    assert summary.states["FAIL"] == 3
    assert summary.stop_reason == "the first 3 trials all failed: ValueError: learning rate of 0.5"


@pytest.mark.ray
def test_early_failures_do_not_end_a_search_whose_first_trial_has_yet_to_report(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    space = space_of(tmp_path, 0.00390625, 0.5, 0.5, 0.5, 0.001)  # the first one takes three seconds for an epoch
    summary = run_search(settings(small_data, tmp_path, space=space, trials=5, epochs=2, scheduler="none"))
    assert summary.stop_reason is None
    assert (summary.states["COMPLETE"], summary.states["FAIL"]) == (2, 3)
    assert_whole(tmp_path / "search", 5)


DRIVER = """
import sys
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings
print(run_search(SearchSettings.model_validate_json(sys.argv[1])).interrupted)
"""


def start_driver(settings: SearchSettings) -> subprocess.Popen[str]:
    """A search in a process group of its own, on a Ray cluster of its own."""
    command = [sys.executable, "-c", DRIVER, settings.model_dump_json()]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)


@pytest.mark.ray
@pytest.mark.slow
def test_a_killed_driver_resumes_with_nothing_lost_or_doubled(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    experiment = tmp_path / "search"
    driver = start_driver(settings(small_data, tmp_path, trials=8, epochs=9))
    wait_for_epochs(experiment, 12)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    assert any(not trial.state.is_finished() for trial in open_experiment(experiment).study.get_trials())
    assert not resume_search(experiment).interrupted
    assert_whole(experiment, 8)


@pytest.mark.ray
@pytest.mark.slow
def test_an_interrupt_stops_cleanly_and_can_be_resumed(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    experiment = tmp_path / "search"
    driver = start_driver(settings(small_data, tmp_path, trials=8, epochs=9))
    wait_for_epochs(experiment, 6)
    driver.send_signal(signal.SIGINT)
    output, _ = driver.communicate(timeout=60)
    assert output.strip().endswith("True")
    resume_search(experiment)
    assert_whole(experiment, 8)


def test_resume_names_a_folder_that_is_no_experiment(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match=r"not an experiment \(no search.json there\)"):
        resume_search(tmp_path)
