"""The model of a trial, and what it makes of batches."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from deepmlf.config.trial import TrialConfig
from deepmlf.data.batch import Batch
from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader, TokensOf
from deepmlf.model.av_encoder import pool_frames
from deepmlf.model.decode import TextPrefix
from deepmlf.model.deepmlf import DeepMLF, DeepMLFOutput
from deepmlf.model.language_model import dtype_of, load_language_model, load_tokenizer
from deepmlf.model.lm.loading import check_vocabulary
from deepmlf.training.losses import lm_loss
from deepmlf.training.machine.device import pick_device
from deepmlf.training.machine.memory import keep_freed_memory
from deepmlf.training.machine.prefetch import on_device
from deepmlf.training.reports import FROZEN_LANGUAGE_LOSS, LANGUAGE_LOSS
from deepmlf.training.stores.text_prefixes import PrefixCache
from deepmlf.training.stores.token_ids import token_ids

Head = Literal["task", "av", "text"]
HEADS = ("task", "text", "av", "fusion")


def build_model(config: TrialConfig, dataset: Dataset) -> tuple[DeepMLF, TokensOf, int]:
    """The model of a trial on its device, the token ids of each of the dataset's splits, and the pad token.

    Raises:
        LanguageModelError: If the language model is not available, or its tokenizer is another's.
        ConfigError: If the device cannot be used, or the model does not fit the language model or the dataset.
    """
    keep_freed_memory()
    device = pick_device(config.training.device)
    dtype = dtype_of(config.training.precision)
    name = config.model.language_model
    tokenizer = load_tokenizer(name, config.model.special_tokens)
    language_model = load_language_model(name, str(device), dtype)
    check_vocabulary(name, tokenizer.vocab_size, language_model.vocab_size)
    language_model = language_model.first_layers(config.model.lm_layers)
    torch.manual_seed(config.training.seed)
    config.model.check_modalities(dataset.info.missing)
    model = DeepMLF(
        language_model, dataset.info.audio_dim, dataset.info.vision_dim, config.model, dataset.info.task.outputs
    )
    model = model.to(device)
    tokens_of = partial(token_ids, dataset, tokenizer=tokenizer, max_length=config.model.max_text_len)
    return model, tokens_of, tokenizer.pad_token_id


def run_model(
    model: DeepMLF, batch: Batch, precision: str, prefix: TextPrefix | None = None, *, plain: bool = False
) -> DeepMLFOutput:
    """One forward pass of a batch, under bf16 autocast if asked; predictions come back in float32."""
    device = batch.input_ids.device.type
    half = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
    with half:
        output: DeepMLFOutput = model(
            batch.input_ids,
            batch.attention_mask,
            batch.audio,
            batch.vision,
            text_lengths=batch.text_lengths,
            audio_lengths=batch.audio_lengths,
            vision_lengths=batch.vision_lengths,
            prefix=prefix,
            plain=plain,
        )
    predictions: dict[str, Any] = {name: said.float() for name, said in _said(output).items()}
    return replace(output, **predictions)


@torch.no_grad()
def predict(
    model: DeepMLF,
    loader: Loader,
    precision: str,
    *,
    head: Head = "task",
    prefixes: PrefixCache | None = None,
    last_frame: bool = False,
) -> np.ndarray:
    """Outputs of one head for a split, in the split's own order, [N, outputs]; `last_frame` is for ``av`` alone."""
    if head != "av":
        return predict_heads(model, loader, precision, (head,), prefixes=prefixes)[head]
    was_training = model.training
    model.eval()
    outputs = np.zeros((len(loader.labels), model.outputs), np.float32)
    for batch, _ in on_device(loader.in_order(), model.fusion_tokens.device):
        outputs[batch.index.numpy()] = predict_av(model, batch, last_frame=last_frame).cpu().numpy()
    model.train(was_training)
    return outputs


