"""The frames of many utterances: on disk while a dataset is made, and in blocks for what looks at all of them."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from deepmlf.data.paging import BLOCK, Pages


class Frames(Sequence[np.ndarray]):
    """Arrays [frames, features], float32, in a temporary file."""

    def __init__(self, pages: Pages, dim: int) -> None:
        """Begin without any.

        Args:
            pages: Where temporary files are made.
            dim: Features.

        Raises:
            DataError: If none can be made.
        """
        self._pages, self._file = pages, pages.temporary()
        self.dim = dim
        self._starts: list[int] = []  # in bytes
        self._size = 0
        self.lengths: list[int] = []

    def append(self, frames: np.ndarray) -> None:
        """Add an array [frames, dim].

        Raises:
            DataError: If the disk is full.
        """
        self._pages.write(self._file, np.ascontiguousarray(frames, np.float32).data)
        self._starts.append(self._size)
        self.lengths.append(len(frames))
        self._size += 4 * len(frames) * self.dim

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: Any) -> Any:
        size = 4 * self.lengths[row] * self.dim
        return np.frombuffer(os.pread(self._file.fileno(), size, self._starts[row]), np.float32).reshape(-1, self.dim)

    def values(self, pages: Pages) -> pa.FloatArray:
        """All values one after the other, as a map of the file."""
        if not self._size:
            return pa.array([], pa.float32())
        return pa.Array.from_buffers(pa.float32(), self._size // 4, [None, pa.py_buffer(pages.map(self._file))])


def lengths_of(sequences: Sequence[np.ndarray]) -> list[int]:
    """How many frames each utterance has."""
    return sequences.lengths if isinstance(sequences, Frames) else [len(frames) for frames in sequences]


def blocks_of(sequences: Sequence[np.ndarray]) -> Iterator[np.ndarray]:
    """The frames of all utterances, those of some at a time: arrays [frames, features].

    Args:
        sequences: Arrays [frames, features].
    """
    some: list[np.ndarray] = []
    size = 0
    for row, count in enumerate(lengths_of(sequences)):
        if count:
            some.append(sequences[row])
            size += some[-1].nbytes
        if size >= BLOCK:
            yield np.concatenate(some)
            some, size = [], 0
    if some:
        yield np.concatenate(some)
