"""How an experiment stands beside what simple models reach."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.report.page import analyze
from deepmlf.analysis.standing import show_standing, standing_of
from deepmlf.tune.experiment.layout import MANIFEST
from deepmlf.tune.experiment.stored import open_experiment


def beside(experiment: Path, **baselines: float) -> Path:
    """An experiment whose search found simple models of these validation errors."""
    tree = json.loads((experiment / MANIFEST).read_text())
    known = {name: {"MAE": value, "Corr": 0.0} for name, value in baselines.items()}
    (experiment / MANIFEST).write_text(json.dumps(tree | {"baselines": known}))
    return experiment


def printed(experiment: Path) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    show_standing(standing_of(open_experiment(experiment)), console)
    return console.export_text()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("baselines"), 6)


def test_a_best_trial_that_beats_all_baselines_is_shown_beside_them(searched: Path) -> None:
    beside(searched, constant=9.0, words=8.5)
    assert "baselines, valid/MAE: constant 9.0000, words 8.5000" in printed(searched)
    assert "does not beat" not in printed(searched)
    report = analyze(searched, quiet=True)
    assert (report["baselines"], report["unbeaten"]) == ({"constant": 9.0, "words": 8.5}, [])
    page = Path(report["report"]).read_text()
    assert "the baseline words" in page
    assert "It does not beat" not in page


def test_a_best_trial_that_does_not_is_said_not_to(searched: Path) -> None:
    best = standing_of(open_experiment(searched)).ranked[0]
    beside(searched, constant=9.0, words=0.01, equal=best.values[0])
    assert f"trial {best.number}, the best, does not beat words, equal" in printed(searched)
    report = analyze(searched, quiet=True)
    assert report["unbeaten"] == ["words", "equal"]
    assert "It does not beat what needs no language model: words, equal." in Path(report["report"]).read_text()


def test_an_experiment_of_an_earlier_release_has_none(searched: Path) -> None:
    tree = json.loads((searched / MANIFEST).read_text())
    del tree["baselines"]
    (searched / MANIFEST).write_text(json.dumps(tree))
    assert "baselines, " not in printed(searched)
    assert analyze(searched, quiet=True)["baselines"] == {}
