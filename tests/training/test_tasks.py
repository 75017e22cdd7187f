"""Training, export and prediction where labels are classes, or numbers of a range of one's own."""

import json
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pytest
import torch
from click.testing import CliRunner

from deepmlf.analysis.report.explain_page import explain_page
from deepmlf.cli import cli
from deepmlf.data.dataset import Dataset, SplitData, write_dataset
from deepmlf.data.task import Task
from deepmlf.errors import ConfigError, DataError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.inference.explain import explain
from deepmlf.inference.export import export_trial
from deepmlf.inference.predictor import Predictor, read_trial_config
from deepmlf.training.losses import prediction_loss
from tests.training.small_trial import SMALL, run

MOODS = Task.choice(("calm", "cross", "glad"))


def rewritten(source: Path, out: Path, task: Task, scale: float = 1.0, shift: float = 0.0) -> Path:
    """A dataset with labels of another kind: numbers moved, or thirds of them as classes."""
    dataset, splits = Dataset.open(source), {}
    bounds = np.quantile(dataset.split("train").labels, [1 / 3, 2 / 3])
    for name in ("train", "valid", "test"):
        rows = dataset.split(name)
        labels = np.searchsorted(bounds, rows.labels) if task.is_classification else rows.labels * scale + shift
        frames = [[of(row) for row in range(len(rows))] for of in (rows.audio, rows.vision)]
        splits[name] = SplitData(rows.ids, rows.texts, labels.astype(np.float32), *frames)
    write_dataset(out, "own", splits, (dataset.info.audio_dim, dataset.info.vision_dim), lowercase=False, task=task)
    return out


@pytest.fixture(scope="module")
def moods(small_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rewritten(small_data, tmp_path_factory.mktemp("moods") / "data", MOODS)


@pytest.fixture(scope="module")
def moody_trial(moods: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("moods") / "trial"
    run(folder, moods, training__select_by="weighted_F1", training__loss_text=0.0)
    return folder


def test_a_model_of_numbers_trains_on_any_range_as_on_that_of_mosi(small_data: Path, tmp_path: Path) -> None:
    task = Task.number(1, 5)
    ratings = rewritten(small_data, tmp_path / "ratings", task, scale=2 / 3, shift=3.0)
    ours, theirs = (run(tmp_path / name, data) for name, data in (("own", ratings), ("mosi", small_data)))
    assert [report["train/loss"] for report in ours] == pytest.approx(
        [report["train/loss"] for report in theirs], rel=1e-4
    )
    # In their own unit: two thirds of a step of MOSI's.
    assert ours[-1]["valid/MAE"] == pytest.approx(theirs[-1]["valid/MAE"] * 2 / 3, rel=1e-3)
    table = Predictor.open(tmp_path / "own").predict(Dataset.open(ratings), "test")
    original = Predictor.open(tmp_path / "mosi").predict(Dataset.open(small_data), "test")
    np.testing.assert_allclose(
        table["sentiment"].to_numpy(), original["sentiment"].to_numpy() * 2 / 3 + 3, atol=2e-3, rtol=0
    )
    assert table["sentiment_class"] == original["sentiment_class"]


def test_classes_are_trained_by_cross_entropy(moods: Path, tmp_path: Path) -> None:
    outputs, targets = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0], [0.0]])
    expected = torch.log1p(torch.exp(torch.tensor([-2.0, 1.0]))).mean()
    torch.testing.assert_close(prediction_loss(outputs, targets), expected)
    of_tokens = torch.stack([outputs, outputs.flip(0)], dim=1)
    each = torch.stack([prediction_loss(of_tokens[:, token], targets) for token in range(2)])
    torch.testing.assert_close(prediction_loss(of_tokens, targets), each.mean())

    reports = run(tmp_path, moods, training__select_by="accuracy", curriculum__name="unimodal_first")
    before = {name for report in reports for name in report if name.startswith("unimodal/")}
    assert before == {"unimodal/av_cross_entropy", "unimodal/text_cross_entropy"}
    assert {name for name in reports[-1] if name.startswith("valid/")} == {
        "valid/accuracy", "valid/weighted_F1", "valid/macro_F1", "valid/cross_entropy",
    }  # fmt: skip
    with pytest.raises(ConfigError, match="training.select_by=MAE: the dataset's metrics are accuracy, weighted_F1"):
        run(tmp_path / "other", moods)


def test_the_train_command_picks_the_best_epoch_by_a_metric_of_the_task(moods: Path, tmp_path: Path) -> None:
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    result = CliRunner().invoke(cli, ["train", str(moods), "--out", str(tmp_path / "trial"), "--json", *settings])
    assert result.exit_code == 0, result.output
    assert read_trial_config(tmp_path / "trial").training.select_by == "weighted_F1"
    assert "accuracy" in json.loads(result.stdout.splitlines()[-1])["valid"]


