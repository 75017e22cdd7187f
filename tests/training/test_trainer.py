"""Training of one trial on a small synthetic set with the tiny random language model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deepmlf.data.dataset import Dataset, SplitData, write_dataset
from deepmlf.data.loader import nested_rows
from deepmlf.errors import CheckpointError, ConfigError, NonFiniteLossError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.trainer import Trainer
from tests.training.small_trial import config_of, run, without_times

ALL_RANDOM = {
    "model__softperm_text_features": 0.3, "model__softperm_text_apply": 0.5, "model__embedding_noise": 5.0,
    "model__embedding_dropout": 0.1, "training__loss_lm": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> tuple[Path, list[dict]]:
    """A trial that was never stopped, and its reports."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, small_data, **ALL_RANDOM)


@pytest.mark.parametrize("stop_after", [1, 2, 4])
def test_resume_is_bit_equal(
    uninterrupted: tuple[Path, list[dict]], tmp_path: Path, small_data: Path, stop_after: int
) -> None:
    folder, whole = uninterrupted
    first = run(tmp_path / "parts", small_data, stop_after=stop_after, **ALL_RANDOM)
    rest = run(tmp_path / "parts", small_data, resume_from=latest_checkpoint(tmp_path / "parts"), **ALL_RANDOM)
    assert without_times(first + rest[1:]) == without_times(whole)
    assert without_times(rest[:1]) == without_times(first[-1:])
    for name in ("checkpoints/epoch_000005", "best"):
        expected = load_file(folder / name / "model.safetensors")
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


@pytest.mark.parametrize(("accumulation", "clip_av"), [("mean", True), ("sum", False)])
def test_a_step_takes_the_mean_or_summed_gradient_of_its_batches_clipped(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch, accumulation: str, clip_av: bool
) -> None:
    config = config_of(small_data, curriculum__name="joint", training__accumulation_steps=2, training__clip_value=0.01,
                       training__accumulation=accumulation, training__clip_av=clip_av)  # fmt: skip
    trainer = Trainer(config, tmp_path)
    parameters = list(trainer.parameters.values())
    is_clipped = [clip_av or not name.startswith("av_encoder.") for name in trainer.parameters]
    losses, step = trainer._losses, trainer.optimizer.step
    gradients: list[list[torch.Tensor]] = []
    taken: list[list[torch.Tensor]] = []

    def watched_losses(*parts: Any) -> dict[str, torch.Tensor]:
        result = losses(*parts)
        found = torch.autograd.grad(result["total"], parameters, retain_graph=True, allow_unused=True)
        zeros = (torch.zeros_like(parameter) for parameter in parameters)
        gradients.append([zero if one is None else one for one, zero in zip(found, zeros, strict=True)])
        return result

    def watched_step() -> None:
        taken.append([p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in parameters])
        step()

    monkeypatch.setattr(trainer, "_losses", watched_losses)
    monkeypatch.setattr(trainer.optimizer, "step", watched_step)
    trainer._run_epoch(trainer.stages[0], lambda metrics, checkpoint: None)
    assert (len(gradients), len(taken)) == (3, 2)  # 49 utterances in three batches; the last one is a group of its own
    groups = [gradients[:2], gradients[2:]]
    clipped, beyond = 0, 0
    for group, grads in zip(groups, taken, strict=True):
        for index, grad in enumerate(grads):
            members = torch.stack([member[index] for member in group])
            whole = members.mean(0) if accumulation == "mean" else members.sum(0)
            expected = whole.clamp(-0.01, 0.01) if is_clipped[index] else whole
            torch.testing.assert_close(grad, expected, atol=1e-6, rtol=1e-4)
            clipped += int((expected != whole).sum())
            beyond += int((expected.abs() > 0.01).sum())
    assert clipped > 0
    assert (beyond == 0) == clip_av


def test_a_torn_checkpoint_is_never_used(tmp_path: Path, small_data: Path) -> None:
    run(tmp_path, small_data, stop_after=1)
    newest = latest_checkpoint(tmp_path)
    assert newest is not None
    (newest.parent / "epoch_000009").mkdir()
    assert latest_checkpoint(tmp_path) == newest
    (newest / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(CheckpointError, match=r"model.safetensors: damaged \(its checksum"):
        run(tmp_path, small_data, resume_from=newest)
    with pytest.raises(
        CheckpointError, match="has no best weights; let it train for one fusion epoch with all MM blocks"
    ):
        evaluate_trial(tmp_path)


def test_evaluate_names_a_folder_that_is_no_trial(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"not a trial's folder \(no config.json there\)"):
        evaluate_trial(tmp_path)


def test_checkpoints_hold_no_language_model_weights(tmp_path: Path, small_data: Path) -> None:
    run(tmp_path, small_data, stop_after=1)
    weights = load_file((latest_checkpoint(tmp_path) or tmp_path) / "model.safetensors")
    assert not any(name.endswith(("ffn.up", "ffn.gate", "ffn.down")) for name in weights)
    assert json.loads((latest_checkpoint(tmp_path) / "state.json").read_text())["epoch"] == 1  # type: ignore[operator]


def test_a_share_of_the_data_trains_as_that_share_alone(tmp_path: Path, small_data: Path) -> None:
    dataset, splits = Dataset.open(small_data), {}
    for name in ("train", "valid", "test"):
        rows = dataset.split(name)
        kept = nested_rows(len(rows), 0.5) if name == "train" else range(len(rows))
        audio, vision = ([of(row) for row in kept] for of in (rows.audio, rows.vision))
        splits[name] = SplitData(
            [rows.ids[row] for row in kept], [rows.texts[row] for row in kept], rows.labels[list(kept)], audio, vision
        )
    dims = dataset.info.audio_dim, dataset.info.vision_dim
    write_dataset(tmp_path / "half", "mosi", splits, dims, lowercase=False)
    asked = {"curriculum__name": "unimodal_first", "data__standardize": False} | ALL_RANDOM
    share = run(tmp_path / "share", small_data, data__train_share=0.5, **asked)
    alone = run(tmp_path / "alone", tmp_path / "half", **asked)
    assert without_times(share) == without_times(alone)
    assert share[-1]["valid/MAE"] != run(tmp_path / "whole", small_data, **asked)[-1]["valid/MAE"]
