"""All trials beside each other, and what is said where one that was stopped leads."""

import io
import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import create_trial
from rich.console import Console

from benchmarks.parts.synthetic_experiment import make_experiment
from deepmlf.analysis.leaderboard import Leaderboard, leaderboard_of
from deepmlf.analysis.records import load_records
from deepmlf.analysis.report.page import analyze
from deepmlf.analysis.results import load_results
from deepmlf.analysis.standing import show_standing, standing_of
from deepmlf.tune.experiment.stored import open_experiment
from tests.analysis.report.depths import trained


def board_of(*curves: list[float], **options: Any) -> Leaderboard:
    records = trained(*curves, **options)
    # A trial that was stopped has its best epoch's value, as the study gives it.
    records.trials[:] = [
        replace(trial, value=min(curve)) if trial.state == "PRUNED" else trial
        for trial, curve in zip(records.trials, curves, strict=True)
    ]
    return leaderboard_of(records, {trial.number: create_trial(value=0.0) for trial in records.trials}, [])


def printed(experiment: Path, width: int = 80) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    show_standing(standing_of(open_experiment(experiment)), console)
    return console.export_text()


def test_trials_rank_by_their_best_epoch_and_show_how_far_they_got() -> None:
    board = board_of([5, 4, 3, 2], [5, 4], [6, 2.5], [9, 8], states={3: "FAIL"})
    assert [(row.rank, row.trial, row.epochs, row.is_whole) for row in board.rows] == [
        (1, 0, 4, True), (2, 2, 2, False), (3, 1, 2, False), (None, 3, 2, False),
    ]  # fmt: skip
    assert [row.at_common for row in board.rows] == [4.0, 2.5, 4.0, 8.0]
    assert board.lead_of_a_stopped_trial is None


def test_that_a_stopped_trial_leads_is_said() -> None:
    assert board_of([5, 4, 3, 2], [5, 1.5], [6, 2.5]).lead_of_a_stopped_trial == (
        "trial 1, the best, was stopped at fusion epoch 2 of 4; of those trained to their end trial 0 is the best "
        "(valid/MAE 2.0000); `deepmlf confirm` trains the best settings to their end"
    )
    assert board_of([5, 1.5], [6, 2.5]).lead_of_a_stopped_trial == (
        "trial 0, the best, was stopped at fusion epoch 2 of 4; no trial was trained to its end, `deepmlf confirm` "
        "trains the best settings so"
    )


def test_a_normal_search_lists_all_its_trials(tmp_path: Path) -> None:
    """Of twelve trials under ASHA a few are complete; the others were not on the screen's tables or in its plots."""
    experiment = make_experiment(tmp_path, 12, epochs=9, space="demo")
    text, states = printed(experiment), standing_of(open_experiment(experiment)).states
    assert states["PRUNED"] > 6
    table = itertools.takewhile(str.strip, text.partition(" ─")[2].splitlines()[1:])
    rows = [re.split(r"\s{2,}", line.strip()) for line in table]
    assert [row[0] for row in rows] == [str(rank) for rank in range(1, 13)]
    assert sum("PRUNED" in row[2] for row in rows) == states["PRUNED"]
    assert all(row[3].endswith(" of 9") for row in rows)
    assert "all compare at fusion epoch 1, reached by 12 of 12 trials" in text
    assert "importances need" not in text


@pytest.mark.parametrize("width", [60, 80, 200])
def test_nothing_is_cut_in_a_terminal_of_any_width(tmp_path: Path, width: int) -> None:
    objectives = ["valid/Has0_acc_2", "model/trained_parameters"]
    experiment = make_experiment(tmp_path, 12, epochs=9, space="demo", objectives=objectives)
    text, table = printed(experiment, width), load_results(experiment)
    assert "…" not in text
    largest = max(table["model/trained_parameters"].to_pylist())
    assert f"{largest:.0f}" in text
    assert "model.fusion_depth=" in text
    assert "curriculum.name=" in text


def test_trials_that_nobody_trains_are_unfinished(tmp_path: Path) -> None:
    standing = standing_of(open_experiment(make_experiment(tmp_path, 6, epochs=6, running=2)))
    console = Console(width=80, record=True, file=io.StringIO())
    show_standing(standing, console, nobody_trains=True)
    text = console.export_text()
    assert "2 unfinished" in text
    assert "RUNNING" not in text
    show_standing(standing, console)
    assert "2 RUNNING" in console.export_text()


def test_a_long_search_says_where_the_others_are(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 23, epochs=3, space="demo")
    assert "3 more trials are in the report of `deepmlf analyze`" in printed(experiment)
    page = Path(analyze(experiment, quiet=True)["report"]).read_text()
    assert "The other 3 trials" in page
    board = page.partition('<h3 id="leaderboard">')[2].partition("<h2")[0]
    assert board.count('<a href="#trial-') == 23


def test_scripts_are_told_the_leaderboard(tmp_path: Path) -> None:
    facts = analyze(make_experiment(tmp_path, 12, epochs=9, space="demo"), quiet=True)
    assert [row["rank"] for row in facts["leaderboard"]] == list(range(1, 13))
    assert facts["common_fidelity"] == {"fusion_epochs": 1, "reached_by": 12, "of": 12}
    assert facts["leaderboard"][0]["trial"] == facts["best_trial"]


def test_a_front_comes_first(tmp_path: Path) -> None:
    experiment = make_experiment(tmp_path, 12, objectives=["valid/Corr", "model/trained_parameters"], epochs=4)
    standing = standing_of(open_experiment(experiment))
    rows = standing.leaderboard.rows
    assert {row.trial for row in rows[: len(standing.front)]} == set(standing.front)
    assert [len(row.values) for row in rows] == [2] * 12
    assert "Pareto front first" in printed(experiment)
    best = max(rows, key=lambda row: row.values[0])
    assert (standing.best_trial, standing.value) == (best.trial, best.values[0])


@pytest.mark.parametrize("running", [0, 1])
def test_a_trial_that_failed_or_runs_has_no_rank(tmp_path: Path, running: int) -> None:
    experiment = make_experiment(tmp_path, 6, failed=(1,), refused=(2,), running=running, epochs=4)
    board = standing_of(open_experiment(experiment)).leaderboard
    assert {row.trial for row in board.rows if row.rank is None} == {1, 2} | ({5} if running else set())
    assert {row.trial for row in board.rows} == set(range(6))
    assert load_records(open_experiment(experiment)).trials[2].reports == ()
