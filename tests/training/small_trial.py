"""A trial that trains within a second, on a small synthetic set with the tiny random language model."""

from pathlib import Path
from typing import Any

from deepmlf.config.trial import TrialConfig
from deepmlf.training.machine.speed import without_measurements
from deepmlf.training.trainer import train

SMALL = {
    "model.language_model": "tiny-random", "model.fusion_depth": 2, "model.num_fusion_tokens": 3,
    "model.max_text_len": 16, "model.av_frames": 6, "model.av_layers": 1, "model.lora_rank": 4,
    "training.epochs": 3, "training.batch_size": 16, "training.lr_fusion": 1e-3, "curriculum.av_epochs": 2,
}  # fmt: skip


def config_of(data: Path, **settings: Any) -> TrialConfig:
    """The small trial with changes, ``model__fusion_depth=1`` for ``model.fusion_depth``."""
    dotted = {name.replace("__", "."): value for name, value in settings.items()}
    return TrialConfig.from_overrides(SMALL, {"data.path": str(data)}, dotted)


def run(
    out: Path,
    data: Path,
    resume_from: Path | None = None,
    stop_after: int | None = None,
    av_store: Path | None = None,
    keep: int = 1,
    **settings: Any,
) -> list[dict]:
    """Train and return the reports; `stop_after` breaks off at that epoch as a kill would."""
    reports: list[dict] = []
    config = config_of(data, **settings)

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        reports.append(dict(metrics))
        if metrics["epoch"] == stop_after:
            raise InterruptedError

    out.mkdir(parents=True, exist_ok=True)
    (out / "config.json").write_text(config.to_json())
    try:
        train(config, report, out_dir=out, resume_from=resume_from, av_store=av_store, keep=keep)
    except InterruptedError:
        pass
    return reports


def without_times(reports: list[dict]) -> list[dict]:
    """The same reports without what differs from run to run."""
    return [without_measurements(report) for report in reports]