def test_a_model_of_classes_goes_home(moods: Path, moody_trial: Path, tmp_path: Path) -> None:
    valid = export_trial(moody_trial, tmp_path / "model")
    assert "predicts one of 3 classes: calm, cross, glad" in (tmp_path / "model" / "README.md").read_text()
    dataset = Dataset.open(moods)
    tables = [Predictor.open(folder).predict(dataset, "valid") for folder in (moody_trial, tmp_path / "model")]
    assert tables[0].equals(tables[1])
    table = tables[0]
    assert table.column_names == [
        "id", "text", "label_class", "predicted_class", "predicted_class_text", "predicted_class_av",
        "predicted_class_fusion", "probability_calm", "probability_cross", "probability_glad",
    ]  # fmt: skip
    assert table["predicted_class_text"].null_count == len(table)  # its loss did not count
    probabilities = np.stack([table[f"probability_{name}"].to_numpy() for name in MOODS.classes], axis=1)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-5)
    assert table["predicted_class"].to_pylist() == [MOODS.classes[index] for index in probabilities.argmax(1)]
    right = pc.mean(pc.equal(table["predicted_class"], table["label_class"])).as_py()
    assert right == pytest.approx(valid["accuracy"])
    assert evaluate_trial(moody_trial, split="valid") == pytest.approx(valid)


def test_classes_are_compared_by_their_names(moods: Path, moody_trial: Path, small_data: Path, tmp_path: Path) -> None:
    dataset = Dataset.open(moods)
    rows = dataset.split("test")
    some = [row for row in range(len(rows)) if rows.labels[row] != 0]  # none is calm: positions are other ones
    frames = [[of(row) for row in some] for of in (rows.audio, rows.vision)]
    data = SplitData([rows.ids[row] for row in some], [rows.texts[row] for row in some], rows.labels[some] - 1, *frames)
    every = dict.fromkeys(("train", "valid", "test"), data)
    dims = dataset.info.audio_dim, dataset.info.vision_dim
    for name, classes in (("two", ("cross", "glad")), ("other", ("cross", "sad"))):
        write_dataset(tmp_path / name, "own", every, dims, lowercase=False, task=Task.choice(classes))
    predictor = Predictor.open(moody_trial)
    table = predictor.predict(Dataset.open(tmp_path / "two"), "test")
    whole = predictor.predict(dataset, "test").take(some)
    assert table["predicted_class"] == whole["predicted_class"]
    assert predictor.metrics(Dataset.open(tmp_path / "two"), table) == pytest.approx(predictor.metrics(dataset, whole))
    with pytest.raises(DataError, match="labels of test are missing or of another class than in training"):
        evaluate_trial(moody_trial, tmp_path / "other")
    with pytest.raises(DataError, match="of another class than in training"):
        evaluate_trial(moody_trial, small_data)


def test_an_explanation_of_classes_has_their_probabilities(moods: Path, moody_trial: Path) -> None:
    predictor, dataset = Predictor.open(moody_trial), Dataset.open(moods)
    row = predictor.predict(dataset, "valid").slice(3, 1).to_pylist()[0]
    explanation = explain(predictor, dataset, row["id"])
    assert explanation.classes == {"task": row["predicted_class"], "label": row["label_class"]}
    said = explanation.predictions["task"]
    assert isinstance(said, dict)
    assert said == pytest.approx({name: row[f"probability_{name}"] for name in MOODS.classes}, abs=1e-6)
    assert explanation.predictions["text"] is None
    page = explain_page(explanation)
    assert f"The label is <b>{row['label_class']}</b>." in page
    assert "<th>calm</th><th>cross</th><th>glad</th>" in page
    assert f"<td>{100 * said['glad']:.1f}%</td>" in page


def test_labels_of_other_data_are_judged_by_their_own_range(
    small_data: Path, small_trial: Path, moods: Path, tmp_path: Path
) -> None:
    ratings = rewritten(small_data, tmp_path / "ratings", Task.number(1, 5), scale=2 / 3, shift=3.0)
    predictor = Predictor.open(small_trial)
    own, other, classes = (predictor.predict(Dataset.open(data), "test") for data in (small_data, ratings, moods))
    assert other["sentiment"] == own["sentiment"]
    assert other["label_class"] == own["label_class"]
    assert classes["label"].null_count == len(classes)  # positions of classes are no sentiment
    assert classes["label_class"].null_count == len(classes)
    name = own["id"][2].as_py()
    assert explain(predictor, Dataset.open(ratings), name).classes["label"] == own["label_class"][2].as_py()
    assert explain(predictor, Dataset.open(moods), name).label is None
    for data in (ratings, moods):
        assert predictor.metrics(Dataset.open(data), predictor.predict(Dataset.open(data), "test")) is None
