"""Where fusion tokens, or text without any, look: attention of the MM blocks over audiovisual frames."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepmlf.data.batch import Batch
from deepmlf.data.loader import Loader
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.training.forward import run_model
from deepmlf.training.metrics import ATTENTION


@contextmanager
def record_attention(model: DeepMLF) -> Iterator[dict[int, Tensor]]:
    """Each active MM block's attention weights [batch, heads, n, A] by fused layer, of the last forward pass inside.

    Without fusion tokens those of the text, [batch, heads, seq, A], its padding included.
    """
    weights: dict[int, Tensor] = {}

    def record(layer: int, attention: Any, inputs: tuple[Any, ...]) -> None:
        weights[layer] = attention.attention_weights(*inputs)

    with ExitStack() as hooks:
        for layer in model.active_layers:
            attention: Any = model.mm_blocks[str(layer)].attention
            hooks.callback(attention.register_forward_pre_hook(partial(record, layer)).remove)
        yield weights


@torch.no_grad()
def attention_over_frames(model: DeepMLF, loader: Loader, precision: str) -> dict[str, list[float]]:
    """What the fusion tokens take from each frame: mean over tokens, heads and a batch of utterances all over a split.

    Tokens that have no frame to look at are left out. Without fusion tokens it is the text's that look.

    Returns:
        ``attention/LAYER``: A shares that sum to 1, for each active MM block; nothing if no utterance has a frame.
    """
    was_training = model.training
    model.eval()
    utterances = len(loader.labels)
    rows = np.linspace(0, utterances - 1, min(utterances, loader.batch_size)).astype(int)
    batch = loader.batch(rows).to(model.fusion_tokens.device)
    with record_attention(model) as weights:
        run_model(model, batch, precision)
    model.train(was_training)
    looks = looking(model, batch)
    if not looks.any():
        return {}
    means = {layer: attention.float().mean(1)[looks].mean(0) for layer, attention in weights.items()}
    return {f"{ATTENTION}{layer}": [round(share, 5) for share in mean.tolist()] for layer, mean in means.items()}


def looking(model: DeepMLF, batch: Batch) -> Tensor:
    """Which tokens attend to anything, a boolean [batch, n], or without fusion tokens [batch, seq]: a modality that an
    utterance lacks has no frame, and padding is no text."""
    has_audio, has_vision = batch.audio_lengths > 0, batch.vision_lengths > 0
    has_frames = has_audio | has_vision
    if not model.config.num_fusion_tokens:
        return batch.attention_mask.bool() & has_frames[:, None]
    of_groups = zip((has_audio, has_vision, has_frames), model.config.group_sizes, strict=True)
    return torch.cat([has[:, None].expand(-1, size) for has, size in of_groups], dim=1)
