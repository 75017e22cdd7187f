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

from deepmlf.config import Stage, TrialConfig
from deepmlf.errors import CheckpointError
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.weights import read_tensors
from deepmlf.training.checkpoints.files import read_metadata
from deepmlf.training.checkpoints.save import load_optimizer_state, optimizer_state, publish

_AV_PARTS = ("av_encoder.", "av_head.")
_TRAINING = (
    "batch_size", "accumulation_steps", "min_lr", "warmup_epochs", "weight_decay", "clip_value", "seed",
)  # fmt: skip
_OWN = ("batch_size", "accumulation_steps", "weight_decay")
"""Settings of training that the stage may have of its own."""
_LATER = (
    "model.av_batch_norm_on", "training.accumulation", "training.decayed", "training.clip_av",
    "curriculum.av_schedule", "curriculum.av_plateau", "curriculum.av_patience", "curriculum.av_weights",
    "curriculum.av_readout",
)  # fmt: skip
"""Settings that came later. At their defaults they are left out, so that earlier entries are found again."""


def is_of_stage(name: str, config: TrialConfig) -> bool:
    """Whether the outcome of a trial's audiovisual stage depends on a setting, by its dotted name."""
    section, _, part = name.partition(".")
    if section == "training" and part in _OWN:
        return getattr(config.curriculum, f"av_{part}") is None
    is_part = section in ("model", "curriculum") and part.startswith("av_")
    return (
        is_part
        or name in ("model.softperm_av_features", "data.standardize", *_LATER)
        or (section == "training" and part in _TRAINING)
    )


def key_of(config: TrialConfig, stage: Stage, fingerprint: str) -> dict[str, Any]:
    """All that the outcome of a trial's audiovisual stage depends on, as plain JSON values.

    Args:
        config: The trial.
        stage: Its stage.
        fingerprint: The dataset's.
    """
    settings, defaults = config.flat(), TrialConfig().flat()
    own = {name: value for name in _OWN if (value := getattr(stage, name)) is not None}
    model = [
        name
        for section, name in (path.split(".") for path in settings if path not in _LATER)
        if section == "model" and (name.startswith("av_") or name == "softperm_av_features")
    ]
    key = {
        "data": {"fingerprint": fingerprint, "standardize": config.data.standardize},
        "model": {name: settings[f"model.{name}"] for name in model},
        "training": {name: settings[f"training.{name}"] for name in _TRAINING} | own,
        "stage": stage.model_dump(mode="json", exclude=set(_OWN)),
    }
    return key | {name: settings[name] for name in _LATER if settings[name] != defaults[name]}


class StoredEncoder:
    """The place of one key in the store: ``<root>/<hash of the key>/`` with weights, moments and the key itself.

    Args:
        root: The store's folder, made if missing.
        key: What `key_of` returned.
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
            weights, moments = (read_tensors(self.folder / f"{part}.safetensors") for part in ("model", "optimizer"))
        except CheckpointError:
            return None
        if metadata.get("key") != self._key or metadata.get("sha256") != _digest(weights, moments):
            return None
        if _shapes(weights) != _shapes(_av_weights(model)):
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
        metadata = {"key": self._key, "sha256": _digest(weights, moments), "metrics": metrics}
        publish(self.folder, {"model": weights, "optimizer": moments}, metadata)


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


def _digest(*parts: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for tensors in parts:
        for name, tensor in sorted(tensors.items()):
            digest.update(name.encode() + tensor.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
