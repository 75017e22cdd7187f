"""What a trial reports beside its own metrics."""

from pathlib import Path

import numpy as np
import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.inference.evaluate import evaluate_beside
from deepmlf.inference.predictor import Predictor
from deepmlf.training.metrics import compute_metrics
from deepmlf.training.reports import EpochReport, baselines_among
from tests.training.small_trial import run, without_times

NAMES = ["language model", "language model, audio and vision", "text head"]


def fusion_of(reports: list[dict]) -> list[EpochReport]:
    return [EpochReport(report) for report in reports if "fusion_epoch" in report]


def test_the_language_models_come_once_and_the_text_heads_with_every_epoch(
    own_home: Path, small_data: Path, tmp_path: Path
) -> None:
    reports = run(tmp_path / "trial", small_data)
    first, *later = fusion_of(reports)
    assert sorted(first.baselines) == NAMES
    assert all(set(report.baselines) == {"text head"} for report in later)
    assert first.baselines["language model"].keys() == first.valid.keys()
    assert [report["time/baselines_seconds"] > 0 for report in reports if "time/baselines_seconds" in report] == [True]
    assert not any("baseline" in name for name in reports[0])  # a stage before fusion
    again = run(tmp_path / "again", small_data)  # with what is kept
    assert without_times(again) == without_times(reports)
    killed = run(tmp_path / "killed", small_data, stop_after=3)
    assert list(fusion_of(killed)[0].baselines) == list(first.baselines)


def test_the_text_heads_is_what_the_best_epochs_weights_say(small_data: Path, tmp_path: Path) -> None:
    reports = fusion_of(run(tmp_path, small_data))
    table = Predictor.open(tmp_path).predict(Dataset.open(small_data), "valid")
    said, labels = table["sentiment_text"].to_numpy(), table["label"].to_numpy()
    found = baselines_among(reports, "valid/MAE", "minimize")
    assert sorted(found) == NAMES
    assert found["text head"]["MAE"] == pytest.approx(np.abs(said - labels).mean(), abs=1e-6)
    beside = evaluate_beside(tmp_path, split="valid")
    assert beside.of_trial["text head"] == pytest.approx(found["text head"], abs=1e-6)
    assert beside.of_language_model == {name: found[name] for name in NAMES[:2]}  # kept
    assert beside.of_trial["text head"] == pytest.approx(
        compute_metrics(Dataset.open(small_data).info.task, said, labels), abs=1e-6
    )


@pytest.mark.parametrize("settings", [{"model__num_fusion_tokens": 0}, {"training__loss_text": 0.0}])
def test_a_text_head_that_sees_more_than_text_or_says_nothing_is_none(
    small_data: Path, tmp_path: Path, settings: dict
) -> None:
    reports = fusion_of(run(tmp_path, small_data, training__epochs=1, **settings))
    assert sorted(reports[0].baselines) == NAMES[:2]
    assert evaluate_beside(tmp_path, split="valid").of_trial == {}


def test_other_data_and_the_train_split_say_nothing_of_the_language_model(small_trial: Path, small_data: Path) -> None:
    for data, split in ((small_data, "test"), (None, "train")):
        found = evaluate_beside(small_trial, data, split)
        assert found.of_language_model == {}
        assert list(found.of_trial) == ["text head"]


def test_the_best_epochs_text_head_counts_and_a_later_releases_baseline_keeps_its_name() -> None:
    reports = [
        EpochReport({"epoch": epoch, "fusion_epoch": epoch, "valid/MAE": mae, "baseline/text_head/MAE": text} | more)
        for epoch, mae, text, more in (
            (1, 0.9, 0.5, {"baseline/language_model_av/MAE": 0.8, "baseline/other/MAE": 1.0}),
            (2, 0.7, 0.6, {}),
            (3, 0.8, 0.4, {}),
        )
    ]
    assert baselines_among(reports, "valid/MAE", "minimize") == {
        "language model, audio and vision": {"MAE": 0.8},
        "other": {"MAE": 1.0},
        "text head": {"MAE": 0.6},
    }
    assert baselines_among([], "valid/MAE", "minimize") == {}
