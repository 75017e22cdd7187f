"""The stage of the audiovisual encoder alone, as in the authors' code: its rate, its end, its weights, its readout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.forward import predict
from deepmlf.training.optim import plateau_factor
from deepmlf.training.trainer import Trainer
from tests.sealed import content_of, write
from tests.training.small_trial import config_of, run, without_times

AUTHORS = {
    "curriculum__av_schedule": "plateau", "curriculum__av_plateau": 0, "curriculum__av_patience": 2,
    "curriculum__av_weights": "best", "curriculum__av_readout": "last", "curriculum__av_epochs": 30,
    "curriculum__av_lr": 0.02, "model__av_dropout": 0.3, "training__epochs": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, small_data: Path) -> tuple[Path, list[dict]]:
    """A trial that was never stopped, and its reports."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run(folder, small_data, keep=99, **AUTHORS)


def av_maes(reports: list[dict]) -> list[float]:
    return [report["unimodal/av_MAE"] for report in reports if report["stage"] == "av"]


def model_of(folder: Path, epoch: int) -> dict[str, torch.Tensor]:
    return load_file(folder / "checkpoints" / f"epoch_{epoch:06d}" / "model.safetensors")


def of_av(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name.startswith(("av_encoder.", "av_head."))}


def test_the_rate_is_a_tenth_after_more_epochs_without_a_better_one_than_a_plateau_may_last() -> None:
    worse = [1.0, 0.9, 0.95, 0.91, 0.92, 0.93, 0.8, 0.9]
    factors = [plateau_factor(worse[:count], 2) for count in range(len(worse) + 1)]
    assert factors == pytest.approx([1, 1, 1, 1, 1, 0.1, 0.1, 0.1, 0.1])
    assert plateau_factor(worse, 0) == pytest.approx(1e-5)


def test_it_ends_when_it_has_stalled_and_its_rate_fell_with_each_plateau(whole: tuple[Path, list[dict]]) -> None:
    reports = whole[1]
    maes = av_maes(reports)
    assert len(maes) - 1 - int(np.argmin(maes)) == 2
    assert 3 <= len(maes) < 30
    assert [report["stage"] for report in reports][len(maes) :] == ["fusion"]
    expected = [0.02 * plateau_factor(maes[:epoch], 0) for epoch in range(len(maes))]
    assert [report["lr/av"] for report in reports[: len(maes)]] == pytest.approx(expected)
    assert expected[0] == 0.02  # no warm-up
    assert expected[-1] < 0.02


def test_the_weights_of_its_best_epoch_go_on(whole: tuple[Path, list[dict]], small_data: Path, tmp_path: Path) -> None:
    folder, reports = whole
    maes = av_maes(reports)
    best, last = int(np.argmin(maes)) + 1, len(maes)
    kept, at_best = of_av(model_of(folder, last)), of_av(model_of(folder, best))
    assert all(torch.equal(kept[name], at_best[name]) for name in at_best)
    moments = [
        load_file(folder / "checkpoints" / f"epoch_{epoch:06d}" / "optimizer.safetensors") for epoch in (best, last)
    ]
    assert all(torch.equal(moments[0][name], moments[1][name]) for name in moments[0])
    trainer = Trainer(config_of(small_data, **AUTHORS), tmp_path)
    trainer.model.load_state_dict(kept, strict=False)
    loader = trainer.valid_loader
    predictions = predict(trainer.model, loader, "float32", head="av", last_frame=True)[:, 0]
    assert np.abs(predictions - loader.labels).mean() == pytest.approx(min(maes), abs=1e-6)
    checkpoints = folder / "checkpoints"
    with_best = [path.parent.name for path in checkpoints.glob("*/best_av.safetensors")]
    assert sorted(with_best) == [f"epoch_{epoch:06d}" for epoch in range(1, last)]


