"""Audiovisual encoders that the trials of an experiment share: each is trained once, whichever trial comes first.

What the audiovisual stage yields depends only on its key; everything that draws random numbers in it is seeded apart
from the rest of the trial. So a trial that finds the outcome stored goes on with the same numbers as one that trained.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from filelock import BaseFileLock, FileLock
from torch import Tensor, nn

from deepmlf.errors import CheckpointError
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.weights import read_tensors
from deepmlf.training.checkpoints.files import check_files, read_metadata
from deepmlf.training.checkpoints.save import load_optimizer_state, optimizer_state, publish

_AV_PARTS = ("av_encoder.", "av_head.")


class StoredEncoder:
    """The place of one key in the store: ``<root>/<hash of the key>/`` with weights, moments and the key itself.

    Args:
        root: The store's folder, made if missing.
        key: What `av_key.key_of` returned.
    """

    def __init__(self, root: Path, key: dict[str, Any]) -> None:
        self._key = key
        self.folder = root / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]

    def lock(self) -> BaseFileLock:
        """Held by the trial that reads or makes the entry; the system frees that of a process that died."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(self.folder.with_name(f".{self.folder.name}.lock"))

    def load(
        self, model: DeepMLF, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
    ) -> dict[str, Any] | None:
        """Bring encoder, head and their optimiser state to where the stage ended.

        Returns:
            What the stage's last epoch reported; None, with nothing changed, if there is no entry, or one that is
            torn or of another key.
        """
        try:
            metadata = read_metadata(self.folder)
            check_files(self.folder, metadata)
            weights, moments = (read_tensors(self.folder / f"{part}.safetensors") for part in ("model", "optimizer"))
        except CheckpointError:
            return None
        if metadata.get("key") != self._key or _shapes(weights) != _shapes(_av_weights(model)):
            return None
        model.load_state_dict(weights, strict=False)
        load_optimizer_state(moments, parameters, optimizer)
        metrics: dict[str, Any] = metadata["metrics"]
        return metrics

    def save(
        self,
        model: DeepMLF,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        metrics: dict[str, Any],
    ) -> None:
        """Store where the stage ended, whole or not at all, in place of whatever is there."""
        weights, moments = av_state(model, parameters, optimizer)
        publish(self.folder, {"model": weights, "optimizer": moments}, {"key": self._key, "metrics": metrics})


def av_state(
    model: DeepMLF, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of the audiovisual encoder and its head, and their optimiser state; no copies."""
    own = {name: parameter for name, parameter in parameters.items() if name.startswith(_AV_PARTS)}
    return _av_weights(model), optimizer_state(own, optimizer)


def _av_weights(model: DeepMLF) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if name.startswith(_AV_PARTS)}


def _shapes(tensors: dict[str, Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}
