"""Training of one trial on a small synthetic set with the tiny random language model."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deepmlf.config import TrialConfig
from deepmlf.data.synthetic import make_synthetic
from deepmlf.errors import CheckpointError, ConfigError, NonFiniteLossError
from deepmlf.training.checkpoint import latest_checkpoint
from deepmlf.training.evaluate import evaluate_trial
from deepmlf.training.trainer import train

SMALL = {
    "model.language_model": "tiny-random", "model.fusion_depth": 2, "model.num_fusion_tokens": 3,
    "model.max_text_len": 16, "model.av_frames": 6, "model.av_layers": 1, "model.lora_rank": 4,
    "training.epochs": 3, "training.batch_size": 16, "training.lr_fusion": 1e-3, "curriculum.av_epochs": 2,
}  # fmt: skip


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(folder, seed=1, sizes=(49, 24, 24))
    return folder


def run(
    out: Path, data: Path, resume_from: Path | None = None, stop_after: int | None = None, **settings: Any
) -> list[dict]:
    """Train and return the reports; `stop_after` breaks off at that epoch as a kill would."""
    reports: list[dict] = []
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    config = TrialConfig.from_overrides(SMALL, {"data.path": str(data)}, dotted)

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        reports.append(dict(metrics))
        if metrics["epoch"] == stop_after:
            raise InterruptedError

    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(config.to_json())
    try:
        train(config, report, out_dir=out, resume_from=resume_from)
    except InterruptedError:
        pass
    return reports


def without_times(reports: list[dict]) -> list[dict]:
    return [{name: value for name, value in report.items() if not name.startswith("time/")} for report in reports]


@pytest.mark.parametrize("curriculum", ["joint", "av_first", "av_frozen"])
def test_curricula_report_fusion_epochs_only_in_fusion(tmp_path: Path, small_data: Path, curriculum: str) -> None:
    reports = run(tmp_path, small_data, curriculum__name=curriculum)
    first = 0 if curriculum == "joint" else 2
    assert [report.get("fusion_epoch") for report in reports] == [None] * first + [1, 2, 3]
    assert [report.get("finished") for report in reports] == [None] * (first + 2) + ["full"]
    assert {"valid/MAE", "train/loss", "loss/task", "lr/fusion", "gate/3/ffn"} <= reports[-1].keys()


def test_av_frozen_leaves_the_av_encoder_as_its_stage_left_it(tmp_path: Path, small_data: Path) -> None:
    def encoder(folder: Path) -> dict[str, torch.Tensor]:
        weights = load_file(folder / "model.safetensors")
        return {name: weight for name, weight in weights.items() if name.startswith("av_encoder.")}

    settings = {"curriculum__name": "av_frozen", "model__av_batch_norm": "both"}
    run(tmp_path, small_data, stop_after=2, **settings)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    before = encoder(checkpoint)
    run(tmp_path, small_data, resume_from=checkpoint, **settings)
    after = encoder(latest_checkpoint(tmp_path) or tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_resume_is_bit_equal(tmp_path: Path, small_data: Path, stop_after: int) -> None:
    settings = {"model__softperm_text_features": 0.3, "model__softperm_text_apply": 0.5, "training__loss_lm": 0.5}
    whole = run(tmp_path / "whole", small_data, **settings)
    first = run(tmp_path / "parts", small_data, stop_after=stop_after, **settings)
    rest = run(tmp_path / "parts", small_data, resume_from=latest_checkpoint(tmp_path / "parts"), **settings)
    assert without_times(first + rest[1:]) == without_times(whole)
    assert without_times(rest[:1]) == without_times(first[-1:])
    for name in ("checkpoints/epoch_000005", "best"):
        expected = load_file(tmp_path / "whole" / name / "model.safetensors")
        actual = load_file(tmp_path / "parts" / name / "model.safetensors")
        assert expected.keys() == actual.keys()
        assert all(torch.equal(expected[key], actual[key]) for key in expected)


def test_a_finished_trial_reports_its_end_again_and_stops(tmp_path: Path, small_data: Path) -> None:
    reports = run(tmp_path, small_data, curriculum__name="joint")
    again = run(tmp_path, small_data, resume_from=latest_checkpoint(tmp_path), curriculum__name="joint")
    assert again == reports[-1:]


def test_patience_ends_a_trial_early(tmp_path: Path, small_data: Path) -> None:
    reports = run(tmp_path, small_data, curriculum__name="joint", training__lr_fusion=1e-9, training__lr_av=1e-9,
                  training__epochs=30, training__patience=2)  # fmt: skip
    assert reports[-1]["finished"] == "patience"
    best = min(range(len(reports)), key=lambda index: reports[index]["valid/MAE"])
    assert len(reports) == best + 3


def test_best_weights_are_of_the_best_epoch(tmp_path: Path, small_data: Path) -> None:
    reports = run(tmp_path, small_data, training__lr_fusion=1e-2)
    best = min(report["valid/MAE"] for report in reports if "valid/MAE" in report)
    assert evaluate_trial(tmp_path, split="valid")["MAE"] == pytest.approx(best, abs=1e-6)


def test_another_metric_may_pick_the_best_epoch(tmp_path: Path, small_data: Path) -> None:
    reports = run(tmp_path, small_data, curriculum__name="joint", training__select_by="Corr", training__epochs=4,
                  training__lr_fusion=1e-2)  # fmt: skip
    best = max(reports, key=lambda report: report["valid/Corr"])
    assert json.loads((tmp_path / "best" / "state.json").read_text())["fusion_epoch"] == best["fusion_epoch"]
    assert {report["model/trained_parameters"] for report in reports} == {reports[0]["model/trained_parameters"]}
    assert reports[0]["model/trained_parameters"] > 0
    with pytest.raises(ConfigError, match="training.select_by=F1_score: the dataset's metrics are Has0_acc_2, "):
        run(tmp_path / "other", small_data, curriculum__name="joint", training__select_by="F1_score")


def test_a_loss_that_is_not_finite_fails_at_once(tmp_path: Path, small_data: Path) -> None:
    with pytest.raises(NonFiniteLossError, match=r"the loss became (nan|inf) in epoch \d"):
        run(tmp_path, small_data, curriculum__name="joint", training__lr_fusion=1e30, training__epochs=5)


def test_accumulation_equals_a_larger_batch_when_nothing_else_differs(tmp_path: Path, small_data: Path) -> None:
    reports = run(tmp_path, small_data, curriculum__name="joint", training__accumulation_steps=3)
    assert len(reports) == 3
    assert all(math.isfinite(report["train/loss"]) for report in reports)


def test_a_torn_checkpoint_is_never_used(tmp_path: Path, small_data: Path) -> None:
    run(tmp_path, small_data, stop_after=1)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    (newest.parent / "epoch_000009").mkdir()
    assert latest_checkpoint(tmp_path) == newest
    (newest / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match="torn or not safetensors"):
        run(tmp_path, small_data, resume_from=newest)
    with pytest.raises(CheckpointError, match="no complete checkpoint there"):
        evaluate_trial(tmp_path)


def test_evaluate_names_a_folder_that_is_no_trial(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a trial's folder \(no config.json there\)"):
        evaluate_trial(tmp_path)


def test_checkpoints_hold_no_language_model_weights(tmp_path: Path, small_data: Path) -> None:
    run(tmp_path, small_data, stop_after=1)
    weights = load_file((latest_checkpoint(tmp_path) or tmp_path) / "model.safetensors")
    assert not any(name.endswith(("ffn.up", "ffn.gate", "ffn.down")) for name in weights)
    assert json.loads((latest_checkpoint(tmp_path) / "state.json").read_text())["epoch"] == 1  # type: ignore[operator]
