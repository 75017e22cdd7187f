"""What a model makes of one utterance: predictions by head, attention over frames, gates."""

import difflib
from dataclasses import dataclass

import numpy as np
import torch

from deepmlf.data.dataset import SPLITS, Dataset
from deepmlf.data.task import Task
from deepmlf.errors import DataError
from deepmlf.inference.predictor import Predictor, class_of
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
    label: float | str | None
    """A number or the name of a class."""
    task: Task
    """What the model predicts."""
    predictions: dict[str, float | dict[str, float] | None]
    """By head: ``task`` (final), ``text``, ``av``, ``fusion``; a number, or the probability of each class; None if the
    head's loss did not count in training."""
    classes: dict[str, str]
    """``task`` and, if there is a label, ``label``: negative, neutral or positive, or a class of the data's."""
    blocks: list[BlockAttention]
    """From the lowest layer up."""
    has_frames: bool
    """False if the utterance has neither audio nor vision: attention then goes to nothing."""

    def said(self, head: str) -> str:
        """What a head says, in figures: a number, or the probability of the likeliest class."""
        prediction = self.predictions[head]
        if prediction is None:
            return "not trained"
        if isinstance(prediction, dict):
            return f"{max(prediction.values()):.1%}"
        return f"{prediction:+.4f}"


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
    values = {head: predictor.task.values(outputs)[0] for head, outputs in by_head(output).items()}
    said = {head: None if head in trained_on.silent_heads else _said(predictor.task, of) for head, of in values.items()}
    label, classes = _judged(predictor, dataset, values["task"], rows.labels[row])
    return Explanation(
        model=predictor.name,
        dataset=dataset.info.name,
        split=split,
        id=utterance,
        text=rows.texts[row],
        label=label,
        task=predictor.task,
        predictions=said,
        classes=classes,
        blocks=blocks,
        has_frames=bool(visible.any()),
    )


def _said(task: Task, value: np.ndarray) -> float | dict[str, float]:
    if task.is_classification:
        return dict(zip(task.classes, value.tolist(), strict=True))
    return float(value)


def _judged(
    predictor: Predictor, dataset: Dataset, said: np.ndarray, label: float
) -> tuple[float | str | None, dict[str, str]]:
    """The label, if there is one of the kind that the model predicts, and the classes of prediction and label."""
    task = predictor.task
    if task.is_classification:
        name = class_of(dataset, label)
        return name, {"task": task.classes[int(said.argmax())]} | ({} if name is None else {"label": name})
    theirs = dataset.info.task
    number = float(label) if np.isfinite(label) and not theirs.is_classification else None
    classes = {"task": sentiment_classes(task, np.array([said]))[0]}
    if number is not None:  # by the data's own range, which need not be that of the training
        classes["label"] = sentiment_classes(theirs, np.array([number]))[0]
    return number, classes


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
