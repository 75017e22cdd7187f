"""Metrics of the user's own: kept with a dataset, computed wherever it is, with a direction that everything knows."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from deepmlf.cli import cli
from deepmlf.data.dataset import Dataset, add_metrics
from deepmlf.data.own_metrics import OwnMetrics
from deepmlf.errors import DataError, SearchError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.training.baselines import baselines
from deepmlf.training.metrics import compute_metrics, direction_of, metric_names
from deepmlf.tune.experiment.manifest import write_manifest
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.plan import plan_resume, plan_search
from tests.training.small_trial import run
from tests.tune.experiments import settings

SOURCE = """
import numpy as np

def worst(predictions, labels):
    return np.abs(predictions - labels).max()

def concordance(predictions, labels):
    covariance = np.cov(predictions, labels, bias=True)[0, 1]
    return 2 * covariance / (predictions.var() + labels.var() + (predictions.mean() - labels.mean()) ** 2)

def correlation(predictions, labels):
    return np.corrcoef(predictions, labels)[0, 1]

METRICS = {"worst": (worst, "minimize"), "CCC": (concordance, "maximize"), "r": (correlation, "maximize")}
"""


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """A dataset with three metrics of its own."""
    folder = shutil.copytree(small_data, tmp_path / "data")
    (tmp_path / "mine.py").write_text(SOURCE)
    result = CliRunner().invoke(cli, ["data", "metrics", str(folder), str(tmp_path / "mine.py"), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout.splitlines()[-1]) == {
        "metrics": {"worst": "minimize", "CCC": "maximize", "r": "maximize"}
    }
    return folder


def test_they_are_computed_beside_the_protocols(data: Path, small_data: Path) -> None:
    dataset = Dataset.open(data)
    task = dataset.info.task
    assert metric_names(task)[-3:] == ("worst", "CCC", "r")
    assert [direction_of(f"valid/{name}", task.own) for name in ("worst", "CCC", "MAE")] == [
        "minimize", "maximize", "minimize",
    ]  # fmt: skip
    labels, predictions = np.array([1.0, -1.0, 2.0]), np.array([1.0, -0.5, 1.0])
    found = compute_metrics(task, predictions, labels, dataset.own_metrics)
    assert found["worst"] == 1.0
    assert found["r"] == pytest.approx(found["Corr"], abs=1e-6)
    assert dataset.info.fingerprint == Dataset.open(small_data).info.fingerprint  # the contents are the same


def test_a_trial_is_selected_by_one_and_evaluated_by_all(data: Path, tmp_path: Path) -> None:
    reports = run(tmp_path / "trial", data, training__select_by="worst", training__lr_fusion=3e-3)
    values = {report["fusion_epoch"]: report["valid/worst"] for report in reports if "fusion_epoch" in report}
    kept = evaluate_trial(tmp_path / "trial", split="valid")
    assert kept["worst"] == pytest.approx(min(values.values()), abs=1e-5)
    assert {"CCC", "r", "MAE"} <= set(kept)


def test_a_search_knows_their_direction_and_keeps_it(data: Path, small_data: Path, tmp_path: Path) -> None:
    plan = plan_search(settings(data, tmp_path, objectives=["valid/worst"]))
    assert [(one.name, one.direction) for one in plan.experiment.objectives] == [("valid/worst", "minimize")]
    assert plan.experiment.objectives[0].is_better(1.0, 2.0)
    folder = plan.experiment.folder
    folder.mkdir()
    write_manifest(folder, plan.experiment.manifest)
    assert open_experiment(folder).objectives == plan.experiment.objectives  # without the dataset
    assert plan_resume(open_experiment(folder)).space.base == plan.space.base
    (tmp_path / "mine.py").write_text(SOURCE + "# changed\n")
    add_metrics(data, tmp_path / "mine.py")
    with pytest.raises(SearchError, match="has other metrics of your own than search began with; start a new search$"):
        plan_resume(open_experiment(folder))
    with pytest.raises(SearchError, match="--objective valid/worst: no such metric; "):
        plan_search(settings(small_data, tmp_path, objectives=["valid/worst"]))


def test_a_baseline_lacks_what_is_undefined_of_it(data: Path, small_data: Path) -> None:
    own, plain = baselines(Dataset.open(data)), baselines(Dataset.open(small_data))
    assert set(own["constant"]) - set(plain["constant"]) == {"worst", "CCC"}
    assert set(own["words"]) - set(plain["words"]) == {"worst", "CCC", "r"}
    assert own["words"]["r"] == pytest.approx(plain["words"]["Corr"], abs=1e-5)


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("import nonsuch", "mine.py: ModuleNotFoundError: No module named 'nonsuch'"),
        ("metrics = {}", "mine.py: defines no METRICS = {name: (function, direction)}"),
        ("METRICS = {}", "mine.py: defines no METRICS = {name: (function, direction)}"),
        ("METRICS = {'a b': (max, 'maximize')}", "mine.py: METRICS: 'a b': a name has letters, digits, `_` and `-`"),
        ("METRICS = {'a/b': (max, 'maximize')}", "mine.py: METRICS: 'a/b': a name has letters, digits, `_` and `-`"),
        ("METRICS = {'a': (1, 'maximize')}",
         "mine.py: METRICS['a'] must be a function and one of minimize, maximize, but got (1, 'maximize')"),
        ("METRICS = {'a': (max, 'up')}", "mine.py: METRICS['a'] must be a function and one of minimize, maximize, but"),
        ("METRICS = {'MAE': (max, 'maximize')}",
         "mine.py: METRICS: 'MAE': the dataset has a metric of this name; choose another one"),
    ],
)  # fmt: skip
def test_what_is_no_metric_is_refused(small_data: Path, tmp_path: Path, source: str, told: str) -> None:
    folder = shutil.copytree(small_data, tmp_path / "data")
    before = (folder / "info.json").read_bytes()
    (tmp_path / "mine.py").write_text(source)
    with pytest.raises(DataError) as refused:
        add_metrics(folder, tmp_path / "mine.py")
    assert str(refused.value).startswith(f"{tmp_path}/{told}")
    assert (folder / "info.json").read_bytes() == before
    assert not (folder / "metrics.py").exists()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("1 / 0", "mine.py: a: ZeroDivisionError: division by zero"),
        ("p", "mine.py: a: TypeError: only "),
        ("float('nan')", "mine.py: a: is nan; a metric must be a finite number, of predictions that are all the same,"),
    ],
)
def test_what_a_metric_does_wrong_is_told_by_its_name(body: str, told: str) -> None:
    own = OwnMetrics(f"METRICS = {{'a': (lambda p, l: {body}, 'minimize')}}", "mine.py")
    with pytest.raises(DataError) as refused:
        own.compute(np.zeros(3), np.zeros(3))
    assert str(refused.value).startswith(told)


def test_a_metric_cannot_change_what_others_see() -> None:
    source = (
        "def spoil(p, l):\n    p[:] = 9\n    l[:] = 9\n    return 0\n"
        "METRICS = {'spoil': (spoil, 'minimize'), 'mean': (lambda p, l: p.mean() - l.mean(), 'minimize')}"
    )
    predictions, labels = np.zeros(3), np.ones(3)
    assert OwnMetrics(source, "mine.py").compute(predictions, labels) == {"spoil": 0.0, "mean": -1.0}
    assert predictions.sum() == 0
