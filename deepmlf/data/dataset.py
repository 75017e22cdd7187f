"""Datasets on disk: one memory-mapped Arrow file per split, ragged sequences without their padding."""

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
from pydantic import BaseModel, ConfigDict, model_validator

from deepmlf.data.frames import Frames, lengths_of
from deepmlf.data.own_metrics import FILE, OwnMetrics, read_own_metrics
from deepmlf.data.paging import Pages
from deepmlf.data.statistics import mean_and_std
from deepmlf.data.task import KNOWN, METRICS_OF, Task
from deepmlf.errors import DataError, first_line
from deepmlf.files import new_file, new_folder
from deepmlf.places import Place
from deepmlf.progress import bar
from deepmlf.seal import file_sum, read_document, sealed

SPLITS = ("train", "valid", "test")


class DatasetInfo(BaseModel):
    """What ``info.json`` of an imported dataset holds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    """Its own, by which published ones are known: ``mosi``, ``mosei``, ``sims``."""
    fingerprint: str
    """Of its contents."""
    sums: dict[str, str] = {}
    """Checksums of the files of its splits; none if a release up to 0.1 imported it."""
    audio_dim: int
    """Features of an audio frame."""
    vision_dim: int
    """Features of a vision frame."""
    splits: dict[str, int]
    """Utterances of ``train``, ``valid`` and ``test``."""
    audio_mean: list[float]
    """[audio_dim], over the frames of train; the next three are alike."""
    audio_std: list[float]
    vision_mean: list[float]
    vision_std: list[float]
    missing: list[str]
    """Modalities that are absent."""
    lowercase: bool
    """Whether texts were lower-cased."""
    task: Task
    """What its labels are."""

    @model_validator(mode="before")
    @classmethod
    def _with_task(cls, given: Any) -> Any:
        """Datasets that releases up to 0.1 imported were of a known name, which stood for the task."""
        if isinstance(given, dict) and "task" not in given and given.get("name") in KNOWN:
            return given | {"task": KNOWN[given["name"]]}
        return given


@dataclass(frozen=True)
class SplitData:
    """One split, to be written."""

    ids: list[str]
    texts: list[str]
    labels: np.ndarray
    """[N], numbers or positions among the task's classes, NaN where there is none."""
    audio: Sequence[np.ndarray]
    """N arrays [frames, audio_dim], frames may be 0."""
    vision: Sequence[np.ndarray]


class Split:
    """One split of a dataset; sequences are views of the memory-mapped file.

    ``ids`` and ``texts`` are N strings, ``labels`` [N] numbers or positions among classes, NaN where there is none.
    """

    def __init__(self, table: pa.Table, audio_dim: int, vision_dim: int) -> None:
        self.ids: list[str] = table["id"].to_pylist()
        self.texts: list[str] = table["text"].to_pylist()
        self.labels: np.ndarray = table["label"].to_numpy()
        self._frames = {
            name: (column.chunk(0).offsets.to_numpy(), column.chunk(0).values.to_numpy(), dim)
            for name, column, dim in (("audio", table["audio"], audio_dim), ("vision", table["vision"], vision_dim))
        }

    def __len__(self) -> int:
        return len(self.ids)

    def audio(self, row: int) -> np.ndarray:
        """Audio frames of one utterance, [frames, audio_dim]."""
        return self._sequence("audio", row)

    def vision(self, row: int) -> np.ndarray:
        """Vision frames of one utterance, [frames, vision_dim]."""
        return self._sequence("vision", row)

    def _sequence(self, modality: str, row: int) -> np.ndarray:
        offsets, values, dim = self._frames[modality]
        sequence: np.ndarray = values[offsets[row] : offsets[row + 1]].reshape(-1, dim)
        return sequence


