"""What a prediction becomes when a part of the utterance is taken away, by the same model, and how usual that is."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch

from deepmlf.data.batch import Batch
from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.inference.predictor import Predictor
from deepmlf.training.forward import by_head, run_model
from deepmlf.training.stores.token_ids import ids_of

COMPARED = 64
"""Utterances of the split, evenly spread, that an utterance is compared with at most."""
WORDS = "all words"
_PARTS = {"audio": ("audio",), "vision": ("vision",), "audio and vision": ("audio", "vision"), WORDS: (WORDS,)}


@dataclass(frozen=True)
class Removal:
    """A prediction without a part."""

    what: str
    """``audio``, ``vision``, ``audio and vision``, ``all words``, or a word with its place: ``3 great``."""
    change: float
    """Prediction without the part less the one with all; of classes, of the probability of the one that is said."""
    usual: float | None = None
    """Median size of that change in the split; None of a word."""
    rank: float | None = None
    """Share of the split's utterances that change less; None of a word."""


@dataclass(frozen=True)
class Occlusion:
    """What becomes of one prediction."""

    said: float
    """With all there: the number, or the probability of the class that is said."""
    parts: list[Removal]
    """Of the modalities that the utterance has, and all its words."""
    words: list[Removal]
    """Each word, in their order."""
    compared: int
    """Utterances of the split, this one perhaps among them, that parts are compared with."""


def occlude(predictor: Predictor, dataset: Dataset, split: str, row: int) -> Occlusion:
    """Take away each modality, then each word of an utterance.

    A part that is taken away is absent, as in data that lacks it; a text without a word is read as if it had never
    been there. What the model never met in training it may answer oddly: that is its behaviour, not the part's worth.

    Args:
        predictor: The model.
        dataset: Holds the utterance.
        split: The one that it is in.
        row: Its position there.

    Raises:
        DataError: If the dataset does not fit the model.
    """
    loader = predictor.loader(dataset, split)
    count = len(loader.labels)
    others = np.unique(np.linspace(0, count - 1, min(COMPARED, count)).astype(int))
    here, changes = _part_changes(predictor, loader, np.array([row])), _part_changes(predictor, loader, others)
    parts = []
    for what in _PARTS:
        change, sizes = here[what][0], np.abs(changes[what][np.isfinite(changes[what])])
        if np.isfinite(change):
            usual, rank = (float(np.median(sizes)), float((sizes < abs(change)).mean())) if len(sizes) else (None, None)
            parts.append(Removal(what, float(change), usual, rank))
    said, words = _word_changes(predictor, loader, row, dataset.split(split).texts[row])
    return Occlusion(said, parts, words, len(others))


def _part_changes(predictor: Predictor, loader: Loader, rows: np.ndarray) -> dict[str, np.ndarray]:
    """By part the change of each row's prediction, [rows]; NaN where the row lacks the part."""
    changes: dict[str, list[np.ndarray]] = {what: [] for what in _PARTS}
    for start in range(0, len(rows), loader.batch_size):
        batch = loader.batch(rows[start : start + loader.batch_size])
        whole = _values(predictor, batch)
        for what, parts in _PARTS.items():
            has = np.all([_has(batch, part) for part in parts], axis=0)
            there = _values(predictor, _without(batch, parts, predictor)) if has.any() else whole
            changes[what].append(np.where(has, _change(whole, there), np.nan))
    return {what: np.concatenate(found) for what, found in changes.items()}


def _word_changes(predictor: Predictor, loader: Loader, row: int, text: str) -> tuple[float, list[Removal]]:
    """What the model says of an utterance, and the change by each of its words that is taken away."""
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    texts = [text, *(f"{text[:start].rstrip()} {text[end:].lstrip()}".strip() for start, end in spans)]
    ids = _ids(predictor, texts)
    values = np.concatenate(
        [
            _values(predictor, _with_texts(loader.batch(np.full(len(some), row)), some, predictor))
            for some in (ids[start : start + loader.batch_size] for start in range(0, len(ids), loader.batch_size))
        ]
    )
    whole = np.repeat(values[:1], len(values), axis=0)
    changes = _change(whole, values)[1:].tolist()
    said = float(values[0].max() if values.ndim > 1 else values[0])
    names = [f"{place} {text[slice(*span)]}" for place, span in enumerate(spans, start=1)]
    return said, [Removal(name, change) for name, change in zip(names, changes, strict=True)]


@torch.no_grad()
def _values(predictor: Predictor, batch: Batch) -> np.ndarray:
    """Final predictions of a batch, [batch], or of classes [batch, classes]."""
    output = run_model(predictor.model, batch.to(predictor.model.fusion_tokens.device), predictor.trained_on.precision)
    return predictor.task.values(by_head(output)["task"])


def _change(whole: np.ndarray, without: np.ndarray) -> np.ndarray:
    """[batch], of classes at the one that the whole utterance is said to be."""
    if whole.ndim == 1:
        return without - whole
    said = whole.argmax(1)[:, None]
    return (np.take_along_axis(without, said, 1) - np.take_along_axis(whole, said, 1))[:, 0]


def _has(batch: Batch, part: str) -> np.ndarray:
    """Which utterances have a part, [batch]."""
    if part == WORDS:
        return np.ones(len(batch.index), bool)
    return (getattr(batch, f"{part}_lengths") > 0).numpy()


def _without(batch: Batch, parts: Iterable[str], predictor: Predictor) -> Batch:
    """The batch as if parts had never been there."""
    for part in parts:
        if part == WORDS:
            batch = _with_texts(batch, _ids(predictor, [""] * len(batch.index)), predictor)
        else:
            frames, lengths = getattr(batch, part), getattr(batch, f"{part}_lengths")
            changes = {part: torch.zeros_like(frames), f"{part}_lengths": torch.zeros_like(lengths)}
            batch = replace(batch, **changes)
    return batch


def _ids(predictor: Predictor, texts: list[str]) -> list[np.ndarray]:
    return ids_of(texts, predictor.tokenizer, predictor.model.config.max_text_len)


def _with_texts(batch: Batch, texts: list[np.ndarray], predictor: Predictor) -> Batch:
    """The batch with other token ids, one array [tokens] for each utterance; an empty text is one pad token."""
    pad_token_id = predictor.tokenizer.pad_token_id
    texts = [ids if len(ids) else np.array([pad_token_id], np.int32) for ids in texts]
    lengths = torch.tensor([len(ids) for ids in texts])
    input_ids = torch.full((len(texts), int(lengths.max())), pad_token_id)
    for place, ids in enumerate(texts):
        input_ids[place, : len(ids)] = torch.tensor(ids, dtype=torch.long)
    mask = (torch.arange(input_ids.shape[1]) < lengths[:, None]).long()
    return replace(batch, input_ids=input_ids, attention_mask=mask, text_lengths=lengths)
