"""Batches on the device that trains on them; a GPU finds the next one there when it is done with the last."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from deepmlf.data.batch import Batch
from deepmlf.model.decode import TextPrefix
from deepmlf.training.stores.text_prefixes import PrefixCache

T = TypeVar("T")


def on_device(
    batches: Iterator[Batch], device: torch.device, prefixes: PrefixCache | None = None
) -> Iterator[tuple[Batch, TextPrefix | None]]:
    """Each batch on the device with the prefix of its text, if there is a cache of them.

    For a GPU a thread makes the next batch ready while the current one trains. A CPU has no cycles to spare for that.
    """

    def move(batch: Batch) -> tuple[Batch, TextPrefix | None]:
        return batch.to(device), None if prefixes is None else prefixes.lookup(batch.index).to(device)

    moved = map(move, batches)
    return one_ahead(moved) if device.type == "cuda" else moved


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, of which a thread makes the next while the current one is in use."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        ahead = thread.submit(next, items, None)
        while (item := ahead.result()) is not None:
            ahead = thread.submit(next, items, None)
            yield item
