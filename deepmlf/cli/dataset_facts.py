"""What ``deepmlf data info`` tells of a dataset."""

import math
from typing import Any

import numpy as np

from deepmlf.data.dataset import SPLITS, Dataset
from deepmlf.data.task import Task
from deepmlf.data.values import words_of

_BINS = 10.0  # of a histogram of labels, one fewer than it has numbers


def describe(dataset: Dataset) -> dict[str, Any]:
    """Splits, lengths, label histogram, dimensions and missing modalities."""
    splits: dict[str, Any] = {}
    for name in SPLITS:
        split = dataset.split(name)
        labels = split.labels[np.isfinite(split.labels)]
        splits[name] = {"utterances": len(split), "unlabelled": len(split) - len(labels)}
        if not len(split):
            continue
        splits[name] |= {
            "words": _spread([len(words_of(text)) for text in split.texts]),
            "audio_frames": _spread([len(split.audio(row)) for row in range(len(split))]),
            "vision_frames": _spread([len(split.vision(row)) for row in range(len(split))]),
            "labels": _histogram(dataset.info.task, labels),
        }
    shown = {"name", "fingerprint", "audio_dim", "vision_dim", "missing", "lowercase"}
    return dataset.info.model_dump(include=shown) | {"task": dataset.info.task.describe(), "splits": splits}


def _histogram(task: Task, labels: np.ndarray) -> dict[str, int]:
    """How many labels are of each class, or nearest to each of some even numbers of the range."""
    if task.is_classification:
        counts = np.bincount(labels.astype(int), minlength=task.outputs)
        return dict(zip(task.classes, counts.tolist(), strict=True))
    width = task.high - task.low
    scale = 10.0 ** math.floor(math.log10(width / _BINS))
    step = next(step for step in (scale, 2 * scale, 5 * scale, 10 * scale) if width / step <= _BINS * (1 + 1e-9))
    edges = task.low + step * np.arange(round(width / step) + 1)
    nearest = np.abs(labels[:, None] - edges).argmin(1)
    shown = [0.0 if abs(edge) < step / 1e6 else edge for edge in edges]  # -0, or what rounding left of it
    return {f"{edge:.6g}": int((nearest == index).sum()) for index, edge in enumerate(shown)}


def _spread(lengths: list[int]) -> dict[str, float]:
    return {"min": min(lengths), "median": float(np.median(lengths)), "max": max(lengths)}
