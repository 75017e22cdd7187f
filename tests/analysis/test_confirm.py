"""Confirmation: statistics on numbers worked out by hand, and a real search whose best settings are trained again."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from deepmlf.analysis.verdict import compare, confirm
from deepmlf.errors import DataError, SearchError
from deepmlf.tune import search
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings

(MAE,) = make_objectives(["valid/MAE"])


def measured(*settings: list[float]) -> dict[int, dict[int, dict[str, float]]]:
    """MAE of each setting and seed; settings are numbered 10, 11, …"""
    return {
        10 + index: {seed: {"MAE": value} for seed, value in enumerate(values)} for index, values in enumerate(settings)
    }


def test_mean_deviation_and_paired_interval() -> None:
    report = compare(measured([1.0, 2.0, 3.0], [2.0, 4.0, 6.0]), MAE)
    first = report["settings"][0]
    assert (first["trial"], first["seeds"]) == (10, [0, 1, 2])
    assert first["mean"]["MAE"] == pytest.approx(2.0)
    assert first["std"]["MAE"] == pytest.approx(1.0)
    # Differences -1, -2, -3: standard error 1/√3, and Student's t of 2 degrees of freedom is 4.3027 at 97.5 %.
    difference = report["differences"]["MAE"]
    assert difference["mean"] == pytest.approx(-2.0)
    assert difference["low"] == pytest.approx(-2 - 4.3027 / 3**0.5, abs=1e-4)
    assert difference["high"] == pytest.approx(-2 + 4.3027 / 3**0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("settings", "verdict"),
    [
        (([1.0, 1.1, 1.2], [1.5, 1.6, 1.65]), "holds"),
        (([1.0, 1.1, 1.2], [1.5, 1.6, 1.7], [0.9, 1.2, 1.0]), "undecided"),
        (([1.0, 1.1, 1.2], [1.5, 1.6, 1.7], [0.5, 0.61, 0.7]), "fails"),
    ],
)
def test_the_verdict_looks_at_every_rival(settings: tuple[list[float], ...], verdict: str) -> None:
    assert compare(measured(*settings), MAE)["verdict"] == verdict


def test_a_metric_that_is_better_when_higher_turns_the_verdict_round() -> None:
    (correlation,) = make_objectives(["valid/Corr"])
    values = {
        number: {seed: {"Corr": value + seed / 100} for seed in range(3)} for number, value in ((0, 0.8), (1, 0.5))
    }
    assert compare(values, correlation)["verdict"] == "holds"


def test_seeds_that_failed_are_left_out_and_too_few_are_refused() -> None:
    values = measured([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])
    del values[11][0]
    assert compare(values, MAE)["differences"]["MAE"]["mean"] == pytest.approx(-2.5)
    del values[11][1]
    with pytest.raises(
        SearchError, match="fewer than two seeds finished for trial 10 and another; see the trials' err"
    ):
        compare(values, MAE)
    values[12] = measured([1.5, 2.5, 3.5])[10]
    report = compare(values, MAE)
    assert [setting["trial"] for setting in report["settings"]] == [10, 12]
    assert report["differences"]["MAE"]["mean"] == pytest.approx(-0.5)


@pytest.fixture(scope="module")
def searched(ray_cluster: None, small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A real search over a dataset whose test split could not be read while it ran; its data and its folder."""
    root = tmp_path_factory.mktemp("confirm")
    data = root / "data"
    shutil.copytree(small_data, data)
    (data / "test.arrow").write_bytes(b"whoever opens this fails")
    space = root / "mine.py"
    space.write_text(
        "BASE = {'model.max_text_len': 16, 'model.av_frames': 6, 'model.av_layers': 1, 'model.lora_rank': 4,\n"
        "        'curriculum.name': 'joint', 'model.fusion_depth': 1}\n\n\n"
        "def space(trial):\n"
        "    name = 'model.num_fusion_tokens'\n"
        "    return {name: trial.suggest_int(name, 2, 5)}\n"
    )
    settings = {
        "data": str(data), "space": str(space), "lm": "tiny-random", "trials": 3, "epochs": 2, "concurrent": 2,
        "scheduler": "none", "storage": str(root), "name": "search", "quiet": True, "cache_gb": 0.0,
    }  # fmt: skip
    summary = run_search(SearchSettings.model_validate(settings))
    assert summary.states["COMPLETE"] == 3
    shutil.copy(small_data / "test.arrow", data / "test.arrow")
    return data, root / "search"


@pytest.mark.ray
def test_a_search_never_reads_the_test_split_and_confirm_does(
    searched: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, experiment = searched
    report = confirm(experiment, top=2, seeds=2, quiet=True)
    assert [len(setting["seeds"]) for setting in report["settings"]] == [2, 2]
    assert report["settings"][0]["seeds"] == [1, 2]  # the search's own seed, 0, is not among them
    assert set(report["settings"][0]["mean"]) == set(report["differences"])
    assert report["verdict"] in ("holds", "undecided", "fails")
    trials = "-".join(str(setting["trial"]) for setting in report["settings"])
    assert json.loads((experiment / f"confirm-{trials}-x2" / "confirm.json").read_text()) == report
    assert confirm(experiment, top=2, seeds=2, quiet=True) == report  # asked again, nothing is trained again
    whole = (data / "test.arrow").read_bytes()

    def spoil_the_data(*arguments: Any, **options: Any) -> Any:  # once it has been found whole
        (data / "test.arrow").unlink()
        return search.run(*arguments, **options)

    monkeypatch.setattr("deepmlf.tune.retrain.run", spoil_the_data)
    with pytest.raises(DataError) as caught:
        confirm(experiment, top=2, seeds=2, quiet=True)
    assert re.fullmatch(r".*test\.arrow: missing or torn.*", str(caught.value))  # one line, though of another process
    assert "in evaluate_trial" in caught.value.__notes__[0]  # what --debug shows
    with pytest.raises(DataError, match=r"test\.arrow: missing or torn") as caught:
        confirm(experiment, top=3, seeds=3, quiet=True)
    assert not list(experiment.glob("confirm-*-*-*-x3"))  # refused before anything is trained
    (data / "test.arrow").write_bytes(whole)


@pytest.mark.ray
def test_a_retraining_that_stopped_gets_no_verdict(
    searched: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, experiment = searched
    whole = (data / "valid.arrow").read_bytes()
    create_study = search.create_study

    def spoil_the_data(*arguments: Any) -> Any:  # once it has been found whole
        (data / "valid.arrow").unlink()
        return create_study(*arguments)

    monkeypatch.setattr(search, "create_study", spoil_the_data)
    with pytest.raises(SearchError) as caught:
        confirm(experiment, top=3, seeds=2, quiet=True)
    (data / "valid.arrow").write_bytes(whole)
    (folder,) = experiment.glob("confirm-*-*-*-x2")
    reason = rf"node \S+: {data}/valid\.arrow: missing or torn .*; mend that and resume"
    again = rf"{folder}: the retraining stopped \({reason}\); ask for the same again to go on"
    assert re.fullmatch(again, str(caught.value))


@pytest.mark.ray
def test_one_complete_trial_cannot_be_compared(searched: tuple[Path, Path]) -> None:
    with pytest.raises(SearchError, match="has 1 complete trials; a comparison needs two at least"):
        confirm(searched[1], top=1, seeds=2, quiet=True)
