"""Batches: token ids and audiovisual frames, padded to the batch's own longest."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from deepmlf.data.batch import Batch
from deepmlf.data.dataset import Dataset, Split

TokensOf = Callable[[str], Sequence[np.ndarray]]
"""Token ids of each utterance of a split, given the split's name."""

_SUBSETS = 0  # seed of the order that shares of a split are taken from
_BUCKET_BATCHES = 8  # texts are sorted by length within so many batches: little padding, still random batches


class Loader:
    """Batches of one split.

    Args:
        dataset: For the train split's feature statistics.
        split: ``train``, ``valid`` or ``test``.
        tokens_of: Token ids [tokens] of each utterance of a split, cut to `max_text_len`.
        pad_token_id: Fills texts up to the batch's longest.
        batch_size: Utterances per batch; a last batch of one joins the one before (batch norm needs two).
        standardize: Scale features by the train split's mean and standard deviation.
        share: Of the utterances, those that `epoch` goes through; see `nested_rows`.
        pool: By modality (``audio``, ``vision``), what shortens an utterance's frames [time, dim] to [fewer, dim]; done
            once, here.
    """

    def __init__(
        self,
        dataset: Dataset,
        split: str,
        tokens_of: TokensOf,
        pad_token_id: int,
        batch_size: int,
        *,
        standardize: bool,
        share: float = 1.0,
        pool: Mapping[str, Callable[[np.ndarray], np.ndarray]] | None = None,
    ) -> None:
        self.split = split
        self._split: Split = dataset.split(split)
        empty = np.array([pad_token_id], np.int32)
        self.tokens = [ids if len(ids) else empty for ids in tokens_of(split)]
        """Token ids of each utterance; an empty text is one pad token."""
        self.rows = nested_rows(len(self._split), share)
        """Positions of the utterances of an epoch, ascending."""
        self._pad = pad_token_id
        self.batch_size = batch_size
        info = dataset.info
        self._targets = np.asarray(info.task.targets(np.asarray(self._split.labels)), np.float32)
        self._audio_scale = _scale(info.audio_mean, info.audio_std, standardize)
        self._vision_scale = _scale(info.vision_mean, info.vision_std, standardize)
        self._pooled: dict[str, list[np.ndarray]] = {}
        for modality, shorten in (pool or {}).items():
            self._pooled[modality] = [shorten(self._frames(modality, row)) for row in range(len(self._split))]

    def __len__(self) -> int:
        """Batches per epoch."""
        return self.batches(self.batch_size)

    def batches(self, size: int) -> int:
        """Batches per epoch of so many utterances."""
        return len(_chunks(self.rows, size))

    @property
    def labels(self) -> np.ndarray:
        """All labels in the split's order, as the dataset has them, [N]."""
        return np.asarray(self._split.labels)

    def epoch(self, seed: tuple[int, int], *, by_length: bool = True, batch_size: int | None = None) -> Iterator[Batch]:
        """Every utterance of `rows` once, in random batches; the same seed gives the same batches.

        Args:
            seed: Of the epoch.
            by_length: Batches of texts of similar length; otherwise texts make no difference.
            batch_size: Utterances per batch; None takes the loader's.
        """
        batch_size = batch_size or self.batch_size
        generator = np.random.default_rng(seed)
        order = self.rows[generator.permutation(len(self.rows))]
        if by_length:
            lengths = np.array([len(tokens) for tokens in self.tokens])
            bucket = batch_size * _BUCKET_BATCHES
            parts = [order[start : start + bucket] for start in range(0, len(order), bucket)]
            order = np.concatenate([part[np.argsort(lengths[part], kind="stable")] for part in parts])
        chunks = _chunks(order, batch_size)
        for position in generator.permutation(len(chunks)):
            yield self.batch(chunks[position])

    def in_order(self) -> Iterator[Batch]:
        """Every utterance once, shortest texts first."""
        lengths = np.array([len(tokens) for tokens in self.tokens])
        for chunk in _chunks(np.argsort(lengths, kind="stable"), self.batch_size):
            yield self.batch(chunk)

    def chunks(self, size: int) -> Iterator[Batch]:
        """Every utterance once, in the split's own order, `size` at a time."""
        rows = np.arange(len(self._split))
        for start in range(0, len(rows), size):
            yield self.batch(rows[start : start + size])

    def batch(self, rows: np.ndarray) -> Batch:
        """The batch of these rows of the split."""
        tokens = [self.tokens[row] for row in rows]
        longest = max(1, max(len(ids) for ids in tokens))
        input_ids = torch.full((len(rows), longest), self._pad)
        attention_mask = torch.zeros(len(rows), longest, dtype=torch.long)
        for position, ids in enumerate(tokens):
            input_ids[position, : len(ids)] = torch.tensor(ids, dtype=torch.long)
            attention_mask[position, : len(ids)] = 1
        audio, audio_lengths = _pad_frames([self._frames("audio", row) for row in rows], self._audio_scale)
        vision, vision_lengths = _pad_frames([self._frames("vision", row) for row in rows], self._vision_scale)
        targets = torch.from_numpy(self._targets[rows])[:, None]
        index = torch.from_numpy(np.ascontiguousarray(rows))
        text_lengths = torch.tensor([len(ids) for ids in tokens])
        return Batch(
            input_ids, attention_mask, audio, audio_lengths, vision, vision_lengths, targets, index, text_lengths
        )

    def _frames(self, modality: str, row: int) -> np.ndarray:
        if modality in self._pooled:
            return self._pooled[modality][row]
        return self._split.audio(int(row)) if modality == "audio" else self._split.vision(int(row))


def nested_rows(count: int, share: float) -> np.ndarray:
    """Positions of a share of so many utterances, two at least, ascending; those of a smaller share are among them."""
    order = np.random.default_rng(_SUBSETS).permutation(count)
    return np.sort(order[: max(2, round(share * count))])


def _scale(mean: list[float], std: list[float], standardize: bool) -> tuple[np.ndarray, np.ndarray]:
    if not standardize:
        return np.zeros(len(mean), np.float32), np.ones(len(std), np.float32)
    return np.array(mean, np.float32), np.array(std, np.float32)


def _pad_frames(sequences: list[np.ndarray], scale: tuple[np.ndarray, np.ndarray]) -> tuple[Tensor, Tensor]:
    mean, std = scale
    longest = max(1, max(len(frames) for frames in sequences))
    padded = np.zeros((len(sequences), longest, len(mean)), np.float32)
    for position, frames in enumerate(sequences):
        padded[position, : len(frames)] = (frames - mean) / std
    return torch.from_numpy(padded), torch.tensor([len(frames) for frames in sequences])


def _chunks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    chunks = [rows[start : start + size] for start in range(0, len(rows), size)]
    if len(chunks) > 1 and len(chunks[-1]) == 1:
        chunks[-2:] = [np.concatenate(chunks[-2:])]
    return chunks
