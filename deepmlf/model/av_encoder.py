"""The audiovisual encoder: per modality pool, project, encode; then join frame by frame."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from deepmlf.config.model import ModelConfig
from deepmlf.model.augmentation import SoftPerm


@dataclass(frozen=True)
class AudioVisualStates:
    """Encoded frames [batch, frames, width] and which of them are real [batch, frames]."""

    frames: Tensor
    mask: Tensor
    audio: "AudioVisualStates | None" = None
    """Of joint frames: those of audio alone that they are made of, without a norm."""
    vision: "AudioVisualStates | None" = None

    def normed(self, norm: Callable[[Tensor], Tensor]) -> "AudioVisualStates":
        """The same frames, normed; absent ones stay zero."""
        return AudioVisualStates(norm(self.frames) * self.mask[..., None], self.mask)

    def mean(self) -> Tensor:
        """Mean over real frames, [batch, width]; zero where a sample has none."""
        weights = self.mask.to(self.frames.dtype)[..., None]
        return (self.frames * weights).sum(1) / weights.sum(1).clamp(min=1)

    def last(self) -> Tensor:
        """The last real frame, [batch, width]; zero where a sample has none."""
        index = self.mask.sum(1).clamp(min=1) - 1  # real frames come first
        return self.frames[torch.arange(len(index), device=index.device), index]


def pooling_weights(lengths: Tensor, time: int, frames: int, pooling: str, *, repeat_last: bool) -> Tensor:
    """Matrices that pool each sample's own frames: [batch, frames, time].

    Args:
        lengths: Real frames per sample, [batch].
        time: Frames of the padded tensor.
        frames: Frames to pool to.
        pooling: ``consecutive`` means over neighbours; ``strided`` over frames a, a+A, a+2A, … after repeating the
            last one up to a multiple of A (the authors').
        repeat_last: A sequence shorter than `frames` is filled with its last frame (the authors'); otherwise it keeps
            its frames and the rest stay zero.
    """
    device = lengths.device
    slot = torch.arange(frames, device=device)  # (A,)
    length = lengths[:, None]  # (B, 1)
    if pooling == "strided":
        repeats = max(1, math.ceil(time / frames))
        per_sample = (length + frames - 1) // frames  # q, (B, 1)
        index = slot[:, None] + torch.arange(repeats, device=device) * frames  # (A, q)
        source = index[None].minimum((length - 1).clamp(min=0)[..., None])  # (B, A, q)
        used = torch.arange(repeats, device=device) < per_sample[..., None]  # (B, 1, q)
        if not repeat_last:
            used = used & (slot < length)[..., None]
        weight = used / per_sample.clamp(min=1)[..., None]
        weights = torch.zeros(len(lengths), frames, max(time, 1), device=device)
        return weights.scatter_add_(2, source, weight.expand_as(source).float())[..., :time]
    kept = length.clamp(max=frames)  # frames that stay, (B, 1)
    divisor = kept.clamp(min=1)
    start = slot * length // divisor
    end = ((slot + 1) * length + divisor - 1) // divisor
    position = torch.arange(time, device=device)
    inside = (position >= start[..., None]) & (position < end[..., None]) & (slot < kept)[..., None]
    return inside / (end - start).clamp(min=1)[..., None]


def pool_frames(values: np.ndarray, frames: int, pooling: str) -> np.ndarray:
    """One utterance's frames [time, dim] as the encoder would pool them, without the slots that stay empty."""
    time = len(values)
    if time <= frames:
        return values
    weights = pooling_weights(torch.tensor([time]), time, frames, pooling, repeat_last=False)
    pooled: np.ndarray = weights[0].numpy() @ values
    return pooled


def sinusoidal_positions(frames: int, width: int, device: torch.device) -> Tensor:
    """[frames, width], [sin | cos] halves with frequencies exp(-ln(10000)·i/(width/2-1)); frames count from 1."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half, device=device) * (-math.log(10000) / max(half - 1, 1)))
    angles = torch.arange(1, frames + 1, device=device)[:, None] * frequencies
    positions = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(positions, (0, width - 2 * half))


class ModalityEncoder(nn.Module):
    """BatchNorm and pool (or pool and BatchNorm) → Linear·√e → positions → dropout → pre-norm Transformer encoder."""

    def __init__(self, features: int, config: ModelConfig, *, batch_norm: bool) -> None:
        super().__init__()
        width = config.av_width
        self.frames, self.width, self.pooling = config.av_frames, width, config.av_pooling
        self.softperm = SoftPerm(config.softperm_av_features)
        self.batch_norm = nn.BatchNorm1d(features) if batch_norm else None
        self.normalises_pooled = config.av_batch_norm_on == "pooled"
        self.projection = nn.Linear(features, width, bias=False)
        self.dropout = nn.Dropout(config.av_dropout)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, config.av_heads, 4 * width, config.av_dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(config.av_layers)
        )

    def pools_first(self, training: bool) -> bool:
        """Whether nothing comes before pooling, so that it may be done once for all epochs."""
        is_first = self.batch_norm is None or self.normalises_pooled
        return is_first and not (training and self.softperm.p_features > 0)

    def forward(self, values: Tensor, lengths: Tensor | None) -> tuple[Tensor, Tensor]:
        """Encode [batch, time, features].

        Args:
            values: Features, zero beyond each sample's length.
            lengths: Real frames per sample, [batch]; None takes all frames as real, as the authors' code does.

        Returns:
            Encoded frames [batch, frames, width] and a boolean mask of the real ones.
        """
        batch, time, _ = values.shape
        known = lengths is not None
        if lengths is None:
            lengths = torch.full((batch,), time, device=values.device)
        valid = torch.arange(time, device=values.device) < lengths[:, None]  # (B, T)
        values = self.softperm(values, valid)
        if not self.normalises_pooled:
            values = self._normalise(values, valid)
        weights = pooling_weights(lengths, time, self.frames, self.pooling, repeat_last=not known)
        pooled = weights.to(values.dtype) @ values  # (B, A, D)
        mask = weights.any(-1)  # (B, A)
        if self.normalises_pooled:
            pooled = self._normalise(pooled, mask)
        hidden = self.projection(pooled) * math.sqrt(self.width)
        positions = sinusoidal_positions(self.frames, self.width, hidden.device)
        # An all-zero frame counts as padding and gets no position vector.
        hidden = hidden + positions * (hidden[..., :1] != 0)
        hidden = self.dropout(hidden)
        if not known:
            padding = None
        else:
            # A sample without frames attends to its first (zero) frame; its output is masked afterwards.
            padding = ~mask
            padding[:, 0] &= mask.any(1)
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=padding)
        return hidden * mask[..., None], mask

    def _normalise(self, values: Tensor, valid: Tensor) -> Tensor:
        if self.batch_norm is None:
            return values
        frames = values[valid]  # (frames of all samples, D): statistics over real frames only
        if len(frames) < (2 if self.training else 1):
            return values
        return values.masked_scatter(valid[..., None], self.batch_norm(frames).to(values.dtype))


class AudioVisualEncoder(nn.Module):
    """Audio and vision encoders, joined on features: Linear(2e→e) → LayerNorm (DeepMLF, audiovisual encoder).

    Args:
        audio_dim: Features per audio frame.
        vision_dim: Features per vision frame.
        config: Sizes, pooling, batch norm and dropout.
    """

    def __init__(self, audio_dim: int, vision_dim: int, config: ModelConfig) -> None:
        super().__init__()
        norm = config.av_batch_norm
        self.audio = ModalityEncoder(audio_dim, config, batch_norm=norm in ("audio", "both"))
        self.vision = ModalityEncoder(vision_dim, config, batch_norm=norm in ("vision", "both"))
        self.join = nn.Linear(2 * config.av_width, config.av_width)
        self.norm = nn.LayerNorm(config.av_width)

    def forward(
        self, audio: Tensor, vision: Tensor, audio_lengths: Tensor | None = None, vision_lengths: Tensor | None = None
    ) -> AudioVisualStates:
        """Encode audio [batch, time, audio_dim] and vision [batch, time, vision_dim] into joint frames."""
        of_audio = AudioVisualStates(*self.audio(audio, audio_lengths))
        of_vision = AudioVisualStates(*self.vision(vision, vision_lengths))
        mask = of_audio.mask | of_vision.mask
        frames = self.norm(self.join(torch.cat([of_audio.frames, of_vision.frames], dim=-1)))
        return AudioVisualStates(frames * mask[..., None], mask, of_audio, of_vision)
