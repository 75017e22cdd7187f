"""How an experiment stands beside what simple models reach."""

import io
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.report.page import analyze
from deepmlf.analysis.standing import show_standing, standing_of
from deepmlf.training.reports import best_epoch, line_of, read_lines, read_reports
from deepmlf.tune.experiment.layout import MANIFEST, METRICS, trial_folder
from deepmlf.tune.experiment.stored import open_experiment
from tests.sealed import content_of, write


def beside(experiment: Path, **baselines: float) -> Path:
    """An experiment whose search found simple models of these validation errors."""
    tree = content_of(experiment / MANIFEST)
    known = {name: {"MAE": value, "Corr": 0.0} for name, value in baselines.items()}
    write(experiment / MANIFEST, tree | {"baselines": known})
    return experiment


def add(metrics: Path, more: dict[int, dict[str, float]]) -> None:
    """Have a trial report more in some of its epochs."""
    epochs = read_lines(metrics)
    metrics.write_text("".join(line_of(epoch | more.get(epoch["epoch"], {})) for epoch in epochs))


def printed(experiment: Path) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    show_standing(standing_of(open_experiment(experiment)), console)
    return console.export_text()


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_experiment(tmp_path_factory.mktemp("baselines"), 6)


def test_a_best_trial_that_beats_all_baselines_is_shown_beside_them(searched: Path) -> None:
    beside(searched, constant=9.0, words=8.5)
    assert "baselines, valid/MAE: constant 9.0000; words 8.5000" in printed(searched)
    assert "does not beat" not in printed(searched)
    report = analyze(searched, quiet=True)
    assert (report["baselines"], report["unbeaten"]) == ({"constant": 9.0, "words": 8.5}, [])
    page = Path(report["report"]).read_text()
    assert "the baseline words" in page
    assert "It does not beat" not in page


def test_a_best_trial_that_does_not_is_said_not_to(searched: Path) -> None:
    best = standing_of(open_experiment(searched)).ranked[0]
    beside(searched, constant=9.0, words=0.01, equal=best.values[0])
    assert f"trial {best.number}, the best, does not beat words; equal" in printed(searched)
    report = analyze(searched, quiet=True)
    assert report["unbeaten"] == ["words", "equal"]
    assert "It does not beat simpler models: words; equal." in Path(report["report"]).read_text()


def test_what_trials_report_stands_beside_them_too(searched: Path) -> None:
    """Of language models what their best trial has, wherever it is among its epochs; of text heads the best trial's."""
    opened = open_experiment(beside(searched, constant=9.0))
    first, second = (trial_folder(searched, trial.number) / METRICS for trial in standing_of(opened).ranked[:2])
    best = best_epoch(read_reports(first.parent), "valid/MAE", "minimize")
    assert best is not None
    with_head = {epoch: {"baseline/text_head/MAE": 0.01 if epoch == best.epoch else 5.0} for epoch in range(1, 99)}
    plain = first.read_text(), second.read_text()
    try:
        add(first, with_head)
        add(second, with_head | {1: {"baseline/language_model/MAE": 8.0, "baseline/language_model_av/MAE": 7.0}})
        standing = standing_of(open_experiment(searched))
        expected = {"constant": 9.0, "language model": 8.0, "language model, audio and vision": 7.0, "text head": 0.01}
        assert standing.baselines == expected
        assert list(standing.baselines) == list(expected)
        assert f"trial {standing.best_trial}, the best, does not beat text head" in printed(searched)
        add(first, {2: {"baseline/language_model/MAE": 6.0}})
        assert standing_of(open_experiment(searched)).baselines["language model"] == 6.0
        page = Path(analyze(searched, quiet=True)["report"]).read_text()
        assert "the baseline language model" in page
        assert "It does not beat simpler models: text head." in page
    finally:
        for path, text in zip((first, second), plain, strict=True):
            path.write_text(text)


def test_an_experiment_of_an_earlier_release_has_none(searched: Path) -> None:
    tree = content_of(searched / MANIFEST)
    del tree["baselines"]
    write(searched / MANIFEST, tree)
    assert "baselines, " not in printed(searched)
    assert analyze(searched, quiet=True)["baselines"] == {}