class Dataset:
    """An imported dataset.

    >>> dataset = Dataset.open("runs/mosi")
    >>> dataset.info.splits
    {'train': 49, 'valid': 24, 'test': 24}
    >>> utterances = dataset.split("valid")
    >>> utterances.labels.shape, utterances.audio(0).shape[1] == dataset.info.audio_dim
    ((24,), True)
    """

    def __init__(self, path: Path, info: DatasetInfo) -> None:
        self.path, self.info = path, info

    @classmethod
    def open(cls, path: str | Path) -> "Dataset":
        """Open a folder that `write_dataset` made; one behind a URI is fetched to this machine's disk once.

        Args:
            path: The folder or its URI.

        Raises:
            DataError: If it is no such folder, or torn.
        """
        folder = Place.of(path).fetched()
        try:
            info = DatasetInfo.model_validate(read_document(folder / "info.json"))
        except OSError:
            raise DataError(
                f"{path or '(none given)'}: not an imported dataset; make one with "
                "`deepmlf data import SOURCE OUT` or `deepmlf data synthetic OUT`"
            ) from None
        except ValueError as error:
            raise DataError(
                f"{folder / 'info.json'}: damaged ({first_line(error)}); import the dataset again"
            ) from None
        return cls(folder, info)

    @cached_property
    def own_metrics(self) -> OwnMetrics | None:
        """The user's own metrics of it, if there are any; their file runs as code.

        Raises:
            DataError: If it is missing or damaged.
        """
        return read_own_metrics(self.path / FILE) if self.info.task.own else None

    def split(self, name: str) -> Split:
        """Map one split into memory.

        Args:
            name: ``train``, ``valid`` or ``test``.

        Raises:
            DataError: If there is no such split or its file is torn.
        """
        if name not in self.info.splits:
            raise DataError(f"split must be one of {', '.join(SPLITS)}, but got {name!r}")
        path = self._file_of(name)
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        except (OSError, pa.ArrowInvalid) as error:
            raise DataError(f"{path}: missing or torn ({error}); import the dataset again") from None
        if len(table) != self.info.splits[name]:
            raise DataError(f"{path}: holds {len(table)} utterances, info.json says {self.info.splits[name]}")
        return Split(table, self.info.audio_dim, self.info.vision_dim)

    def require_whole(self, *splits: str) -> None:
        """Refuse splits that are not as they were imported: a value that a bad disk changed is a value like any other.

        Reads all of them, once per process unless they change.

        Raises:
            DataError: If a file is missing, or holds something else.
        """
        for name in splits:
            path, written = self._file_of(name), self.info.sums.get(name)
            try:
                facts = path.stat()
                is_whole = written is None or _sum_of(path, facts.st_size, facts.st_mtime_ns) == written
            except OSError as error:
                raise DataError(f"{path}: missing or torn ({error}); import the dataset again") from None
            if not is_whole:
                raise DataError(f"{path}: damaged (its checksum is of something else); import the dataset again")

    def _file_of(self, split: str) -> Path:
        return self.path / f"{split}.arrow"

    def require_labels(self, *splits: str) -> None:
        """Refuse to go on where labels are needed and are not all there.

        Raises:
            DataError: If one of the splits is empty, torn, or holds an utterance without a label.
        """
        for name in splits:
            labels = self.split(name).labels
            if not len(labels) or not np.isfinite(labels).all():
                what = "holds utterances without a label" if len(labels) else "is empty"
                raise DataError(f"{self.path}: {name} {what}; such data is for `deepmlf predict`")


@cache
def _sum_of(path: Path, size: int, changed: int) -> str:
    return file_sum(path)


def add_metrics(path: Path, source: Path) -> DatasetInfo:
    """Give a dataset the metrics that a Python file defines, in place of those that it had of that kind.

    Args:
        path: The dataset's folder.
        source: The file, with ``METRICS = {name: (function, direction)}``; it is copied.

    Returns:
        What the dataset is now.

    Raises:
        DataError: If either cannot be used, or a name is that of a metric that the dataset has anyway.
    """
    info, own = Dataset.open(path).info, read_own_metrics(source)
    for name in own.directions:
        if name in METRICS_OF[info.task.metrics]:
            raise DataError(f"{source}: METRICS: {name!r}: the dataset has a metric of this name; choose another one")
    task = info.task.model_copy(update={"own": own.directions})
    info = info.model_copy(update={"task": task})
    try:
        shutil.copyfile(source, path / FILE)
        with new_file(path / "info.json") as temporary:
            temporary.write_text(_text_of(info))
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error})") from None
    return info


