"""Batches as the loader makes them."""

from itertools import pairwise
from pathlib import Path

import numpy as np

from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader


def test_features_are_scaled_or_left_as_they_are(small_data: Path) -> None:
    dataset = Dataset.open(small_data)
    split, info = dataset.split("valid"), dataset.info
    tokens = [np.array([1])] * len(split)
    raw, scaled = (
        Loader(dataset, "valid", lambda _: tokens, 0, 4, standardize=standardize).batch(np.array([3]))
        for standardize in (False, True)
    )
    np.testing.assert_array_equal(raw.vision[0].numpy(), split.vision(3))
    np.testing.assert_array_equal(raw.audio[0].numpy(), split.audio(3))
    mean, std = np.array(info.vision_mean, np.float32), np.array(info.vision_std, np.float32)
    np.testing.assert_allclose(scaled.vision[0].numpy(), (split.vision(3) - mean) / std, atol=1e-6)
    assert not np.allclose(raw.vision, scaled.vision, atol=1e-2)


def test_a_share_is_nested_and_gone_through_once_an_epoch(small_data: Path) -> None:
    dataset = Dataset.open(small_data)
    tokens = [np.array([1])] * len(dataset.split("train"))
    loaders = [
        Loader(dataset, "train", lambda _: tokens, 0, 4, standardize=True, share=share)
        for share in (0.01, 0.25, 0.5, 1)
    ]
    rows = [loader.rows.tolist() for loader in loaders]
    assert [len(of) for of in rows] == [2, 12, 24, 49]  # of 49, and never fewer than batch norm needs
    assert all(set(few) < set(more) for few, more in pairwise(rows))
    for loader, of in zip(loaders, rows, strict=True):
        seen = [batch.index.tolist() for batch in loader.epoch((0, 1))]
        assert sorted(sum(seen, [])) == of
        assert len(seen) == len(loader)
    assert rows[3] == list(range(49))
