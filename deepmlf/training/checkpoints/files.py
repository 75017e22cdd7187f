"""What lies where in a trial's folder, and what a checkpoint's metadata says; asks for no PyTorch."""

import re
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deepmlf.errors import CheckpointError, first_line
from deepmlf.seal import file_sum, read_document

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
SUMS = "sums"
"""In that, too: checksums of the files beside it, by their names; releases up to 0.1 did not keep them."""
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
    """The newest checkpoint of a trial's folder that is complete and as it was written, or None.

    Newer ones that are not are taken away, as the trial writes them again, and a warning names what is damaged.
    """
    root = checkpoints_of(out_dir)
    for folder in reversed(complete_checkpoints(root) if root.is_dir() else []):
        try:
            check_files(folder, read_metadata(folder))
        except CheckpointError as error:
            warnings.warn(f"{error}; the trial goes on from what is before it", stacklevel=2)
            shutil.rmtree(folder)
        else:
            return folder
    return None


def has_best(out_dir: Path) -> bool:
    """Whether a trial has whole weights of a best epoch."""
    return (out_dir / BEST / STATE).is_file()


def read_metadata(folder: Path) -> dict[str, Any]:
    """The metadata of a checkpoint.

    Raises:
        CheckpointError: If there is none, or it is damaged.
    """
    path = folder / STATE
    try:
        metadata = read_document(path)
    except OSError:
        raise CheckpointError(f"{folder}: no complete checkpoint there") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({first_line(error)})") from None
    if not isinstance(metadata, dict):
        raise CheckpointError(f"{path}: damaged (it holds no settings)")
    return metadata


def check_files(folder: Path, metadata: Mapping[str, Any]) -> None:
    """Refuse a checkpoint with files that are not as they were written.

    Args:
        folder: The checkpoint.
        metadata: What `read_metadata` returned of it.

    Raises:
        CheckpointError: If a file is missing or another one than was written.
    """
    for name, written in metadata.get(SUMS, {}).items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing")
        if file_sum(path) != written:
            raise CheckpointError(f"{path}: damaged (its checksum is of something else)")
