"""Token ids, made once per dataset and tokenizer, memory-mapped by all trials.

They lie beside the dataset or, where that cannot be written, in the user's cache. They are kept whole: a trial cuts
them to its own ``model.max_text_len``.
"""

import contextlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from deepmlf.data.dataset import Dataset
from deepmlf.files import new_file
from deepmlf.model.lm.tokenizer import ByteTokenizer, Tokenizer
from deepmlf.places import home


def token_ids(
    dataset: Dataset, split: str, tokenizer: Tokenizer | ByteTokenizer, max_length: int
) -> Sequence[np.ndarray]:
    """Token ids of a split's texts, from the store or made and stored.

    Args:
        dataset: The store of token ids is part of its folder.
        split: ``train``, ``valid`` or ``test``.
        tokenizer: One without an identity is quicker than any store, and asked each time.
        max_length: Longest text in tokens.

    Returns:
        N arrays [tokens] of at most `max_length` ids, read-only. A text that is cut keeps its ending: the special
        tokens after each text.

    Raises:
        DataError: If there is no such split or its file is torn.
    """
    if tokenizer.identity is None:
        return ids_of(dataset.split(split).texts, tokenizer, max_length)
    key = {"data": dataset.info.fingerprint, "split": split, "tokenizer": tokenizer.identity}
    name = f"{split}-{tokenizer.identity[:16]}.arrow"
    places = [dataset.path / "tokens" / name, home() / "tokens" / dataset.info.fingerprint[:32] / name]
    for place in places:
        stored = _read(place, key, dataset.info.splits[split])
        if stored is not None:
            return _cut(stored, max_length, tokenizer.ending)
    made = pa.array(tokenizer.encode_all(dataset.split(split).texts), pa.large_list(pa.int32()))
    for place in places:
        with contextlib.suppress(OSError):  # a folder that cannot be written, or a full disk
            _write(place, key, made)
            break
    return _cut(made, max_length, tokenizer.ending)


def ids_of(texts: Sequence[str], tokenizer: Tokenizer | ByteTokenizer, max_length: int) -> list[np.ndarray]:
    """Token ids of any texts, made anew and cut as `token_ids` cuts them."""
    made = pa.array(tokenizer.encode_all(texts), pa.large_list(pa.int32()))
    return _cut(made, max_length, tokenizer.ending)


def _cut(ids: pa.LargeListArray, max_length: int, ending: tuple[int, ...]) -> list[np.ndarray]:
    offsets, values = ids.offsets.to_numpy(), ids.values.to_numpy()
    ends = np.minimum(offsets[1:], offsets[:-1] + max_length)
    cut = [values[start:end] for start, end in zip(offsets[:-1], ends, strict=True)]
    kept = ending[-max_length:]
    for row in np.flatnonzero(ends < offsets[1:]) if kept else ():
        cut[row] = np.concatenate([cut[row][: max_length - len(kept)], np.array(kept, np.int32)])
        cut[row].flags.writeable = False
    return cut


def _read(path: Path, key: dict[str, str], count: int) -> pa.LargeListArray | None:
    """What `_write` stored under the same key; None if it is missing, torn or foreign."""
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    except (OSError, pa.ArrowInvalid):
        return None
    metadata = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    if metadata != key or table.num_rows != count or table.column("ids").num_chunks != 1:
        return None
    return table.column("ids").chunk(0)


def _write(path: Path, key: dict[str, str], ids: pa.LargeListArray) -> None:
    """Write the ids, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_arrays([ids], schema=pa.schema([("ids", ids.type)], metadata=key))
    with (
        new_file(path) as temporary,
        pa.OSFile(str(temporary), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
