"""One batch of utterances, on the host or on a device."""

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

_ON_THE_HOST = ("index", "text_lengths")


@dataclass(frozen=True)
class Batch:
    """One padded batch."""

    input_ids: Tensor
    """[batch, seq]"""
    attention_mask: Tensor
    """[batch, seq], 1 on valid tokens."""
    audio: Tensor
    """[batch, time, audio_dim], zero beyond each length."""
    audio_lengths: Tensor
    """[batch]"""
    vision: Tensor
    """[batch, time, vision_dim]"""
    vision_lengths: Tensor
    """[batch]"""
    targets: Tensor
    """[batch, 1], what is trained on: see `Task.targets`."""
    index: Tensor
    """[batch], positions in the split; never leaves the host."""
    text_lengths: Tensor
    """[batch], valid tokens of each text; never leaves the host, which lays out rows by it."""

    def to(self, device: torch.device) -> "Batch":
        """The same batch on a device."""
        names = [field.name for field in fields(self) if field.name not in _ON_THE_HOST]
        return replace(self, **{name: to_device(getattr(self, name), device) for name in names})


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A host's tensor on a device; a GPU fetches it from pinned memory, and the host does not wait."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
