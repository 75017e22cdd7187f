"""A model taken home predicts what the trial predicted, on the same data and on other data."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from deepmlf.cli import cli
from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset, SplitData, write_dataset
from deepmlf.data.loader import Loader
from deepmlf.data.task import KNOWN
from deepmlf.errors import CheckpointError, ConfigError, DataError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.inference.export import export_trial
from deepmlf.inference.predictor import Predictor, read_trial_config
from deepmlf.training.checkpoints.save import load_weights
from deepmlf.training.forward import build_model, predict
from deepmlf.training.machine.device import pick_device
from deepmlf.training.metrics import sentiment_classes
from tests.command import deepmlf
from tests.sealed import content_of, edit

ROOT = Path(__file__).resolve().parents[2]


def copy_of(data: Path, out: Path, **changes: object) -> Dataset:
    """The test split of a dataset as every split of another one, with changes."""
    rows = Dataset.open(data).split("test")
    parts: dict[str, object] = {
        "ids": rows.ids,
        "texts": rows.texts,
        "labels": rows.labels,
        "audio": [rows.audio(row) for row in range(len(rows))],
        "vision": [rows.vision(row) for row in range(len(rows))],
    }
    name, dims = str(changes.pop("name", "mosi")), changes.pop("dims", (5, 8))
    data_of_all = SplitData(**parts | changes)  # type: ignore[arg-type]
    write_dataset(out, name, dict.fromkeys(("train", "valid", "test"), data_of_all), dims, lowercase=False)  # type: ignore[arg-type]
    return Dataset.open(out)


def test_a_fresh_process_predicts_what_the_trial_did(
    small_trial: Path, small_export: Path, small_data: Path, tmp_path: Path
) -> None:
    config, dataset = read_trial_config(small_trial), Dataset.open(small_data)
    model, tokens_of, pad = build_model(config, dataset)
    load_weights(small_trial / "best", model)
    loader = Loader(dataset, "test", tokens_of, pad, 2 * config.training.batch_size, standardize=True)
    expected = predict(model, loader, "float32")[:, 0]

    words = ["predict", small_export, small_data, "--out", tmp_path / "p.parquet", "--json"]
    command = [sys.executable, "-m", "deepmlf", *map(str, words)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=200)
    assert result.returncode == 0, result.stderr
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.column_names == [
        "id", "text", "label", "sentiment", "sentiment_text", "sentiment_av", "sentiment_fusion", "sentiment_class",
        "label_class",
    ]  # fmt: skip
    rows = dataset.split("test")
    assert table["id"].to_pylist() == rows.ids
    assert table["text"].to_pylist() == rows.texts
    np.testing.assert_array_equal(table["label"].to_numpy(), rows.labels)
    np.testing.assert_allclose(table["sentiment"].to_numpy(), expected, atol=1e-6, rtol=0)
    for head in ("text", "av"):
        np.testing.assert_allclose(
            table[f"sentiment_{head}"].to_numpy(), predict(model, loader, "float32", head=head)[:, 0], atol=1e-6, rtol=0
        )
    assert table["sentiment_class"].to_pylist() == sentiment_classes(KNOWN["mosi"], expected)
    summary = json.loads(result.stdout)
    assert summary["metrics"] == pytest.approx(evaluate_trial(small_trial), abs=1e-6)
    lines = [f"{name}: {value:.4f}" for name, value in summary["metrics"].items()]
    assert result.stderr.splitlines() == [*lines, f"{tmp_path / 'p.parquet'}: 24 utterances"]


def test_a_trial_predicts_what_its_export_does(small_trial: Path, small_export: Path, small_data: Path) -> None:
    dataset = Dataset.open(small_data)
    tables = [Predictor.open(folder).predict(dataset, "valid") for folder in (small_trial, small_export)]
    assert tables[0].equals(tables[1])


def test_other_data_is_scaled_as_the_training_data_was(
    small_trial: Path, small_export: Path, small_data: Path, tmp_path: Path
) -> None:
    predictor = Predictor.open(small_export)
    other = copy_of(small_data, tmp_path / "other")  # its train split, and so its statistics, are other ones
    expected = predictor.predict(Dataset.open(small_data), "test")["sentiment"].to_numpy()
    np.testing.assert_allclose(predictor.predict(other, "test")["sentiment"].to_numpy(), expected, atol=1e-6, rtol=0)
    assert evaluate_trial(small_trial, other.path) == pytest.approx(evaluate_trial(small_trial), abs=1e-6)


def test_data_that_does_not_fit_is_refused(small_export: Path, small_data: Path, tmp_path: Path) -> None:
    count = len(Dataset.open(small_data).split("test"))
    other = copy_of(small_data, tmp_path / "other", audio=[np.ones((4, 74), np.float32)] * count, dims=(74, 8))
    message = f"{other.path}: has 74 audio and 8 vision features, but the model takes 5 and 8"
    with pytest.raises(DataError, match=message):
        Predictor.open(small_export).predict(other, "test")
    result = deepmlf("explain", small_export, other.path, "--id", "test_0", "--out", tmp_path / "page.html")
    assert (result.returncode, result.stderr) == (2, f"deepmlf: {message}\n")
    assert not (tmp_path / "page.html").exists()


def test_no_metrics_without_labels_of_the_same_kind(small_export: Path, small_data: Path, tmp_path: Path) -> None:
    predictor, labels = Predictor.open(small_export), Dataset.open(small_data).split("test").labels.copy()
    labels[1] = np.nan
    unlabelled = copy_of(small_data, tmp_path / "unlabelled", labels=labels)
    table = predictor.predict(unlabelled, "test")
    for column in ("label", "label_class"):
        assert [row for row, value in enumerate(table[column].to_pylist()) if value is None] == [1]
    assert predictor.metrics(unlabelled, table) is None
    sims = copy_of(small_data, tmp_path / "sims", name="sims")
    assert predictor.metrics(sims, predictor.predict(sims, "test")) is None


def test_a_trial_is_evaluated_where_its_dataset_has_moved_and_not_without_labels(
    small_trial: Path, small_data: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(small_data, moved)
    trial = tmp_path / "trial"
    shutil.copytree(small_trial, trial)
    edit(trial / "config.json", data=content_of(trial / "config.json")["data"] | {"path": str(tmp_path / "gone")})
    with pytest.raises(DataError, match="gone: not an imported dataset"):
        evaluate_trial(trial)
    assert evaluate_trial(trial, trained_on=moved) == evaluate_trial(small_trial)
    count = len(Dataset.open(small_data).split("test"))
    unknown = copy_of(small_data, tmp_path / "unknown", labels=np.full(count, np.nan, np.float32))
    with pytest.raises(DataError, match="labels of test are missing or of another range than in training"):
        evaluate_trial(small_trial, unknown.path)


def test_a_trial_of_another_machines_device_is_evaluated(small_trial: Path, tmp_path: Path) -> None:
    trial = tmp_path / "trial"
    shutil.copytree(small_trial, trial)
    edit(trial / "config.json", training=content_of(trial / "config.json")["training"] | {"device": "cuda:7"})
    assert evaluate_trial(trial) == evaluate_trial(small_trial)
    with pytest.raises(ConfigError, match=r"training\.device=cuda:7: cannot be used here \(.+\)"):
        pick_device("cuda:7")
    with pytest.raises(ConfigError, match="training.device='gpu': String should match pattern"):
        TrialConfig.from_overrides({"training.device": "gpu"})


def test_a_command_notes_what_differs(small_export: Path, small_data: Path, tmp_path: Path) -> None:
    other = copy_of(small_data, tmp_path / "sims", name="sims")
    edit(other.path / "info.json", lowercase=True)
    command = ["predict", str(small_export), str(other.path), "--out", str(tmp_path / "p.parquet")]
    result = CliRunner().invoke(cli, command)
    assert result.stderr.splitlines() == [
        f"deepmlf: {other.path}: texts are lower-cased, unlike those of the training",
        "deepmlf: no metrics: labels are missing or of another range than in training",
    ]
    assert result.stdout == f"{tmp_path / 'p.parquet'}: 24 utterances\n"


def test_new_data_is_predicted_without_labels(small_export: Path, small_data: Path, tmp_path: Path) -> None:
    rows = Dataset.open(small_data).split("test")
    new = {
        "id": rows.ids,
        "raw_text": rows.texts,
        "audio": [rows.audio(row) for row in range(len(rows))],
        "vision": [rows.vision(row) for row in range(len(rows))],
    }
    (tmp_path / "new.pkl").write_bytes(pickle.dumps({"test": new}))
    data, out = tmp_path / "new", tmp_path / "p.parquet"
    run = CliRunner().invoke
    imported = run(cli, ["data", "import", str(tmp_path / "new.pkl"), str(data), "--unlabelled"])
    assert imported.stdout == f"{data}: 0 train, 0 valid, 24 test; audio 5, vision 8 features; a number from -3 to 3\n"
    shown = run(cli, ["data", "info", str(data)]).stdout.splitlines()
    assert "train: 0 utterances" in shown
    assert "test: 24 utterances, 24 of them without a label" in shown
    result = run(cli, ["predict", str(small_export), str(data), "--out", str(out)])
    assert result.stderr == "deepmlf: no metrics: labels are missing or of another range than in training\n"
    predicted = Predictor.open(small_export).predict(Dataset.open(small_data), "test")
    assert pq.read_table(out).column("sentiment").equals(predicted["sentiment"])
    assert pq.read_table(out).column("label").null_count == 24
    empty = run(cli, ["predict", str(small_export), str(data), "--split", "valid", "--out", str(out)])
    assert str(empty.exception) == f"{data}: valid is empty; it has test"
    page = run(cli, ["explain", str(small_export), str(data), "--id", rows.ids[0], "--out", str(tmp_path / "e.html")])
    assert page.exit_code == 0
    trained = run(cli, ["train", str(data), "--out", str(tmp_path / "trial")])
    assert str(trained.exception) == f"{data}: train is empty; such data is for `deepmlf predict`"
    assert not (tmp_path / "trial").exists()


def test_a_table_that_cannot_be_written(small_export: Path, small_data: Path, tmp_path: Path) -> None:
    out = small_export / "README.md" / "p.parquet"
    result = CliRunner().invoke(cli, ["predict", str(small_export), str(small_data), "--out", str(out)])
    assert isinstance(result.exception, DataError)
    assert str(result.exception) == f"--out {out}: cannot be written (Not a directory)"


def test_what_is_no_finished_trial_is_refused(small_trial: Path, small_export: Path, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    (unfinished / "config.json").write_text((small_trial / "config.json").read_text())
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text('{"model_type": "llama"}')
    for folder, message in (
        (unfinished, r"unfinished: has no best weights; let it train for one fusion epoch with all MM blocks"),
        (foreign, r"foreign: not a trial's folder \(its config.json is of something else\)"),
        (tmp_path / "none", r"none: not a trial's folder \(no config.json there\)"),
    ):
        with pytest.raises(CheckpointError, match=message):
            export_trial(folder, tmp_path / "out")
        with pytest.raises(CheckpointError, match=message):
            Predictor.open(folder)
    with pytest.raises(CheckpointError, match=r"export: exists and is not empty"):
        export_trial(small_trial, small_export)
    assert not (tmp_path / "out").exists()


def test_the_card_tells_data_and_metrics(small_trial: Path, small_export: Path, small_data: Path) -> None:
    card, info = (small_export / "README.md").read_text(), Dataset.open(small_data).info
    best = json.loads((small_trial / "best" / "state.json").read_text())
    assert card.startswith("---\nlibrary_name: deepmlf\n")
    assert info.fingerprint in card
    assert "49 train, 24 valid, 24 test" in card
    assert f"Fusion epoch {best['fusion_epoch']}, " in card
    for name, value in best["valid"].items():
        assert f"| {name} | {value:.4f} |" in card
    assert "| training.lr_fusion | `0.001` |" in card
    assert "--lm FOLDER_OF_THE_LANGUAGE_MODEL" in card
    assert "data.path" not in card
    assert str(small_data) not in card + (small_export / "config.json").read_text()
