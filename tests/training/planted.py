"""A dataset whose labels texts and audio tell or do not."""

from pathlib import Path

import numpy as np

from deepmlf.data.dataset import Dataset, SplitData, write_dataset
from deepmlf.data.task import KNOWN, Task

MOODS = Task.choice(("cross", "glad", "neither"))


def made(out: Path, *, words: bool, frames: bool, task: Task | None = None) -> Dataset:
    """Labels of -1 or 2 (of classes the first two), which texts and audio tell or do not."""
    generator, splits = np.random.default_rng(0), {}
    for name, count in (("train", 120), ("valid", 60), ("test", 60)):
        is_high = generator.random(count) < 0.6
        labels = is_high.astype(np.float32) if task else np.where(is_high, 2.0, -1.0).astype(np.float32)
        filler = generator.choice(["today", "here", "now"], count)
        said = [("lovely" if high else "awful") if words else "well" for high in is_high]
        texts = [f"{word} {more}" for word, more in zip(said, filler, strict=True)]
        audio = [generator.normal(3.0 * high * frames, 0.1, (4, 2)).astype(np.float32) for high in is_high]
        nothing = [np.zeros((0, 1), np.float32)] * count
        shown = audio if frames else [np.zeros((0, 2), np.float32)] * count
        splits[name] = SplitData([f"{name}{row}" for row in range(count)], texts, labels, shown, nothing)
    write_dataset(out, "mosi", splits, (2, 1), lowercase=False, task=task or KNOWN["mosi"])
    return Dataset.open(out)
