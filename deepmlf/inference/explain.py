"""What a model makes of one utterance: predictions by head, attention over frames, gates."""

import difflib
from dataclasses import dataclass

import numpy as np
import torch

from deepmlf.data.dataset import SPLITS, Dataset
from deepmlf.errors import DataError
from deepmlf.inference.predictor import Predictor
from deepmlf.training.forward import by_head, run_model
from deepmlf.training.frame_attention import record_attention
from deepmlf.training.metrics import sentiment_classes


@dataclass(frozen=True)
class BlockAttention:
    """One MM block's part in a prediction."""

    layer: int
    """The fused layer that it follows."""
    weights: np.ndarray
    """[n, frames], what each fusion token takes from each frame, mean over heads; rows sum to 1."""
    attention_gate: float
    """Open fraction, 0 to 1."""
    ffn_gate: float
    """Open fraction, 0 to 1."""


@dataclass(frozen=True)
class Explanation:
    """What a model makes of one utterance."""

    model: str
    """Name of the model's folder."""
    dataset: str
    split: str
    id: str
    text: str
    label: float | None
    label_range: float
    """Largest absolute label of the training data."""
    predictions: dict[str, float | None]
    """By head: ``task`` (final), ``text``, ``av``, ``fusion``; None if the head's loss did not count in training."""
    classes: dict[str, str]
    """``task`` and, if there is a label, ``label``: negative, neutral or positive."""
    blocks: list[BlockAttention]
    """From the lowest layer up."""
    has_frames: bool
    """False if the utterance has neither audio nor vision: attention then goes to nothing."""


def explain(predictor: Predictor, dataset: Dataset, utterance: str) -> Explanation:
    """Look into one prediction.

    Args:
        predictor: The model.
        dataset: Holds the utterance in any split; test is looked through first.
        utterance: Its id.

    Raises:
        DataError: If there is no such id, or the dataset does not fit the model.
    """
    split, row = _find(dataset, utterance)
    rows, model, trained_on = dataset.split(split), predictor.model, predictor.trained_on
    batch = predictor.loader(dataset, split).batch(np.array([row])).to(model.fusion_tokens.device)
    with torch.no_grad(), record_attention(model) as attention:
        output = run_model(model, batch, trained_on.precision)
        states = model.av_encoder(batch.audio, batch.vision, batch.audio_lengths, batch.vision_lengths)
    visible = states.mask[0].cpu().numpy()
    shown = visible if visible.any() else ~visible
    gates = model.gates()
    blocks = [
        BlockAttention(
            layer=layer,
            weights=attention[layer][0].mean(0).cpu().numpy()[:, shown],
            attention_gate=gates[f"gate/{layer}/attention"],
            ffn_gate=gates[f"gate/{layer}/ffn"],
        )
        for layer in model.active_layers
    ]
    said = {head: float(values[0]) for head, values in by_head(output).items()}
    predictions = {head: None if head in trained_on.silent_heads else value for head, value in said.items()}
    label = float(rows.labels[row]) if np.isfinite(rows.labels[row]) else None
    judged = {"task": said["task"]} | ({} if label is None else {"label": label})
    classes = sentiment_classes(trained_on.dataset.name, np.array(list(judged.values())))
    return Explanation(
        model=predictor.name,
        dataset=dataset.info.name,
        split=split,
        id=utterance,
        text=rows.texts[row],
        label=label,
        label_range=trained_on.label_range,
        predictions=predictions,
        classes=dict(zip(judged, classes, strict=True)),
        blocks=blocks,
        has_frames=bool(visible.any()),
    )


def _find(dataset: Dataset, utterance: str) -> tuple[str, int]:
    """Split and row of an utterance."""
    known: list[str] = []
    for split in reversed(SPLITS):
        ids = dataset.split(split).ids
        if utterance in ids:
            return split, ids.index(utterance)
        known += ids
    near = difflib.get_close_matches(utterance, known, n=3, cutoff=0.5)
    hint = f"near it are {', '.join(near)}" if near else f"ids look like {known[0]}"
    raise DataError(f"--id {utterance}: no such utterance in {dataset.path}; {hint}")
