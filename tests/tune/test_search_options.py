"""Whole searches on a real Ray cluster: two objectives, grids, time budgets, warm starts, studies in a database."""

import json
from pathlib import Path

import optuna
import pytest
from rich.console import Console

from deepmlf.analysis.results import load_results
from deepmlf.analysis.standing import show_standing, standing_of
from deepmlf.tune.driver.ray_records import ended_in_ray
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings
from tests.tune.experiments import assert_whole, epochs_trained, settings

PARAMETERS = "model/trained_parameters"


@pytest.mark.ray
def test_two_objectives_give_a_front_and_stop_nothing_early(
    ray_cluster: None, tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    search = settings(
        small_data, tmp_path, trials=5, epochs=3, objectives=["valid/Corr", PARAMETERS], scheduler="asha", quiet=False
    )
    summary = run_search(search)
    assert "two objectives have no single order, so no trial is stopped early" in capsys.readouterr().err
    experiment = tmp_path / "search"
    assert_whole(experiment, 5)
    study = open_experiment(experiment).study
    assert summary.states["COMPLETE"] == 5
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert sorted(summary.front) == sorted(trial.number for trial in study.best_trials)
    assert summary.best_trial == summary.front[0] == max(study.get_trials(), key=lambda t: t.values[0]).number
    standing = standing_of(open_experiment(experiment))
    assert standing.front == summary.front
    show_standing(standing, Console())
    assert "Trials of search, Pareto front first" in capsys.readouterr().out
    base = json.loads((experiment / "search.json").read_text())["base"]
    assert base["training.select_by"] == "Corr"


@pytest.mark.ray
def test_a_grid_ends_the_search_when_each_point_has_been_tried_once(
    ray_cluster: None, tmp_path: Path, small_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    space = tmp_path / "mine.py"
    space.write_text(
        "def space(trial):\n"
        "    tokens = trial.suggest_int('model.num_fusion_tokens', 4, 12, step=4)\n"
        "    rate = trial.suggest_categorical('training.lr_av', [0.001, 0.5])  # the latter fails\n"
        "    return {'model.num_fusion_tokens': tokens, 'training.lr_av': rate, 'model.fusion_depth': 1}\n"
    )
    summary = run_search(settings(small_data, tmp_path, space=str(space), sampler="grid", trials=50, epochs=3))
    experiment = tmp_path / "search"
    assert_whole(experiment, 6)
    assert not summary.interrupted
    assert summary.states["FAIL"] == 3
    params = [tuple(sorted(trial.params.items())) for trial in open_experiment(experiment).study.get_trials()]
    assert len(set(params)) == 6
    cut = settings(small_data, tmp_path, space=str(space), name="cut", sampler="grid", trials=4, epochs=1, quiet=False)
    assert sum(run_search(cut).states.values()) == 4
    assert "the grid has more than 4 points; leave out --trials to take all" in capsys.readouterr().err
    untold = SearchSettings.model_validate(cut.model_dump(exclude={"trials"}) | {"name": "untold"})
    assert sum(run_search(untold).states.values()) == 6
    assert "the grid has" not in capsys.readouterr().err


@pytest.mark.ray
def test_a_time_budget_stops_what_runs_and_a_resume_goes_on(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    search = settings(small_data, tmp_path, trials=3, epochs=60, concurrent=1, scheduler="none", time_budget=6.0)
    summary = run_search(search)  # 9 seconds of epochs alone
    assert summary.out_of_time
    assert summary.interrupted
    experiment = tmp_path / "search"
    states = [trial.state.name for trial in open_experiment(experiment).study.get_trials()]
    assert "FAIL" not in states
    assert "PRUNED" not in states
    resumed = resume_search(experiment, time_budget=600.0)
    assert resumed.states["COMPLETE"] == 3
    assert not resumed.out_of_time
    assert_whole(experiment, 3)
    assert sum(times - 1 for times in epochs_trained(experiment).values()) <= 1  # that of the checkpoint, told again


@pytest.mark.ray
def test_a_warm_started_search_in_a_database_has_only_its_own_trials(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    run_search(settings(small_data, tmp_path, name="earlier", trials=3, epochs=2, scheduler="none"))
    url = f"sqlite:///{tmp_path}/study.db"
    search = settings(small_data, tmp_path, trials=2, epochs=2, warm_start=str(tmp_path / "earlier"), study_storage=url)
    summary = run_search(search)
    experiment = tmp_path / "search"
    study = optuna.load_study(study_name="search", storage=url)
    assert [trial.user_attrs.get("warm_start") for trial in study.get_trials()[:3]] == [
        f"earlier/{number}" for number in range(3)
    ]
    assert len(study.get_trials()) == 5
    assert sum(summary.states.values()) == 2
    assert summary.best_trial in (3, 4)
    assert set(load_results(experiment).column("trial").to_pylist()) == {3, 4}
    assert ended_in_ray(experiment) == {3: 1, 4: 1}
    assert resume_search(experiment).states == summary.states
