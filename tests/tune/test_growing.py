"""A search that grows: more trials, more at a time, other resources, and what that may not change."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from deepmlf.errors import SearchError
from deepmlf.tune.changes import SearchChanges
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.experiment.layout import JOURNAL, LOCK, trial_folder
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import OVERRIDES
from deepmlf.tune.plan import plan_resume
from deepmlf.tune.search import _searcher, resume_search, run_search
from deepmlf.tune.worker.wire import order_of
from tests.command import deepmlf
from tests.sealed import edit
from tests.tune.experiments import assert_whole, epochs_trained, settings
from tests.tune.parts import TERMS

CREATE_TRIAL = 4
"""The operation in an Optuna journal."""


def trials_of(experiment: Path) -> list[tuple[Any, ...]]:
    """Each trial's parameters, state and learning curve."""
    return [(t.params, t.state.name, t.intermediate_values) for t in open_experiment(experiment).study.get_trials()]


@pytest.mark.ray
@pytest.mark.slow
def test_one_at_a_time_a_grown_search_is_the_one_that_was_as_large_from_the_start(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    asked = {"epochs": 9, "concurrent": 1}
    run_search(settings(small_data, tmp_path, name="straight", trials=12, **asked))
    run_search(settings(small_data, tmp_path, name="grown", trials=6, **asked))
    first = trials_of(tmp_path / "grown")
    resume_search(tmp_path / "grown", changes=SearchChanges(trials=12))
    grown = trials_of(tmp_path / "grown")
    assert grown[:6] == first
    assert grown == trials_of(tmp_path / "straight")
    assert_whole(tmp_path / "grown", 12)
    assert set(epochs_trained(tmp_path / "grown").values()) == {1}


@pytest.mark.ray
@pytest.mark.slow
def test_with_more_at_a_time_each_trial_is_what_the_study_asks_for_at_that_moment(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    """What a trial draws is decided by its number and by what the study then knows: nothing else, no driver."""
    run_search(settings(small_data, tmp_path, trials=6, cpus_per_trial=0.5))
    first = trials_of(tmp_path / "search")
    resume_search(tmp_path / "search", changes=SearchChanges(trials=12, concurrent=4))
    assert trials_of(tmp_path / "search")[:6] == first
    assert_whole(tmp_path / "search", 12)
    drawn = open_experiment(tmp_path / "search").study.get_trials()
    beginnings = list(beginnings_of(tmp_path / "search" / JOURNAL))
    for number in range(6, 12):
        shutil.copytree(tmp_path / "search", tmp_path / f"before-{number}")
        (tmp_path / f"before-{number}" / JOURNAL).write_text(beginnings[number])
        for later in range(number, 12):
            shutil.rmtree(trial_folder(tmp_path / f"before-{number}", later))
        plan = plan_resume(open_experiment(tmp_path / f"before-{number}"))
        assert len(plan.experiment.study.get_trials()) == number
        searcher = _searcher(plan, Orders(plan.space, TERMS), [])
        orders = (searcher.suggest(str(index)) for index in range(12))  # those that ran at that moment come first
        asked = next(order for order in map(order_of, orders) if order.number == number)  # type: ignore[arg-type]
        assert asked.overrides == json.loads(drawn[number].user_attrs[OVERRIDES])
        assert plan.experiment.study.get_trials()[number].params == drawn[number].params


def beginnings_of(journal: Path) -> Iterator[str]:
    """The journal before each trial was asked for."""
    lines = journal.read_text().splitlines(keepends=True)
    for index, line in enumerate(lines):
        if json.loads(line)["op_code"] == CREATE_TRIAL:
            yield "".join(lines[:index])


@pytest.mark.ray
@pytest.mark.slow
def test_where_no_trial_learns_from_another_twice_as_many_at_a_time_are_the_same(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    asked = {"sampler": "random", "scheduler": "none", "epochs": 3, "cpus_per_trial": 0.5}
    run_search(settings(small_data, tmp_path, name="straight", trials=12, **asked))
    run_search(settings(small_data, tmp_path, name="grown", trials=6, **asked))
    resume_search(tmp_path / "grown", changes=SearchChanges(trials=12, concurrent=4))
    assert trials_of(tmp_path / "grown") == trials_of(tmp_path / "straight")


@pytest.mark.ray
def test_a_grown_search_stays_so_and_says_what_it_was(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    run_search(settings(small_data, tmp_path, trials=2, epochs=1, sampler="nsga2"))
    moved = shutil.copytree(small_data, tmp_path / "elsewhere")
    words = ["--trials", "3", "--concurrent", "1", "--cpus-per-trial", "0.5", "--data", str(moved), "--json"]
    grown = deepmlf("resume", tmp_path / "search", *words)
    assert grown.returncode == 0, grown.stderr
    assert sum(json.loads(grown.stdout.splitlines()[-1])["states"].values()) == 3
    manifest = open_experiment(tmp_path / "search").manifest
    assert (manifest.settings.trials, manifest.settings.concurrent, manifest.settings.cpus_per_trial) == (3, 1, 0.5)
    assert (manifest.settings.data, manifest.base["data.path"]) == (str(moved), str(moved))
    assert (manifest.began.trials, manifest.began.concurrent, manifest.began.data) == (2, 2, str(small_data))
    assert [set(change.before) for change in manifest.changes] == [{"trials", "concurrent", "cpus_per_trial", "data"}]
    assert sum(resume_search(tmp_path / "search", changes=SearchChanges(trials=4)).states.values()) == 4
    assert sum(resume_search(tmp_path / "search").states.values()) == 4
    assert len(open_experiment(tmp_path / "search").manifest.changes) == 2


@pytest.mark.ray
def test_a_grid_grows_by_its_next_points(ray_cluster: None, tmp_path: Path, small_data: Path) -> None:
    space = tmp_path / "mine.py"
    space.write_text(
        "def space(trial):\n"
        "    tokens = trial.suggest_int('model.num_fusion_tokens', 4, 12, step=2)\n"
        "    return {'model.num_fusion_tokens': tokens, 'model.fusion_depth': 1}\n"
    )
    asked = {"space": str(space), "sampler": "grid", "scheduler": "none", "epochs": 1}
    run_search(settings(small_data, tmp_path, name="straight", trials=4, **asked))
    run_search(settings(small_data, tmp_path, name="grown", trials=2, **asked))
    resume_search(tmp_path / "grown", changes=SearchChanges(trials=4))
    assert trials_of(tmp_path / "grown") == trials_of(tmp_path / "straight")
    summary = resume_search(tmp_path / "grown", changes=SearchChanges(trials=50))
    assert sum(summary.states.values()) == 5
    assert not summary.interrupted


@pytest.mark.ray
def test_what_a_resume_cannot_change_is_refused_and_nothing_is_written(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    run_search(settings(small_data, tmp_path, trials=3, epochs=2))
    experiment = tmp_path / "search"
    before = (experiment / "search.json").read_bytes()

    def refusal(*words: str) -> str:
        refused = deepmlf("resume", experiment, *words)
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.count("\n") == 1
        assert (experiment / "search.json").read_bytes() == before
        return refused.stderr.removeprefix("deepmlf: ").strip()

    assert refusal("--trials", "2") == "--trials 2: it has begun 3 already; ask for as many at least"
    assert refusal("--epochs", "4") == (
        "--epochs 4: the learning rates of its trials were scheduled over 2 epochs, and rungs and leaderboard compare "
        f"them by that; search anew with --epochs 4 --warm-start {experiment}, which learns from them"
    )
    assert refusal("--gpus-per-trial", "1.5").startswith("--gpus-per-trial 1.5: must be at most 1 or a whole number")
    other = tmp_path / "other"
    shutil.copytree(small_data, other)
    edit(other / "info.json", fingerprint="0" * 32)
    assert "is not the dataset that search began with" in refusal("--data", str(other))
    with FileLock(experiment / LOCK):
        assert refusal("--trials", "9") == f"{experiment}: another driver is running this search"
    assert deepmlf("resume", experiment, "--epochs", "2", "--trials", "3").returncode == 0
    assert (experiment / "search.json").read_bytes() == before
    with pytest.raises(SearchError, match="another driver has changed this search meanwhile; ask again"):
        _change_meanwhile(experiment)


def _change_meanwhile(experiment: Path) -> None:
    from deepmlf.tune.search import run

    plan = plan_resume(open_experiment(experiment), changes=SearchChanges(concurrent=1))
    resume_search(experiment, changes=SearchChanges(concurrent=3))
    run(plan)
