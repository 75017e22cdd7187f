"""Import of datasets in the MMSA layout: a pickle of padded numpy arrays. Pickles are not trusted."""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepmlf.data.dataset import LABEL_RANGE, SPLITS, DatasetInfo, SplitData, write_dataset
from deepmlf.errors import DataError
from deepmlf.progress import bar

_LABELS = "regression_labels"
_KEYS = ("raw_text", "audio", "vision", "id")
# What numpy's own pickles name, in its old and new module layout; plain containers need no name at all.
_NUMPY = {
    "numpy": {"ndarray", "dtype"},
    "core.multiarray": {"_reconstruct", "scalar"},
    "core.numeric": {"_frombuffer"},
}
_ALLOWED = {
    (f"numpy.{prefix}{module}" if module != "numpy" else module, name)
    for module, names in _NUMPY.items()
    for prefix in (("", "_") if module != "numpy" else ("",))
    for name in names
} | {("_codecs", "encode")}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise DataError(
                f"the pickle names {module}.{name}; only numpy arrays and plain containers are admitted, "
                "because a pickle can run any code that it names"
            )
        return super().find_class(module, name)


def import_mmsa(
    pickle_path: str | Path,
    out: str | Path,
    dataset: str = "mosi",
    lowercase: bool = False,
    *,
    unlabelled: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> DatasetInfo:
    """Import an MMSA pickle into a memory-mapped dataset folder.

    Sequences are stored without their padding: by ``audio_lengths`` and ``vision_lengths`` where given, else by
    dropping trailing all-zero frames. A modality that is zero throughout is accepted and listed as missing.

    >>> info = import_mmsa("MOSI.pkl", "runs/imported", "mosi", lowercase=True)
    >>> info.splits, info.audio_dim, info.vision_dim
    ({'train': 3, 'valid': 3, 'test': 3}, 2, 4)

    Args:
        pickle_path: The pickle, ``{"train" | "valid" | "test": {...}}``.
        out: Folder to write.
        dataset: ``mosi``, ``mosei`` or ``sims``: decides metrics and label range.
        lowercase: Lower-case the texts, as ASR transcripts want.
        unlabelled: The data is to be predicted only: splits and ``regression_labels`` may be missing, and a label may
            be NaN.
        progress: Called with one line on what was not taken as it is: published pickles hold -inf where a feature
            could not be computed, which becomes 0.

    Raises:
        DataError: With the split, key and row at fault.
    """
    if dataset not in LABEL_RANGE:
        raise DataError(f"--dataset must be one of {', '.join(LABEL_RANGE)}, but got {dataset!r}")
    pickle_path, out = Path(pickle_path), Path(out)
    content = _load(pickle_path)
    splits: dict[str, SplitData] = {}
    dims: dict[str, int] = {}
    found = [name for name in SPLITS if isinstance(content.get(name), Mapping)]
    wanted = found if unlabelled and found else SPLITS
    for name in wanted:
        if name not in found:
            raise DataError(
                f"{pickle_path}: split {name!r} is missing; found {', '.join(map(str, content)) or 'nothing'}"
            )
        splits[name] = _read_split(name, content[name], LABEL_RANGE[dataset], dims, unlabelled, progress)
    for name in set(SPLITS) - set(wanted):
        splits[name] = SplitData([], [], np.zeros(0, np.float32), [], [])
    return write_dataset(out, dataset, splits, (dims["audio"], dims["vision"]), lowercase)


def _load(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            content = _ArrayUnpickler(file).load()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except Exception as error:  # a torn or foreign file can raise nearly anything
        raise DataError(f"{path}: not a whole pickle ({type(error).__name__}: {error})") from None
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: must hold a dict of splits, but got {type(content).__name__}")
    return content


def _read_split(
    split: str,
    data: Mapping[str, Any],
    bound: float,
    dims: dict[str, int],
    unlabelled: bool,
    progress: Callable[[str], None],
) -> SplitData:
    has_labels = _LABELS in data or not unlabelled
    for key in (*_KEYS, _LABELS) if has_labels else _KEYS:
        if key not in data:
            raise DataError(f"split {split!r}: key {key!r} is missing; found {', '.join(map(str, data))}")
    count = len(data["id"])
    if count == 0:
        raise DataError(f"split {split!r}: is empty")
    given = data[_LABELS] if has_labels else np.full(count, np.nan)
    labels = _floats(split, _LABELS, given).reshape(-1)
    for key, values in ({key: data[key] for key in _KEYS} | {_LABELS: labels}).items():
        if len(values) != count:
            raise DataError(f"split {split!r}: {count} ids, but {len(values)} entries in {key!r}")
    if not unlabelled:
        _refuse_non_finite(split, _LABELS, labels)
    outside = np.flatnonzero(np.abs(labels) > bound + 1e-6)
    if len(outside):
        row = int(outside[0])
        raise DataError(f"split {split!r}, row {row}: label {labels[row]:g} is outside [-{bound:g}, {bound:g}]")
    ids = [_plain(value) for value in data["id"]]
    if len(set(ids)) != count:
        double = next(value for value in ids if ids.count(value) > 1)
        raise DataError(f"split {split!r}: id {double!r} occurs more than once")
    return SplitData(
        ids=ids,
        texts=[_plain(value) for value in data["raw_text"]],
        labels=labels.astype(np.float32),
        audio=_sequences(split, "audio", data, dims, progress),
        vision=_sequences(split, "vision", data, dims, progress),
    )


def _sequences(
    split: str, modality: str, data: Mapping[str, Any], dims: dict[str, int], progress: Callable[[str], None]
) -> list[np.ndarray]:
    cleared = 0
    rows = [_floats(split, modality, sequence) for sequence in bar(data[modality], f"{split} {modality}")]
    for row, frames in enumerate(rows):
        if frames.ndim != 2:
            raise DataError(
                f"split {split!r}, {modality}, row {row}: must be [frames, features], but has {frames.ndim} axes"
            )
        dim = dims.setdefault(modality, frames.shape[1])
        if frames.shape[1] != dim:
            raise DataError(f"split {split!r}, {modality}, row {row}: {frames.shape[1]} features, but {dim} before")
        missing = np.isneginf(frames)
        if missing.any():
            frames = rows[row] = np.where(missing, np.float32(0), frames)
            cleared += int(missing.sum())
        _refuse_non_finite(split, modality, frames, row)
    if cleared:
        progress(f"split {split!r}, {modality}: {cleared} values of -inf became 0")
    given = data.get(f"{modality}_lengths")
    if given is None:
        lengths = [_length_without_padding(frames) for frames in rows]
    else:
        lengths = [int(length) for length in np.asarray(given).reshape(-1)]
        if len(lengths) != len(rows):
            raise DataError(f"split {split!r}: {len(rows)} ids, but {len(lengths)} entries in '{modality}_lengths'")
        for row, (length, frames) in enumerate(zip(lengths, rows, strict=True)):
            if not 0 <= length <= len(frames):
                raise DataError(
                    f"split {split!r}, {modality}, row {row}: length {length} is outside 0 to {len(frames)}"
                )
    # A sequence of zeros alone is an absent one, whatever its stated length.
    return [
        frames[:length] if frames[:length].any() else frames[:0] for frames, length in zip(rows, lengths, strict=True)
    ]


def _length_without_padding(frames: np.ndarray) -> int:
    filled = np.flatnonzero(frames.any(axis=1))
    return int(filled[-1]) + 1 if len(filled) else 0


def _floats(split: str, key: str, value: Any) -> np.ndarray:
    try:
        return np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError):
        raise DataError(f"split {split!r}: {key!r} must hold numbers") from None


def _refuse_non_finite(split: str, key: str, values: np.ndarray, row: int | None = None) -> None:
    if not np.isfinite(values).all():
        bad = int(np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))[0])
        raise DataError(f"split {split!r}, {key}, row {bad if row is None else row}: holds NaN or inf")


def _plain(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
