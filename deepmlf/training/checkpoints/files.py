"""What lies where in a trial's folder, and what a checkpoint's metadata says; asks for no PyTorch."""

import json
import re
from pathlib import Path
from typing import Any

from deepmlf.errors import CheckpointError

CONFIG = "config.json"
"""The trial's whole configuration."""
METRICS = "metrics.jsonl"
"""What each epoch reported, one JSON object a line."""
EVENTS = "events.out.tfevents.*"
"""The files that TensorBoard reads."""
CHECKPOINTS, BEST = "checkpoints", "best"
"""Folders: checkpoints to go on from, and the weights of the best epoch."""
STATE = "state.json"
"""Metadata of a checkpoint; one without it does not count."""
LANGUAGE_MODEL = "language_model"
"""In that: fingerprint of the language model that the weights belong to; releases up to 0.1 did not keep it."""
_NAME = re.compile(r"epoch_(\d{6})")


def checkpoints_of(out_dir: Path) -> Path:
    """The folder of a trial's checkpoints."""
    return out_dir / CHECKPOINTS


def checkpoint_name(epoch: int) -> str:
    """Name of the checkpoint after so many finished epochs; names sort as epochs do."""
    return f"epoch_{epoch:06d}"


def complete_checkpoints(root: Path) -> list[Path]:
    """Whole checkpoints in a trial's folder of them, oldest first."""
    return sorted(path for path in root.iterdir() if _NAME.fullmatch(path.name) and (path / STATE).is_file())


def latest_checkpoint(out_dir: Path) -> Path | None:
    """The newest complete checkpoint of a trial's folder, or None."""
    root = checkpoints_of(out_dir)
    complete = complete_checkpoints(root) if root.is_dir() else []
    return complete[-1] if complete else None


def has_best(out_dir: Path) -> bool:
    """Whether a trial has whole weights of a best epoch."""
    return (out_dir / BEST / STATE).is_file()


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a checkpoint.

    Raises:
        CheckpointError: If there is none.
    """
    try:
        metadata = json.loads((folder / STATE).read_text())
    except (OSError, ValueError):
        metadata = None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{folder}: no complete checkpoint there") from None
    return metadata
