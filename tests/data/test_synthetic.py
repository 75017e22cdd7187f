"""The synthetic dataset and the batches made from it."""

from pathlib import Path

import numpy as np
import torch

from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.data.synthetic import make_synthetic, reachable_mae


def test_fusion_must_beat_every_single_modality() -> None:
    best = reachable_mae(count=20_000)
    assert best["both"] < 0.6 * min(best["text"], best["av"])
    assert max(best["text"], best["av"]) < best["nothing"]


def test_the_same_seed_gives_the_same_set(tmp_path: Path) -> None:
    prints = [
        make_synthetic(tmp_path / str(index), seed=seed, sizes=(20, 8, 8)).fingerprint
        for index, seed in enumerate((3, 3, 4))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_an_epoch_holds_every_utterance_once_and_is_seeded(tmp_path: Path) -> None:
    make_synthetic(tmp_path / "set", sizes=(33, 8, 8))
    dataset = Dataset.open(tmp_path / "set")
    tokens = [np.frombuffer(text.encode()[:30], np.uint8) for text in dataset.split("train").texts]
    loader = Loader(dataset, "train", lambda split: tokens, 256, 8, standardize=True)
    epochs = [[batch.index.tolist() for batch in loader.epoch(seed)] for seed in ((0, 0), (0, 0), (0, 1))]
    assert epochs[0] == epochs[1] != epochs[2]
    assert sorted(sum(epochs[0], [])) == list(range(33))
    assert sorted(len(rows) for rows in epochs[0]) == [8, 8, 8, 9]  # a batch of one joins another
    assert len(loader) == 4
    batch = next(iter(loader.in_order()))
    split = dataset.split("train")
    row, length = int(batch.index[0]), int(batch.audio_lengths[0])
    expected = (split.audio(row) - np.array(dataset.info.audio_mean)) / np.array(dataset.info.audio_std)
    torch.testing.assert_close(batch.audio[0, :length], torch.tensor(expected, dtype=torch.float32))
    assert not batch.audio[0, length:].any()
