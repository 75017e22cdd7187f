"""Experiments of earlier versions: opened, resumed, analysed, exported; by the command line, as users do it.

The numbers are what the version that made an experiment said of it; see the README beside each.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from deepmlf.training.reports import read_lines
from tests.command import deepmlf

FIXTURE = Path(__file__).resolve().parent / "fixtures" / "experiment_0_1_0"
DATA = "/srv/deepmlf/data"
"""Stands for the dataset's path in it."""
FINISHED = {0: ("COMPLETE", 0.4779501458009084), 1: ("PRUNED", 0.5944831520318985)}
CONTINUED = [0.58319050, 0.64379123, 0.43609482049942017, 0.50551074, 0.48928119, 0.48462906]
"""Trial 2's MAE by fusion epoch, as the earlier version's own resume ended it."""
PREDICTED = {
    0: [0.51220435, 0.39205128, -0.06381342, -0.05261895, 0.05323014, 0.07505420],
    2: [0.48278287, 0.31445014, 0.14173138, -0.10040775, -0.02159445, -0.03892361],
}
"""Sentiment of the test split by a trial's best epoch."""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """A copy that knows where its dataset is."""
    shutil.copytree(FIXTURE, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "small"
    for path in (folder / "search.json", *folder.glob("trials/*/config.json")):
        path.write_text(path.read_text().replace(f'"{DATA}"', json.dumps(str(tmp_path / "data"))))
    return folder


def said(*arguments: str | Path) -> dict[str, Any]:
    """The JSON object that a command ends with."""
    result = deepmlf(*arguments, "--json")
    assert result.returncode == 0, result.stderr
    facts: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return facts


def rows_of(experiment: Path, *trials: int) -> list[dict[str, Any]]:
    """The rows of these trials in the table of results."""
    return [row for row in pq.read_table(experiment / "results.parquet").to_pylist() if row["trial"] in trials]


def metrics_of(trial: Path) -> list[dict[str, Any]]:
    return read_lines(trial / "metrics.jsonl")


def assert_finished_stand(experiment: Path) -> None:
    rows = rows_of(experiment, *FINISHED)
    assert {row["trial"]: (row["state"], row["objective"]) for row in rows} == FINISHED


def assert_predicts(model: Path, trial: int, out: Path) -> None:
    said("predict", model, out.parent / "data", "--out", out)
    sentiment = pq.read_table(out).column("sentiment").to_pylist()
    assert sentiment == pytest.approx(PREDICTED[trial], abs=1e-4)


def test_it_opens(experiment: Path, tmp_path: Path) -> None:
    facts = said("analyze", experiment)
    assert (facts["best_trial"], facts["metric"], facts["value"]) == (0, "valid/MAE", FINISHED[0][1])
    assert facts["best_folder"] == str(experiment / "trials" / "0000_small")
    states = {state: count for state, count in facts["states"].items() if count}
    assert states == {"COMPLETE": 1, "PRUNED": 1, "RUNNING": 1}
    assert (facts["trials_unfinished"], facts["fusion_epochs_spent"]) == (3, 12)
    assert Path(facts["report"]).is_file()
    assert_finished_stand(experiment)
    assert_predicts(experiment / "trials" / "0000_small", 0, tmp_path / "predictions.parquet")


@pytest.mark.ray
def test_it_is_resumed_to_its_end(ray_cluster: None, experiment: Path, tmp_path: Path) -> None:
    said("analyze", experiment)
    finished, trial = rows_of(experiment, *FINISHED), experiment / "trials" / "0002_small"
    noted = metrics_of(trial)
    saved = json.loads((trial / "checkpoints" / "epoch_000006" / "state.json").read_text())["metrics"]
    assert [metrics["epoch"] for metrics in noted] == [2, 3, 4, 5]

    summary = said("resume", experiment)
    facts = said("analyze", experiment)
    assert facts["states"]["COMPLETE"] + facts["states"]["PRUNED"] == 5
    assert facts["trials_unfinished"] == 0
    assert sorted(path.name for path in experiment.glob("trials/*/")) == [f"{number:04d}_small" for number in range(5)]
    assert {row["trial"] for row in rows_of(experiment, 3, 4) if row["fusion_epoch"] is not None} == {3, 4}
    for told in (summary, facts):
        assert (told["best_trial"], told["value"]) == (2, min(CONTINUED))

    now = rows_of(experiment, *FINISHED)
    assert [{name: row[name] for name in finished[0]} for row in now] == finished
    later = {name: value for row in now for name, value in row.items() if name not in finished[0]}
    assert set(later.values()) == {None}  # columns of what only this release reports, of the trials that went on
    assert_finished_stand(experiment)

    continued = metrics_of(trial)
    assert continued[:4] == noted
    # Measured seconds and all: training that epoch again would have taken other ones.
    assert continued[4] == saved
    assert [metrics["epoch"] for metrics in continued[5:]] == [7, 8]
    rows = rows_of(experiment, 2)
    assert {row["state"] for row in rows} == {"COMPLETE"}
    # Weights, moments, schedule and random numbers are taken over: without any of them the last two differ by 0.01.
    assert [row["valid/MAE"] for row in rows] == pytest.approx(CONTINUED, abs=1e-3)
    # The audiovisual stage comes from the store, where the earlier version put it.
    assert metrics_of(experiment / "trials" / "0003_small")[0]["curriculum/av_reused"] == 1

    exported = said("export", facts["best_folder"], tmp_path / "export")
    assert exported["valid"]["MAE"] == min(CONTINUED)
    assert_predicts(tmp_path / "export", 2, tmp_path / "predictions.parquet")
