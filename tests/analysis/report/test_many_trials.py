"""The report of many trials: all of them, or of very many the best and the latest."""

import re
from pathlib import Path

import pytest

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis import records as records_room
from deepmlf.analysis.records import load_records
from deepmlf.analysis.report import study_figures
from deepmlf.analysis.report.page import analyze
from deepmlf.tune.experiment.stored import open_experiment


def test_two_hundred_trials_are_all_there(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 200, scheduler="none")
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    assert re.findall(r'id="trial-(\d+)"', page) == [str(number) for number in range(200)]


def test_of_very_many_trials_the_best_and_the_latest_are_shown_and_all_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records_room, "LISTED_BEST", 25)
    monkeypatch.setattr(records_room, "LISTED_LATEST", 6)
    monkeypatch.setattr(study_figures, "_COMPARED", 20)
    monkeypatch.setattr(study_figures, "_DRAWN", 15)
    few = load_records(open_experiment(make_experiment(tmp_path, 31, failed=(2,), scheduler="none", name="few")))
    assert few.listed == few.trials  # the one that failed is neither among the best nor the latest
    assert not few.listed_line
    experiment = make_experiment(tmp_path, 60, scheduler="none")
    facts = analyze(experiment, quiet=True)
    records = load_records(open_experiment(experiment))
    page = Path(facts["report"]).read_text()
    best = {trial.number for trial in records.ranked[:25]}
    shown = sorted(best | set(range(54, 60)))
    assert re.findall(r'id="trial-(\d+)"', page) == [str(number) for number in shown]
    assert set(re.findall(r'href="#trial-(\d+)"', page)) == {str(number) for number in shown}
    assert len(facts["leaderboard"]) == 60
    assert f"{len(shown) - 20} more of the 60 trials" in page
    # Curves and two costs, each as a caption and for who cannot see the plot, and the table.
    assert page.count("Of 60 trials, the 25 best and the 6 latest. ") == 7
    assert "reached by 60 of 60 trials, 15 of them, drawn at random" in page
    assert "60 trainings that differ, 20 of them drawn at random," in page
    drawn = study_figures.parallel_coordinates(records, records.params).figure
    assert drawn is not None
    assert len(drawn.data) == 15
    again = study_figures.parallel_coordinates(records, records.params).figure
    assert drawn == again
