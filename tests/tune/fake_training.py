"""A mock of the trainer, for tests of the search: instant epochs with a known learning curve.

The curve falls towards a floor that depends on the setting; ``training.lr_av`` of 0.5 raises, 0.25 is not
finite, 0.125 kills the worker once after its first epoch, 0.0625 kills it every time, 0.03125 writes checkpoints of
8 MB, 0.015625 hangs once after its first epoch, 0.0078125 takes 200 MB of memory every tenth of a second,
0.00390625 takes three seconds for an epoch, 0.001953125 a second and a half, while its likes wait for it.
"""

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from tenacity import stop_after_delay

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import NonFiniteLossError
from deepmlf.locks import locked
from deepmlf.places import RemoteFolder

EPOCH_SECONDS = 0.05
SLOW = {0.00390625: 3.0, 0.001953125: 1.5}
ALONE = 0.001953125


def train(config: TrialConfig, report: Callable[[dict[str, Any], Path | None], None], **options: Any) -> None:
    lock = FileLock(options["out_dir"].parent / ".alone.lock")
    with locked(lock, "another trial's stage") if config.training.lr_av == ALONE else contextlib.nullcontext():
        _train(config, report, **options)


def _train(
    config: TrialConfig,
    report: Callable[[dict[str, Any], Path | None], None],
    *,
    out_dir: Path,
    resume_from: Path | None = None,
    av_store: Path | None = None,
    cache_gb: float = 0.0,
    keep: int = 1,
) -> None:
    if config.training.lr_av == 0.5:
        raise ValueError("learning rate of 0.5")
    if config.training.lr_av == 0.25:
        raise NonFiniteLossError("the loss became nan in epoch 1")
    if config.training.lr_av == 0.0625:
        os._exit(1)
    start = json.loads((resume_from / "state.json").read_text())["epoch"] if resume_from else 0
    floor = 0.5 + abs(config.model.num_fusion_tokens - 8) / 10
    for epoch in range(max(start, 1), config.training.epochs + 1):
        time.sleep(SLOW.get(config.training.lr_av, EPOCH_SECONDS))
        folder = out_dir / "checkpoints" / f"epoch_{epoch:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = folder / ".state.json"
        if config.training.lr_av == 0.03125:
            (folder / "model.safetensors").write_bytes(bytes(8_000_000))
        unfinished.write_text(json.dumps({"epoch": epoch}))
        unfinished.rename(folder / "state.json")  # whole or not at all, as the real trainer's
        with (out_dir / "epochs.log").open("a") as log:
            log.write(f"{epoch}\n")
        metrics = {
            "stage": "fusion", "epoch": epoch, "fusion_epoch": epoch,
            "valid/MAE": floor + 1 / epoch, "valid/Corr": 1 - floor / 2 - 0.1 / epoch, "train/loss": 1 / epoch,
            "model/trained_parameters": 1000 * config.model.num_fusion_tokens,
        }  # fmt: skip
        if epoch == config.training.epochs:
            metrics["finished"] = "full"
        report(metrics, folder)
        if config.training.lr_av == 0.125 and not resume_from:
            os._exit(1)
        if config.training.lr_av == 0.015625 and not resume_from:
            time.sleep(600)
        taken = []
        while config.training.lr_av == 0.0078125:
            taken.append(b"x" * 200_000_000)
            time.sleep(0.1)


def train_impatiently(*args: Any, **kwargs: Any) -> None:
    """The same in a worker that waits for storage for half a second only."""
    for method in (RemoteFolder.upload, RemoteFolder.download, RemoteFolder.versions, RemoteFolder.delete):
        method.retry.stop = stop_after_delay(0.5)  # type: ignore[attr-defined]
    train(*args, **kwargs)


def train_counted(config: TrialConfig, report: Callable[[dict[str, Any], Path | None], None], **options: Any) -> None:
    """The same, and beside the dataset a log of every epoch that no checkpoint had: files of a bucket's trial go."""
    resume_from = options.get("resume_from")
    known = json.loads((resume_from / "state.json").read_text())["epoch"] if resume_from else 0

    def counted(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        if metrics["epoch"] > known:
            with (Path(config.data.path).parent / "trained.log").open("a") as log:
                log.write(f"{options['out_dir'].name} {metrics['epoch']}\n")
        report(metrics, checkpoint)

    train(config, counted, **options)
