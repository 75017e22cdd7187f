"""What a model makes of one utterance: predictions by head and without each part, attention over frames, gates."""

import difflib
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from deepmlf.data.dataset import SPLITS, Dataset
from deepmlf.data.task import Task
from deepmlf.errors import DataError
from deepmlf.inference.occlusion import Occlusion, occlude
from deepmlf.inference.predictor import Predictor, class_of
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.training.forward import HEADS, by_head, run_model
from deepmlf.training.frame_attention import looking, record_attention
from deepmlf.training.metrics import sentiment_classes


@dataclass(frozen=True)
class BlockAttention:
    """One MM block's part in a prediction."""

    layer: int
    """The fused layer that it follows."""
    weights: np.ndarray
    """[n, frames], what each token takes from each frame, mean over heads; rows sum to 1, or are 0 where a token
    attends to a modality that the utterance lacks."""
    attention_gate: float | None
    """What multiplies the cross-attention: 0 to 1 of a sigmoid, -1 to 1 of a tanh; None without a gate."""
    ffn_gate: float | None
    """The same of the FFN."""


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
    head's loss did not count in training, or there is no such head."""
    classes: dict[str, str]
    """``task`` and, if there is a label, ``label``: negative, neutral or positive, or a class of the data's."""
    blocks: list[BlockAttention]
    """From the lowest layer up."""
    has_frames: bool
    """False if the utterance has neither audio nor vision: attention then goes to nothing."""
    tokens: list[str]
    """Names of the tokens that attend, which are the rows of attention: numbers; with groups of fusion tokens ``audio
    1``, ``vision 1``, ``shared 1``; without fusion tokens those of the text."""
    without: Occlusion
    """What the prediction becomes when something is taken away."""
    attends: Literal["fusion", "text"] = "fusion"
    """Which tokens attend."""

    @property
    def untrained(self) -> list[str]:
        """Heads that the model has and whose loss did not count in training."""
        return [
            head
            for head, said in self.predictions.items()
            if said is None and not (head == "fusion" and self.attends == "text")
        ]

    def said(self, head: str) -> str:
        """What a head says, in figures: a number, or the probability of the likeliest class."""
        prediction = self.predictions[head]
        if isinstance(prediction, dict):
            return f"{max(prediction.values()):.1%}"
        return "nothing" if prediction is None else f"{prediction:+.4f}"


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
    blocks = _blocks(model, attention, visible, looking(model, batch)[0].cpu().numpy())
    values = {head: predictor.task.values(outputs)[0] for head, outputs in by_head(output).items()}
    said = {
        head: None if head in trained_on.silent_heads or head not in values else _said(predictor.task, values[head])
        for head in HEADS
    }
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
        tokens=_names(predictor, batch.input_ids[0].tolist()),
        without=occlude(predictor, dataset, split, row),
        attends="fusion" if model.config.num_fusion_tokens else "text",
    )


def _blocks(
    model: DeepMLF, attention: dict[int, torch.Tensor], visible: np.ndarray, looks: np.ndarray
) -> list[BlockAttention]:
    """Each active MM block's part, of the frames that are `visible` and the tokens that have any to look at."""
    shown = visible if visible.any() else ~visible
    looks = looks | ~looks.any()
    gates = model.gates()
    return [
        BlockAttention(
            layer=layer,
            weights=attention[layer][0].mean(0).cpu().numpy()[:, shown] * looks[:, None],
            attention_gate=gates.get(f"gate/{layer}/attention"),
            ffn_gate=gates.get(f"gate/{layer}/ffn"),
        )
        for layer in model.active_layers
    ]


def _names(predictor: Predictor, ids: list[int]) -> list[str]:
    """Names of the tokens that attend."""
    config = predictor.model.config
    if not config.num_fusion_tokens:
        return [f"{place} {predictor.tokenizer.text_of(token)}" for place, token in enumerate(ids, 1)]
    if config.fusion_groups == "shared":
        return [str(place) for place in range(1, config.num_fusion_tokens + 1)]
    groups = zip(("audio", "vision", "shared"), config.group_sizes, strict=True)
    return [f"{group} {place}" for group, size in groups for place in range(1, size + 1)]


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
