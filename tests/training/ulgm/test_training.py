"""Training with generated labels: from which epoch, over which curricula, resumed bit for bit, and to what end."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deepmlf.errors import CheckpointError
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.trainer import Trainer
from tests.training.small_trial import config_of, run, without_times
from tests.training.ulgm.planted import make_planted

PLANTED = {
    "training__ulgm": True, "training__epochs": 4, "training__lr_fusion": 3e-3, "training__lr_av": 3e-3,
    "curriculum__av_lr": 3e-3, "model__fusion_depth": 1,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_generated_labels_find_what_audio_and_vision_say_by_themselves(seed: int, tmp_path: Path) -> None:
    planted = make_planted(tmp_path / "data", seed)
    config = config_of(tmp_path / "data", **PLANTED, training__seed=seed)
    trainer = Trainer(config, tmp_path / "trial")
    trainer.run(lambda metrics, checkpoint: None, None)
    labels = trainer.unimodal_labels
    assert labels is not None
    task, av, text = (labels.labels_of(name) for name in ("task", "av", "text"))

    def fit(of: np.ndarray, to: np.ndarray) -> float:
        return float(np.corrcoef(of, to)[0, 1])

    assert fit(av, planted) > fit(task, planted) + 0.15
    assert fit(av, planted) > fit(text, planted) + 0.15  # the words know nothing of it
    disagree = planted * task < 0
    assert np.abs(av - planted)[disagree].mean() < np.abs(task - planted)[disagree].mean() - 1


@pytest.mark.parametrize("curriculum", ["av_first", "grow_depth"])
def test_until_labels_are_generated_training_is_as_without(curriculum: str, tmp_path: Path, small_data: Path) -> None:
    asked = {"training__epochs": 4, "curriculum__name": curriculum}
    plain = without_times(run(tmp_path / "plain", small_data, **asked))
    ulgm = without_times(run(tmp_path / "ulgm", small_data, training__ulgm=True, **asked))
    moved = [[report.pop(f"ulgm/{head}", None) for head in ("text", "av", "fusion")] for report in ulgm]
    fusion = [report["fusion_epoch"] for report in ulgm if "fusion_epoch" in report]
    before = len(ulgm) - len(fusion)
    assert before == (2 if curriculum == "av_first" else 0)
    assert ulgm[: before + 2] == plain[: before + 2]
    assert ulgm[before + 2]["loss/av"] != plain[before + 2]["loss/av"]
    assert [None not in of_epoch for of_epoch in moved] == [False] * (before + 1) + [True] * 3


@pytest.mark.parametrize("stop_after", [1, 4, 5])
def test_resume_is_bit_equal(tmp_path: Path, small_data: Path, stop_after: int) -> None:
    asked = {
        "training__ulgm": True, "training__epochs": 5, "training__accumulation_steps": 2, "data__train_share": 0.8,
        "curriculum__av_epochs": 1,
    }  # fmt: skip
    whole = run(tmp_path / "whole", small_data, **asked)
    first = run(tmp_path / "parts", small_data, stop_after=stop_after, **asked)
    checkpoint = latest_checkpoint(tmp_path / "parts")
    assert checkpoint is not None
    assert (checkpoint / "ulgm.safetensors").is_file() == (stop_after > 1)  # the first epoch is before fusion
    rest = run(tmp_path / "parts", small_data, resume_from=checkpoint, **asked)
    assert without_times(first + rest[1:]) == without_times(whole)
    for name in ("model", "optimizer", "ulgm"):
        expected, actual = (
            load_file(tmp_path / of / "checkpoints" / "epoch_000006" / f"{name}.safetensors")
            for of in ("whole", "parts")
        )
        assert expected.keys() == actual.keys()
        assert all(torch.equal(expected[key], actual[key]) for key in expected)
    assert len(expected["labels.av"]) == 39  # 0.8 of 49


def test_a_checkpoint_without_labels_goes_on_without_them_alone(tmp_path: Path, small_data: Path) -> None:
    plain = run(tmp_path, small_data, curriculum__name="joint", stop_after=1)
    checkpoint = latest_checkpoint(tmp_path)
    assert checkpoint is not None
    assert not (checkpoint / "ulgm.safetensors").exists()
    with pytest.raises(CheckpointError) as refused:
        run(tmp_path, small_data, curriculum__name="joint", resume_from=checkpoint, training__ulgm=True)
    assert str(refused.value) == (f"{checkpoint}: was trained without training.ulgm; train anew to have it on")
    rest = run(tmp_path, small_data, curriculum__name="joint", resume_from=checkpoint)
    assert without_times(rest[:1]) == without_times(plain)
    assert rest[-1]["finished"] == "full"


def test_labels_of_other_utterances_are_refused(tmp_path: Path, small_data: Path) -> None:
    run(tmp_path, small_data, curriculum__name="joint", training__ulgm=True, stop_after=1)
    checkpoint = latest_checkpoint(tmp_path)
    asked = {"curriculum__name": "joint", "training__ulgm": True, "data__train_share": 0.8}
    with pytest.raises(CheckpointError, match="epoch_000001: has generated labels of other utterances; train anew$"):
        run(tmp_path, small_data, resume_from=checkpoint, **asked)