def test_by_default_the_last_weights_go_on_after_all_epochs(tmp_path: Path, small_data: Path) -> None:
    settings: dict[str, Any] = AUTHORS | {
        "curriculum__av_weights": "last", "curriculum__av_patience": None, "curriculum__av_epochs": 6,
    }  # fmt: skip
    reports = run(tmp_path, small_data, keep=99, **settings)
    assert len(av_maes(reports)) == 6
    assert not list(tmp_path.glob("checkpoints/*/best_av.safetensors"))


def test_resume_is_bit_equal_at_every_epoch(whole: tuple[Path, list[dict]], tmp_path: Path, small_data: Path) -> None:
    folder, expected = whole
    parts: list[dict] = []
    for stop in range(1, len(expected) + 1):
        checkpoint = latest_checkpoint(tmp_path)
        reports = run(tmp_path, small_data, resume_from=checkpoint, stop_after=stop, **AUTHORS)
        parts += reports if checkpoint is None else reports[1:]  # the checkpoint's own epoch is reported again
    assert without_times(parts) == without_times(expected)
    for name in (f"checkpoints/epoch_{len(expected):06d}", "best"):
        mine, theirs = (load_file(where / name / "model.safetensors") for where in (tmp_path, folder))
        assert all(torch.equal(mine[tensor], theirs[tensor]) for tensor in theirs)


def test_a_shared_stage_gives_the_same_numbers(
    whole: tuple[Path, list[dict]], tmp_path: Path, small_data: Path
) -> None:
    store, expected = tmp_path / "store", whole[1]
    last = len(av_maes(expected))
    maker = run(tmp_path / "maker", small_data, av_store=store, **AUTHORS)
    assert without_times(maker) == without_times(expected)
    user = run(tmp_path / "user", small_data, av_store=store, **AUTHORS)
    assert [report["epoch"] for report in user] == [last, last + 1]
    assert without_times(user[1:]) == without_times(expected[last:])
    # One that was killed in the stage, where it had a best epoch of its own to keep.
    run(tmp_path / "killed", small_data, stop_after=2, **AUTHORS)
    checkpoint = latest_checkpoint(tmp_path / "killed")
    rest = run(tmp_path / "killed", small_data, resume_from=checkpoint, av_store=store, **AUTHORS)
    assert without_times(rest[2:]) == without_times(expected[last:])
    assert not list(tmp_path.glob("killed/checkpoints/*/best_av.safetensors"))


def test_a_checkpoint_of_an_earlier_version_goes_on_in_the_stage(tmp_path: Path, small_data: Path) -> None:
    expected = run(tmp_path / "whole", small_data)
    first = run(tmp_path / "parts", small_data, stop_after=1)
    checkpoint = latest_checkpoint(tmp_path / "parts")
    assert checkpoint is not None
    state = content_of(checkpoint / "state.json")
    assert len(state.pop("av_maes")) == 1
    write(checkpoint / "state.json", state)
    rest = run(tmp_path / "parts", small_data, resume_from=checkpoint)
    assert without_times(first + rest[1:]) == without_times(expected)


def test_its_head_reads_the_last_real_frame(tmp_path: Path, small_data: Path) -> None:
    trainer = Trainer(config_of(small_data, **AUTHORS), tmp_path)
    model, batch = trainer.model.eval(), next(iter(trainer.valid_loader.in_order()))
    with torch.no_grad():
        states = model.av_encoder(batch.audio, batch.vision, batch.audio_lengths, batch.vision_lengths)
        last = torch.stack([frames[mask][-1] for frames, mask in zip(states.frames, states.mask, strict=True)])
        expected = model.av_head(last)[:, 0]
        mean = model.av_head(states.mean())[:, 0]
    assert not torch.allclose(expected, mean, atol=1e-3)
    predictions = torch.from_numpy(predict(model, trainer.valid_loader, "float32", head="av", last_frame=True)[:, 0])
    torch.testing.assert_close(predictions[batch.index], expected, atol=1e-6, rtol=0)
    loss = trainer._losses(trainer.stages[0], batch, None)["av"]
    torch.testing.assert_close(loss, (expected - batch.targets[:, 0]).abs().mean(), atol=1e-6, rtol=0)
