"""Checkpoints written while the trial validates: whole before they are reported, few, small, no error lost."""

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from deepmlf.training import trainer
from deepmlf.training.checkpoints import save
from deepmlf.training.checkpoints.files import latest_checkpoint, read_metadata
from deepmlf.training.trainer import Trainer, train
from tests.training.small_trial import config_of, run, without_times


def patch_writing(monkeypatch: pytest.MonkeyPatch, before: Callable[[Path], None]) -> None:
    """Call `before` with the path of every tensor file about to be written."""

    def save_late(tensors: dict[str, Any], path: Path) -> None:
        before(path)
        save_file(tensors, path)

    monkeypatch.setattr(save, "save_file", save_late)


def test_tensors_are_written_while_the_trial_validates(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    validating, predict = threading.Event(), trainer.predict_heads

    def watched_predict(*arguments: Any, **options: Any) -> Any:
        validating.set()
        return predict(*arguments, **options)

    def before(path: Path) -> None:
        if path.name == "optimizer.safetensors":
            assert validating.wait(20), "validation waits for the checkpoint"
            validating.clear()

    monkeypatch.setattr(trainer, "predict_heads", watched_predict)
    patch_writing(monkeypatch, before)
    reports = run(tmp_path, small_data, curriculum__name="joint")
    assert [report["epoch"] for report in reports] == [1, 2, 3]


def test_a_report_has_its_checkpoint_whole_on_disk(tmp_path: Path, small_data: Path) -> None:
    whole: list[tuple[int, int]] = []

    def report(metrics: dict[str, Any], folder: Path | None) -> None:
        assert folder is not None
        assert folder == latest_checkpoint(tmp_path)
        assert sorted(path.name for path in folder.iterdir()) == [
            "model.safetensors", "optimizer.safetensors", "random.safetensors", "state.json",
        ]  # fmt: skip
        whole.append((metrics["epoch"], read_metadata(folder)["epoch"]))

    train(config_of(small_data), report, out_dir=tmp_path)
    assert whole == [(epoch, epoch) for epoch in range(1, 6)]


@pytest.mark.parametrize(
    ("keep", "epochs", "expected"),
    [(1, 3, [3]), (2, 3, [2, 3]), (9, 3, [1, 2, 3]), (4, 6, [3, 4, 5, 6]), (5, 6, [2, 3, 4, 5, 6])],
)
def test_the_newest_are_kept(tmp_path: Path, small_data: Path, keep: int, epochs: int, expected: list[int]) -> None:
    (tmp_path / "checkpoints" / ".unfinished.1").mkdir(parents=True)  # of a process that died
    run(tmp_path, small_data, keep=keep, curriculum__name="joint", training__epochs=epochs)
    names = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert names == [f"epoch_{epoch:06d}" for epoch in expected]


def test_resuming_an_older_one_replaces_what_came_after_it(tmp_path: Path, small_data: Path) -> None:
    whole = run(tmp_path, small_data, keep=3, curriculum__name="joint")
    first = tmp_path / "checkpoints" / "epoch_000001"
    again = run(tmp_path, small_data, keep=3, resume_from=first, stop_after=2, curriculum__name="joint")
    assert without_times(again) == without_times(whole[:2])
    assert latest_checkpoint(tmp_path) == first.with_name("epoch_000002")


@pytest.mark.parametrize("part", ["model", "optimizer"])
def test_a_full_disk_ends_the_trial_with_its_error(
    tmp_path: Path, small_data: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    reports = run(tmp_path, small_data, stop_after=1)

    def before(path: Path) -> None:
        if path.name == f"{part}.safetensors":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    patch_writing(monkeypatch, before)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        run(tmp_path, small_data, resume_from=latest_checkpoint(tmp_path))
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["epoch_000001"]
    monkeypatch.undo()
    rest = run(tmp_path, small_data, resume_from=latest_checkpoint(tmp_path))
    assert without_times(rest[:1]) == without_times(reports)
    assert rest[-1]["finished"] == "full"


def test_a_checkpoint_is_little_more_than_what_is_trained(tmp_path: Path, small_data: Path) -> None:
    settings = {"model__ffn": "lora", "model__lora_rank": 64, "curriculum__name": "joint"}
    run(tmp_path, small_data, **settings)
    trial = Trainer(config_of(small_data, **settings), tmp_path)
    numbers = sum(parameter.numel() for parameter in trial.parameters.values())
    folder = latest_checkpoint(tmp_path)
    assert folder is not None
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert 3 * 4 * numbers < size <= 1.1 * 3 * 4 * numbers  # float32 weights and two moments
