"""Splits of a dataset as MMSA pickles them."""

from typing import Any

import numpy as np


def make_split(count: int = 3, dims: tuple[int, int] = (2, 4), tag: str = "clip") -> dict[str, Any]:
    generator = np.random.default_rng(sum(tag.encode()))
    split: dict[str, Any] = {
        "raw_text": np.array([f"Text {row}" for row in range(count)], dtype=object),
        "id": [f"{tag}$_${row}" for row in range(count)],
        "regression_labels": np.linspace(-1, 1, count),
        "audio": generator.normal(size=(count, 6, dims[0])).astype(np.float32),
        "vision": generator.normal(size=(count, 5, dims[1])),
    }
    split["audio"][1, 4:] = 0  # padding
    return split


def make_splits() -> dict[str, Any]:
    """All three, of different utterances."""
    return {name: make_split(tag=name) for name in ("train", "valid", "test")}
