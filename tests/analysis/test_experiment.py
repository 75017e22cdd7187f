"""An experiment as an object: its tables, its report, a notebook's view of it."""

import asyncio
import html
import re
from pathlib import Path

import pyarrow as pa
import pytest

import deepmlf
from benchmarks.parts.synthetic_experiment import make_experiment

OBJECTIVES = ["valid/MAE", "model/trained_parameters"]


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> deepmlf.Experiment:
    """Twelve trials of all states, of a space with conditional parameters."""
    folder = make_experiment(tmp_path_factory.mktemp("experiment"), 12, epochs=6, failed=(1,), running=1)
    return deepmlf.Experiment(folder)


def test_trials_are_rows_best_first(experiment: deepmlf.Experiment) -> None:
    table = experiment.trials
    assert isinstance(table, pa.Table)
    rows = table.to_pylist()
    assert sorted(row["trial"] for row in rows) == list(range(12))
    ranked = [row for row in rows if row["rank"] is not None]
    assert [row["rank"] for row in ranked] == list(range(1, len(ranked) + 1))
    values = [row["valid/MAE"] for row in ranked]
    assert values == sorted(values)
    best = experiment.best
    assert best is not None
    assert (rows[0]["trial"], rows[0]["valid/MAE"]) == (best.number, best.value)
    assert {name: value for name, value in rows[0].items() if name in best.params} == best.params
    failed = next(row for row in rows if row["state"] == "FAIL")
    assert failed["rank"] is None
    assert failed["fail_reason"]


def test_curves_are_rows_by_fusion_epoch(experiment: deepmlf.Experiment) -> None:
    curves = experiment.curves
    assert {"trial", "fusion_epoch", "valid/MAE", "seconds", "training.lr_av"} <= set(curves.column_names)
    assert curves.num_rows > experiment.trials.num_rows
    reached = {row["trial"]: row["fusion_epochs"] for row in experiment.trials.to_pylist()}
    for trial, epochs in reached.items():
        assert max(row["fusion_epoch"] or 0 for row in curves.to_pylist() if row["trial"] == trial) == epochs


def test_both_become_data_frames(experiment: deepmlf.Experiment) -> None:
    pandas = pytest.importorskip("pandas")
    trials, curves = experiment.trials.to_pandas(), experiment.curves.to_pandas()
    assert isinstance(trials, pandas.DataFrame)
    assert trials.loc[trials["rank"] == 1, "trial"].item() == experiment.best.number  # type: ignore[union-attr]
    assert curves.groupby("trial")["valid/MAE"].min().notna().any()


def test_two_objectives_have_a_column_each(tmp_path: Path) -> None:
    made = make_experiment(tmp_path, 6, epochs=4, objectives=OBJECTIVES, scheduler="none")
    assert set(OBJECTIVES) <= set(deepmlf.Experiment(made).trials.column_names)


def test_nothing_yet_is_an_empty_view(tmp_path: Path) -> None:
    made = deepmlf.Experiment(make_experiment(tmp_path, 2, epochs=4, refused=(0, 1)))
    assert made.best is None
    assert made.trials.column("state").to_pylist() == ["FAIL", "FAIL"]
    assert "FAIL" in made._repr_html_()


def test_a_notebook_shows_the_page_and_the_best_trials(experiment: deepmlf.Experiment, tmp_path: Path) -> None:
    report = experiment.report()
    assert report == str(Path(experiment.place) / "report" / "index.html")
    page = Path(report).read_text()
    frame = report._repr_html_()
    [source] = re.findall(r'srcdoc="([^"]*)"', frame)
    assert html.unescape(source) == page
    elsewhere = experiment.report(tmp_path / "out")
    assert elsewhere.file == tmp_path / "out" / "report" / "index.html"
    assert elsewhere.file.is_file()

    shown = experiment._repr_html_()
    assert shown.count("<tr>") == 11  # a head and ten trials
    assert "2 more trials in .trials" in shown
    assert "valid/MAE" in shown


def test_what_an_experiment_says_is_escaped_in_a_notebook(tmp_path: Path) -> None:
    made = make_experiment(tmp_path / "<b>", 2, epochs=4)
    assert "<b>" not in deepmlf.Experiment(made)._repr_html_()


@pytest.mark.ray
def test_it_is_searched_resumed_and_confirmed_in_a_running_event_loop(
    ray_cluster: None, tmp_path: Path, small_data: Path
) -> None:
    """As Jupyter calls it: from a coroutine, on the main thread."""
    (tmp_path / "mine.py").write_text(
        'BASE = {"model.fusion_depth": 1, "model.av_frames": 6, "model.av_layers": 1, "curriculum.name": "joint"}\n'
        "def space(trial):\n"
        '    return {"model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 4, 5)}\n'
    )

    async def cell() -> deepmlf.Experiment:
        found = deepmlf.search(
            small_data, space=str(tmp_path / "mine.py"), lm="tiny-random", trials=2, epochs=1, scheduler="none",
            storage=str(tmp_path), name="first", quiet=True,
        )  # fmt: skip
        await asyncio.sleep(0)
        assert found.resume().place == found.place
        assert len(found.confirm(top=2, seeds=2)["settings"]) == 2
        return found

    assert asyncio.run(cell()).trials.num_rows == 2
