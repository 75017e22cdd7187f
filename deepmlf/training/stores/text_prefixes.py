"""The frozen prefix, computed once: what the layers below the first MM block make of a split's text, kept on disk.

Without SoftPerm it depends only on the language model and the token ids, so all trials of a node share it through the
page cache. Every layer has one file of keys and values, so that trials of different fusion depth share what they have
in common, and every depth that was asked for has one file of states.
"""

import contextlib
import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from filelock import BaseFileLock, FileLock, Timeout
from torch import Tensor

from deepmlf.data.loader import Loader
from deepmlf.files import new_file
from deepmlf.locks import locked
from deepmlf.model.decode import TextPrefix
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.places import home

_CHUNK = 64  # utterances per record batch, whatever the batch size of the trial that writes or reads
_TIMED_CHUNKS = 3  # chunks on which reading is compared with computing


class PrefixCache:
    """The text prefixes of one split at one depth, memory-mapped.

    Args:
        folder: Where the files of this language model and these texts lie.
        lengths: Tokens of each utterance, [N].
        depth: First fused layer.
        kv_shape: (kv_heads, head_dim).
        dtype: Of the language model.
    """

    def __init__(
        self, folder: Path, lengths: np.ndarray, depth: int, kv_shape: tuple[int, int], dtype: torch.dtype
    ) -> None:
        self._kv_shape, self._dtype = kv_shape, dtype
        ends = lengths.cumsum()
        starts = ends - lengths
        origin = starts[np.arange(len(lengths)) // _CHUNK * _CHUNK]  # of the chunk that an utterance is in
        self._spans = list(zip((starts - origin).tolist(), (ends - origin).tolist(), strict=True))
        self._states = _read(_states_path(folder, depth))
        self._layers = [_read(_layer_path(folder, layer)) for layer in range(depth + 1)]

    def lookup(self, index: Tensor) -> TextPrefix:
        """The prefix of the utterances at `index` [batch], packed in that order."""
        rows = index.tolist()
        pairs = []
        for chunks in self._layers:
            both = self._gather(chunks, rows).unflatten(1, (2, *self._kv_shape))  # (rows, 2, H, D)
            keys, values = both.permute(1, 2, 0, 3)[:, None]
            pairs.append((keys, values))
        return TextPrefix(self._gather(self._states, rows), pairs)

    def _gather(self, chunks: list[np.ndarray], rows: list[int]) -> Tensor:
        spans = self._spans
        parts = [chunks[row // _CHUNK][spans[row][0] : spans[row][1]] for row in rows]
        return torch.from_numpy(np.concatenate(parts)).view(self._dtype)


def open_prefix_cache(model: DeepMLF, loader: Loader, cache_gb: float, device: torch.device) -> PrefixCache | None:
    """The cache of a split's text below the model's first MM block, made if it is not there.

    Trials that ask at the same time make it once. Files of other texts and language models that were not used for
    longest give way to it.

    Args:
        model: Its language model and first fused layer decide what is kept.
        loader: The split.
        cache_gb: Disk budget of all such caches of this machine, in gigabytes; 0 keeps nothing.
        device: Where batches are computed.

    Returns:
        None if it does not fit the budget or the disk, or if reading was measured to be slower than computing.
    """
    lm = model.language_model
    if lm.identity is None or cache_gb <= 0 or lm.kv_shape is None:
        return None
    digest = hashlib.sha256(f"{lm.identity} {lm.dtype}".encode())
    for tokens in loader.tokens:
        digest.update(np.array([len(tokens), *tokens], np.int32).tobytes())
    root = home() / "prefixes"
    folder = root / digest.hexdigest()[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(_lock(folder), "another trial's text prefixes"):
            try:
                return _open(folder, model, loader, cache_gb, device)
            except (OSError, ValueError):  # damaged files, a full disk
                _clear(folder)
                return _open(folder, model, loader, cache_gb, device)
    except OSError as error:  # a trial can do without
        warnings.warn(f"{folder}: texts are not kept ({error})", stacklevel=2)
        with contextlib.suppress(OSError):
            _clear(folder)
        return None


def _open(folder: Path, model: DeepMLF, loader: Loader, cache_gb: float, device: torch.device) -> PrefixCache | None:
    """`open_prefix_cache` in its locked folder.

    Raises:
        OSError, ValueError: If files cannot be written or read, or hold something else.
    """
    lm, depth = model.language_model, model.active_layers[0]
    kv_shape = lm.kv_shape or (0, 0)
    lengths = np.array([len(tokens) for tokens in loader.tokens])
    verdict = folder / f"measured_{depth:03d}.json"
    present = verdict.is_file()  # written last, and deleted with the rest
    if not present:
        missing = [layer for layer in range(depth + 1) if not _layer_path(folder, layer).is_file()]
        rows, kv_width = int(lengths.sum()), 2 * kv_shape[0] * kv_shape[1]
        needed = rows * lm.dtype.itemsize * (len(missing) * kv_width + lm.width)
        if not _make_room(folder.parent, folder, needed, cache_gb * 1e9):
            return None
        _fill(folder, model, loader, depth, missing, device)
    cache = PrefixCache(folder, lengths, depth, kv_shape, lm.dtype)
    if present:
        measured = json.loads(verdict.read_text())
    else:
        measured = _measure(cache, model, loader, device)
        with new_file(verdict) as temporary:
            temporary.write_text(json.dumps(measured))
    os.utime(folder)  # the order of eviction
    return cache if measured["read_seconds"] < measured["compute_seconds"] else None


def _fill(folder: Path, model: DeepMLF, loader: Loader, depth: int, missing: list[int], device: torch.device) -> None:
    """Write the `missing` layers and the states at `depth`, chunk by chunk in the split's order; files appear whole."""
    for left_over in folder.glob(".*"):  # of a process that died here
        left_over.unlink()
    targets = {layer: _layer_path(folder, layer) for layer in missing}
    writers: dict[Path, _Writer] = {path: _Writer(path) for path in [*targets.values(), _states_path(folder, depth)]}
    for batch in loader.chunks(_CHUNK):
        moved = batch.to(device)
        prefix = model.text_prefix(moved.input_ids, moved.attention_mask, moved.text_lengths)
        for layer, path in targets.items():
            keys, values = prefix.keys_and_values[layer]
            writers[path].write(torch.stack([keys[0], values[0]]).permute(2, 0, 1, 3).flatten(1))  # (rows, 2·H·D)
        writers[_states_path(folder, depth)].write(prefix.states)
    for writer in writers.values():
        writer.publish()


def _measure(cache: PrefixCache, model: DeepMLF, loader: Loader, device: torch.device) -> dict[str, float]:
    """Median seconds to compute and to read one chunk."""

    def seconds(work: Callable[[], object]) -> float:
        work()
        times = []
        for _ in range(_TIMED_CHUNKS):
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - started)
        return float(np.median(times))

    batch = next(iter(loader.chunks(_CHUNK))).to(device)
    return {
        "compute_seconds": seconds(
            lambda: model.text_prefix(batch.input_ids, batch.attention_mask, batch.text_lengths)
        ),
        "read_seconds": seconds(lambda: cache.lookup(batch.index).to(device)),
    }


class _Writer:
    """An Arrow file of rows, a record batch per chunk; it has its name only when it is whole."""

    def __init__(self, path: Path) -> None:
        self._path, self._temporary = path, path.with_name(f".{path.name}.{os.getpid()}")
        self._stream: pa.RecordBatchFileWriter | None = None

    def write(self, rows: Tensor) -> None:
        values = rows.cpu().contiguous()
        plain = values.view(torch.int16) if values.dtype == torch.bfloat16 else values  # Arrow has no bfloat16
        column = pa.FixedSizeListArray.from_arrays(pa.array(plain.numpy().ravel()), plain.shape[1])
        batch = pa.record_batch([column], names=["rows"])
        if self._stream is None:
            self._stream = pa.ipc.new_file(str(self._temporary), batch.schema)
        self._stream.write_batch(batch)

    def publish(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._temporary.rename(self._path)


def _read(path: Path) -> list[np.ndarray]:
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    columns = [reader.get_batch(number).column(0) for number in range(reader.num_record_batches)]
    return [column.values.to_numpy().reshape(len(column), -1) for column in columns]


def _layer_path(folder: Path, layer: int) -> Path:
    return folder / f"keys_values_{layer:03d}.arrow"


def _states_path(folder: Path, depth: int) -> Path:
    return folder / f"states_{depth:03d}.arrow"


def _lock(folder: Path) -> BaseFileLock:
    """Held by whoever makes, opens or deletes the files of a folder."""
    return FileLock(folder.with_name(f"{folder.name}.lock"))


def _bytes_in(folder: Path) -> int:
    total = 0
    for file in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):  # renamed by another trial that is writing it
            total += file.stat().st_size
    return total


def _clear(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()  # a reader that has it mapped keeps it until it is done


def _make_room(root: Path, keep: Path, needed: float, budget: float) -> bool:
    """Delete caches, least recently used first, until `needed` more bytes fit; False if they cannot."""
    sizes = {path: _bytes_in(path) for path in root.iterdir() if path.is_dir()}
    if sizes.get(keep, 0) + needed > budget:
        return False
    for path in sorted(sizes.keys() - {keep}, key=lambda folder: folder.stat().st_mtime):
        if sum(sizes.values()) + needed <= budget:
            break
        try:
            with _lock(path).acquire(timeout=0):
                _clear(path)
        except Timeout:
            continue  # another trial makes or opens it at this moment
        sizes.pop(path)
    return sum(sizes.values()) + needed <= budget