@torch.no_grad()
def predict_heads(
    model: DeepMLF,
    loader: Loader,
    precision: str,
    heads: Sequence[str] = HEADS,
    *,
    prefixes: PrefixCache | None = None,
) -> dict[str, np.ndarray]:
    """Outputs of those of the heads that there are for a split, in the split's own order, [N, outputs] each."""
    was_training = model.training
    model.eval()
    device = model.fusion_tokens.device
    outputs: dict[str, np.ndarray] = {}
    for batch, prefix in on_device(loader.in_order(), device, prefixes):
        for head, values in by_head(run_model(model, batch, precision, prefix), heads).items():
            of_all = outputs.setdefault(head, np.zeros((len(loader.labels), model.outputs), np.float32))
            of_all[batch.index.numpy()] = values
    model.train(was_training)
    return outputs


@torch.no_grad()
def language_loss(
    model: DeepMLF,
    loader: Loader,
    precision: str,
    pad_token_id: int,
    *,
    prefixes: PrefixCache | None = None,
    frozen: bool = False,
) -> float:
    """Mean next-token cross-entropy over a split's valid text positions, in nats.

    MM blocks change the text's states, too: how much of the language model's own distribution is left, this tells.

    Args:
        model: The model.
        loader: Of the split.
        precision: Of the forward pass.
        pad_token_id: What the last token of a text predicts.
        prefixes: Of the split's texts, if they are kept; not with `frozen`.
        frozen: Take the language model by itself, without any MM block.
    """
    was_training, active = model.training, model.active_layers
    model.eval()
    total, positions = 0.0, 0
    try:
        model.active_layers = () if frozen else active
        for batch, prefix in on_device(loader.in_order(), model.fusion_tokens.device, prefixes):
            output = run_model(model, batch, precision, prefix, plain=frozen)
            total += lm_loss(model, output, batch.input_ids, pad_token_id).item() * len(output.text_rows)
            positions += len(output.text_rows)
    finally:
        model.active_layers = active
        model.train(was_training)
    return total / positions


class LanguageLosses:
    """The next-token losses of a split that a trial reports: the model's own, and the language model's by itself.

    Args:
        model: The trial's.
        loader: Of the split.
        precision: Of the forward pass.
        pad_token_id: What the last token of a text predicts.
    """

    def __init__(self, model: DeepMLF, loader: Loader, precision: str, pad_token_id: int) -> None:
        self._loss = partial(language_loss, model, loader, precision, pad_token_id)
        self._frozen: float | None = None

    def metrics(self, prefixes: PrefixCache | None) -> dict[str, float]:
        """Both, as the model is now; `prefixes` of the split's texts, if they are kept."""
        if self._frozen is None:
            self._frozen = self._loss(frozen=True)
        return {LANGUAGE_LOSS: self._loss(prefixes=prefixes), FROZEN_LANGUAGE_LOSS: self._frozen}


def by_head(output: DeepMLFOutput, heads: Sequence[str] = HEADS) -> dict[str, np.ndarray]:
    """A batch's outputs by head, [batch, outputs] each; those of the fusion head are the mean over its tokens. Without
    tokens there is none."""
    return {head: (of.mean(1) if of.ndim > 2 else of).cpu().numpy() for head, of in _said(output, heads).items()}


def _said(output: DeepMLFOutput, heads: Sequence[str] = HEADS) -> dict[str, Tensor]:
    """What each of the heads that there is says of a batch."""
    outputs = {head: getattr(output, head) for head in heads}
    return {head: said for head, said in outputs.items() if said is not None}


def predict_av(model: DeepMLF, batch: Batch, *, last_frame: bool = False) -> Tensor:
    """Outputs of the audiovisual head alone, [batch, outputs], from the mean or the last frame."""
    lengths = batch.audio_lengths, batch.vision_lengths
    return model.predict_av(batch.audio, batch.vision, *lengths, last_frame=last_frame)


def pooling(model: DeepMLF, *, training: bool) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What a loader may do once in place of the audiovisual encoder."""
    encoders = {"audio": model.av_encoder.audio, "vision": model.av_encoder.vision}
    return {
        modality: partial(pool_frames, frames=encoder.frames, pooling=encoder.pooling)
        for modality, encoder in encoders.items()
        if encoder.pools_first(training)
    }
