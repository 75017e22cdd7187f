"""Trials of one setting count as one, wherever trials are counted."""

from pathlib import Path

import pytest

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.distinct import ranked_settings, repeats_of, settings_of
from deepmlf.analysis.records import load_records
from deepmlf.analysis.report.page import analyze
from deepmlf.tune.experiment.stored import open_experiment

FOUR_POINTS = """
def space(trial):
    return {"model.fusion_depth": trial.suggest_categorical("model.fusion_depth", [1, 2]),
            "model.num_fusion_tokens": trial.suggest_categorical("model.num_fusion_tokens", [2, 4])}
"""
WITHOUT_EFFECT = """
def space(trial):
    return {"model.fusion_depth": trial.suggest_categorical("model.fusion_depth", [1, 2]),
            "model.fusion_spacing": "top", "model.fusion_start": trial.suggest_float("model.fusion_start", 0.1, 0.8),
            "model.ffn": "full", "model.lora_rank": trial.suggest_int("model.lora_rank", 8, 512)}
"""


def made(tmp_path: Path, source: str, trials: int, **options: object) -> Path:
    space = tmp_path / "space.py"
    space.write_text(source)
    options = {"scheduler": "none", "epochs": 2} | options
    return make_experiment(tmp_path, trials, space=str(space), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("source", "count"), [(FOUR_POINTS, 4), (WITHOUT_EFFECT, 2)])
def test_repeats_are_one_setting(tmp_path: Path, source: str, count: int) -> None:
    experiment = open_experiment(made(tmp_path, source, 16))
    ranked = ranked_settings(experiment)
    assert [len(trials) for trials in ranked] == [1] * count
    values = [trials[0].values[0] for trials in ranked]
    assert values == sorted(values)


def test_of_repeats_the_first_complete_one_counts(tmp_path: Path) -> None:
    experiment = open_experiment(made(tmp_path, FOUR_POINTS, 16, failed=(0, 1)))
    trials = experiment.trials()
    settings = settings_of(experiment, trials)
    repeats = repeats_of(settings, trials)
    assert len(repeats) == 12
    assert all(settings[number] == settings[first] for number, first in repeats.items())
    assert not {0, 1} & set(repeats.values())


def test_seeds_of_a_grid_are_one_setting_ranked_by_its_mean(tmp_path: Path) -> None:
    experiment = open_experiment(make_experiment(tmp_path, 40, space="ablations/depth", scheduler="none", epochs=2))
    ranked = ranked_settings(experiment)
    assert len(ranked) == 6
    means = [sum(trial.values[0] for trial in trials) / len(trials) for trials in ranked]
    assert means == sorted(means)
    for trials in ranked:
        assert len({trial.params["model.fusion_depth"] for trial in trials}) == 1
        seeds = [trial.params["training.seed"] for trial in trials]
        assert len(seeds) == len(set(seeds))
        assert [trial.values[0] for trial in trials] == sorted(trial.values[0] for trial in trials)


def test_what_could_not_be_built_is_no_setting(tmp_path: Path) -> None:
    experiment = open_experiment(make_experiment(tmp_path, 6, refused=(1, 4), scheduler="none"))
    assert set(settings_of(experiment, experiment.trials())) == {0, 2, 3, 5}


def test_repeats_are_told_and_count_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = made(tmp_path, FOUR_POINTS, 8)
    facts = analyze(folder)
    repeats = facts["repeats"]
    assert len(repeats) == 8 - len(ranked_settings(open_experiment(folder)))
    printed = capsys.readouterr().out
    number, first = next(iter(repeats.items()))
    assert f"trained the same as an earlier trial, and count once: {number} as {first}" in printed
    page = Path(facts["report"]).read_text()
    assert page.partition('<table id="all">')[2].count("COMPLETE (as trial ") == len(repeats)
    records = load_records(open_experiment(folder))
    assert len(records.counted) == 8 - len(repeats)
    assert f"the median of {len(records.counted)} complete trials" in page


def test_repeats_are_not_on_the_front_twice(tmp_path: Path) -> None:
    facts = analyze(made(tmp_path, FOUR_POINTS, 16, objectives=["valid/MAE", "model/trained_parameters"]), quiet=True)
    assert facts["front"]
    assert not set(facts["front"]) & set(facts["repeats"])