def check_out(out: Path, force: bool) -> None:
    """Refuse a folder that holds something (DataError); with `force` one that holds a dataset will do."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / "info.json").is_file():
        raise DataError(f"{out}: exists and is no dataset; choose another folder")
    if not force:
        raise DataError(f"{out}: exists; choose another folder, or replace the dataset there with --force")


def write_dataset(
    out: Path,
    name: str,
    splits: Mapping[str, SplitData],
    dims: tuple[int, int],
    lowercase: bool,
    *,
    task: Task | None = None,
    force: bool = False,
    pages: Pages | None = None,
) -> DatasetInfo:
    """Write a dataset folder, whole or not at all.

    Args:
        out: Folder to make.
        name: Of the dataset.
        splits: ``train``, ``valid`` and ``test``.
        dims: Features per audio and per vision frame.
        lowercase: Lower-case the texts.
        task: What the labels are; None for ``mosi``, ``mosei`` and ``sims``, whose labels are known.
        force: Replace a dataset that is in `out`.
        pages: Where frames that are on disk are mapped.

    Raises:
        DataError: If `out` holds something already or cannot be written.
    """
    check_out(out, force)
    try:
        with new_folder(out.absolute()) as folder:
            info = _write(folder, name, splits, dims, lowercase, task or KNOWN[name], pages or Pages(out))
    except OSError as error:
        raise DataError(f"{out}: cannot be written ({error.strerror or error})") from None
    return info


def _write(
    folder: Path,
    name: str,
    splits: Mapping[str, SplitData],
    dims: tuple[int, int],
    lowercase: bool,
    task: Task,
    pages: Pages,
) -> DatasetInfo:
    # The classes, without which the positions among them say little; what is known of a name needs no telling.
    told = "" if task == KNOWN.get(name) else task.model_dump_json(exclude={"own"})
    digest = hashlib.sha256(f"{name}{dims}{told}".encode())
    for split in bar(SPLITS, "writing"):
        batch = _record_batch(splits[split], lowercase, pages)
        for column in batch.columns:
            for buffer in column.buffers():
                for piece in pages.pieces(buffer if buffer is not None else b""):
                    digest.update(piece)
        with (folder / f"{split}.arrow").open("wb") as file:
            sink = pa.PythonFile(_Sink(file, pages), mode="w")
            with pa.ipc.new_file(sink, batch.schema) as writer:
                writer.write_batch(batch)
    audio_mean, audio_std = mean_and_std(splits["train"].audio, dims[0])
    vision_mean, vision_std = mean_and_std(splits["train"].vision, dims[1])
    lengths = {
        modality: [count for split in splits.values() for count in lengths_of(getattr(split, modality))]
        for modality in ("audio", "vision")
    }
    info = DatasetInfo(
        name=name,
        fingerprint=digest.hexdigest(),
        sums={split: file_sum(folder / f"{split}.arrow") for split in SPLITS},
        audio_dim=dims[0],
        vision_dim=dims[1],
        splits={split: len(splits[split].ids) for split in SPLITS},
        audio_mean=audio_mean,
        audio_std=audio_std,
        vision_mean=vision_mean,
        vision_std=vision_std,
        missing=[modality for modality, counts in lengths.items() if not any(counts)],
        lowercase=lowercase,
        task=task,
    )
    (folder / "info.json").write_text(_text_of(info))
    return info


def _text_of(info: DatasetInfo) -> str:
    return json.dumps(sealed(info.model_dump(mode="json")), indent=2)


class _Sink:
    """What Arrow writes into a file, which may come from a map, piece by piece."""

    closed = False

    def __init__(self, file: IO[bytes], pages: Pages) -> None:
        self._file, self._pages = file, pages
        self.tell, self.flush = file.tell, file.flush

    def write(self, buffer: Any) -> None:
        for piece in self._pages.pieces(buffer):
            self._file.write(piece)


def _record_batch(data: SplitData, lowercase: bool, pages: Pages) -> pa.RecordBatch:
    texts = [text.lower() for text in data.texts] if lowercase else data.texts
    columns = {
        "id": pa.array(data.ids, pa.string()),
        "text": pa.array(texts, pa.string()),
        "label": pa.array(np.asarray(data.labels, np.float32)),
        "audio": _ragged(data.audio, pages),
        "vision": _ragged(data.vision, pages),
    }
    return pa.record_batch(list(columns.values()), names=list(columns))


def _ragged(sequences: Sequence[np.ndarray], pages: Pages) -> pa.LargeListArray:
    if isinstance(sequences, Frames):
        sizes, values = np.array(sequences.lengths, np.int64) * sequences.dim, sequences.values(pages)
    else:
        sizes = np.array([sequence.size for sequence in sequences], np.int64)
        values = np.concatenate([np.asarray(s, np.float32).ravel() for s in sequences]) if sequences else np.zeros(0)
        values = pa.array(values.astype(np.float32))
    return pa.LargeListArray.from_arrays(pa.array(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)), values)
