"""Import of datasets in the MMSA layout: a pickle of padded numpy arrays. Pickles are not trusted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepmlf.data.checks import check_labels, tell_oddities
from deepmlf.data.dataset import SPLITS, DatasetInfo, SplitData, check_out, write_dataset
from deepmlf.data.features import MODALITIES, read_frames
from deepmlf.data.formats.labels import class_names, read_classes, read_numbers
from deepmlf.data.formats.unpickling import load_pickle
from deepmlf.data.task import KNOWN, Task
from deepmlf.data.values import entries, read_ids, read_texts
from deepmlf.errors import DataError

_LABELS = "regression_labels"
_CLASSES = ("annotations", "classification_labels", _LABELS, "labels")
"""Where classes may stand; the first that is there is taken."""
_KEYS = ("raw_text", "id")
_USED = (*_KEYS, _LABELS, *MODALITIES, *(f"{modality}_lengths" for modality in MODALITIES))
_VALID = ("dev", "val", "validation")
"""Other names of the valid split."""
_TRANSCRIPTS = (
    "; raw_text is for the transcripts: they are in label.csv of MMSA's datasets and among CMU-MultimodalSDK's words"
)
_NO_TEXT = {
    "text_bert": "; text_bert holds token ids of BERT, which no decoder LM can read",
    "text": "; text holds embeddings, which no decoder LM can read",
}
_NO_LABELS = {
    "labels": "; if 'labels' holds the sentiment of each utterance, rename it",
    "classification_labels": "; --task classification takes the classes",
    "annotations": "; --task classification takes the classes",
}


def import_mmsa(
    pickle_path: str | Path,
    out: str | Path,
    dataset: str = "mosi",
    lowercase: bool = False,
    *,
    label_range: tuple[float, float] | None = None,
    classification: bool = False,
    unlabelled: bool = False,
    force: bool = False,
    progress: Callable[[str], None] = lambda message: None,
) -> DatasetInfo:
    """Import an MMSA pickle into a memory-mapped dataset folder.

    Sequences are stored without their padding: by ``audio_lengths`` and ``vision_lengths`` where given, else by
    dropping all-zero frames at both ends. A modality that is zero throughout, None or not there is accepted and listed
    as missing.

    >>> info = import_mmsa("MOSI.pkl", "runs/imported", "mosi", lowercase=True)
    >>> info.splits, info.audio_dim, info.vision_dim
    ({'train': 3, 'valid': 3, 'test': 3}, 2, 4)

    Args:
        pickle_path: The pickle, ``{"train" | "valid" | "test": {...}}``; gzip, bzip2 or xz may have compressed it.
        out: Folder to write.
        dataset: ``mosi``, ``mosei`` or ``sims``, whose metrics and label range are known; or any other name, with a
            `label_range` or `classification`.
        lowercase: Lower-case the texts, as ASR transcripts want.
        label_range: Smallest and largest label that there may be.
        classification: Labels are classes: those of the first of ``annotations``, ``classification_labels``,
            ``regression_labels`` and ``labels`` that is there, under the names that they have there.
        unlabelled: The data is to be predicted only: splits and ``regression_labels`` may be missing, and a label may
            be NaN.
        force: Replace a dataset that is in `out`.
        progress: Called with one line on what was not taken as it is, or looks odd: published pickles hold NaN and -inf
            where a feature could not be computed, which become 0.

    Raises:
        DataError: With the split, key and row at fault.
    """
    asked = None if classification else task_of(dataset, label_range)
    pickle_path, out = Path(pickle_path), Path(out)
    check_out(out, force)
    content = _split_contents(pickle_path, unlabelled, progress)
    key = _key_of_labels(content, classification)
    given = {name: split[key] for name, split in content.items() if split.get(key) is not None}
    task = asked or Task.choice(class_names(given, key, unlabelled=unlabelled))
    dims: dict[str, int] = {}
    splits: dict[str, SplitData] = {}
    for name in SPLITS:
        if name in content:
            splits[name] = _read_split(name, content.pop(name), key, task, dims, unlabelled, progress)
        else:
            splits[name] = SplitData([], [], np.zeros(0, np.float32), [], [])
    if not unlabelled:
        labels = {name: split.labels for name, split in splits.items()}
        check_labels(task, labels, progress, is_range_given=label_range is not None)
    sizes = (dims.get("audio", 1), dims.get("vision", 1))
    tell_oddities(splits, sizes, progress)
    return write_dataset(out, dataset, splits, sizes, lowercase, task=task, force=force)


def task_of(dataset: str, label_range: tuple[float, float] | None) -> Task:
    """The task of a dataset whose labels are numbers.

    Args:
        dataset: Its name.
        label_range: Smallest and largest label; None for those of a known dataset.

    Raises:
        DataError: If the dataset is not known and has no range, or the range is none.
    """
    known = KNOWN.get(dataset)
    if label_range is None:
        if known is None:
            raise DataError(
                f"--dataset {dataset}: is none of {', '.join(KNOWN)}, so say what its labels are: "
                "--label-range LOW HIGH or --task classification"
            )
        return known
    task = Task.number(*label_range)
    return known if known is not None and (known.low, known.high) == (task.low, task.high) else task


def _split_contents(path: Path, unlabelled: bool, say: Callable[[str], None]) -> dict[str, dict[str, Any]]:
    """The splits of a pickle by their names, each with what is used of it alone: the rest makes room."""
    content = load_pickle(path)
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: must hold a dict of splits, but got {type(content).__name__}")
    if any(isinstance(key, bytes) for key in content):
        say(f"{path}: its keys are bytes, as Python 2 writes them; read as text")
    content = _with_text_keys(content)
    other = next((name for name in _VALID if name in content), None)
    if "valid" not in content and other is not None:
        say(f"{path}: split {other!r} is taken as 'valid'")
        content["valid"] = content.pop(other)
    for name in SPLITS:
        if content.get(name) is not None and not isinstance(content[name], Mapping):
            raise DataError(
                f"{path}: split {name!r} must be a dict of {', '.join(_USED[:5])}, but {_is(content[name])}"
            )
    found = [name for name in SPLITS if content.get(name) is not None]
    for name in () if unlabelled and found else SPLITS:
        if name not in found:
            what = "holds None" if name in content else "is missing"
            raise DataError(
                f"{path}: split {name!r} {what}; found {', '.join(content) or 'nothing'}"
                + ("; data to predict only is imported with --unlabelled" if found else "")
            )
    if left_out := [key for key in content if key not in SPLITS]:
        say(f"{path}: {', '.join(left_out)} left out; only {', '.join(SPLITS)} are imported")
    return {name: _used(_with_text_keys(content[name])) for name in found}


def _used(split: Mapping[str, Any]) -> dict[str, Any]:
    """What may be used of a split, and of the rest the keys."""
    return {key: value if key in _USED or key in _CLASSES else None for key, value in split.items()}


def _key_of_labels(content: Mapping[str, Mapping[str, Any]], classification: bool) -> str:
    """Where the labels stand, or should."""
    if not classification:
        return _LABELS
    everywhere = (key for key in _CLASSES if all(split.get(key) is not None for split in content.values()))
    return next(everywhere, _CLASSES[0])


def _with_text_keys(content: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): value for key, value in content.items()
    }


def _is(value: Any) -> str:
    """What a split is instead of a dict."""
    if isinstance(value, list) and value and isinstance(value[0], tuple) and len(value[0]) == 3:
        return "is a list of ((words, visual, acoustic), label, segment), as BERT_multimodal_transformer has it"
    return f"is of type {type(value).__name__}"


def _read_split(
    split: str,
    data: dict[str, Any],
    key_of_labels: str,
    task: Task,
    dims: dict[str, int],
    unlabelled: bool,
    say: Callable[[str], None],
) -> SplitData:
    has_labels = data.get(key_of_labels) is not None or not unlabelled
    for key in (*_KEYS, key_of_labels) if has_labels else _KEYS:
        if data.get(key) is None:
            is_none = key in data and key in (*_USED, *_CLASSES)
            raise DataError(
                f"split {split!r}: key {key!r} is {'None' if is_none else 'missing'}; "
                f"found {', '.join(data)}{_advice(key, data)}"
            )
    ids = read_ids(split, entries(split, "id", data["id"]))
    count = len(ids)
    if count == 0:
        raise DataError(f"split {split!r}: is empty")
    texts = read_texts(split, entries(split, "raw_text", data["raw_text"], count), say)
    labels = np.full(count, np.nan)
    if has_labels and task.is_classification:
        labels = read_classes(split, key_of_labels, data[key_of_labels], count, task.classes, unlabelled=unlabelled)
    elif has_labels:
        labels = read_numbers(split, key_of_labels, data[key_of_labels], count, task, unlabelled=unlabelled)
    frames = {modality: read_frames(split, modality, data, count, dims, say) for modality in MODALITIES}
    return SplitData(ids, texts, labels.astype(np.float32), frames["audio"], frames["vision"])


def _advice(key: str, data: Mapping[str, Any]) -> str:
    """Why a key is not there, by what is there instead, and where to get it."""
    if key == "id":
        return ""
    table, always = (_NO_TEXT, _TRANSCRIPTS) if key == "raw_text" else (_NO_LABELS, "")
    return next((advice for other, advice in table.items() if other in data), "") + always
