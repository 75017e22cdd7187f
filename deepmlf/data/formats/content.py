"""What all formats come to: splits by name, each a dict of lists under MMSA's names; and the dataset made of them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepmlf.data.checks import check_labels, tell_oddities
from deepmlf.data.dataset import SPLITS, DatasetInfo, SplitData, write_dataset
from deepmlf.data.features import MODALITIES, read_frames
from deepmlf.data.formats.labels import class_names, read_classes, read_numbers
from deepmlf.data.paging import Pages
from deepmlf.data.task import KNOWN, Task
from deepmlf.data.values import entries, read_ids, read_texts
from deepmlf.errors import DataError

Content = dict[str, dict[str, Any]]
"""Of each split ``id``, ``raw_text``, labels, ``audio``, ``vision`` (N arrays [frames, features]) and their lengths."""

LABELS = "regression_labels"
LABEL = "label"
"""Of tables."""
CLASSES = ("annotations", "classification_labels", LABELS, "labels", LABEL)
"""Where classes may stand; the first that is there is taken."""
_KEYS = ("raw_text", "id")
USED = (*_KEYS, LABELS, *MODALITIES, *(f"{modality}_lengths" for modality in MODALITIES))
VALID_NAMES = ("dev", "val", "validation")
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


def write_content(
    content: Content,
    out: Path,
    dataset: str,
    task: Task | None,
    *,
    is_range_given: bool,
    lowercase: bool,
    unlabelled: bool,
    force: bool,
    say: Callable[[str], None],
    pages: Pages,
) -> DatasetInfo:
    """Check the splits and write the dataset. What was read of them is let go.

    Args:
        content: The splits.
        out: Folder to write.
        dataset: Name of the dataset.
        task: What the labels are; None for the classes that are found.
        is_range_given: The user has said that labels are numbers.
        lowercase: Lower-case the texts.
        unlabelled: Splits and labels may be missing.
        force: Replace a dataset that is in `out`.
        say: Called with one line on what was not taken as it is, or looks odd.
        pages: Where frames are kept until all is known that the dataset tells of them.

    Raises:
        DataError: With the split, key and row at fault.
    """
    key = _key_of_labels(content, classification=task is None)
    if task is None:
        given = {name: split[key] for name, split in content.items() if split.get(key) is not None}
        task = Task.choice(class_names(given, key, unlabelled=unlabelled))
    dims: dict[str, int] = {}
    splits: dict[str, SplitData] = {}
    for name in SPLITS:
        if name in content:
            splits[name] = _read_split(name, content.pop(name), key, task, dims, unlabelled, say, pages)
        else:
            splits[name] = SplitData([], [], np.zeros(0, np.float32), [], [])
    if not unlabelled:
        labels = {name: split.labels for name, split in splits.items()}
        check_labels(task, labels, say, is_range_given=is_range_given)
    sizes = (dims.get("audio", 1), dims.get("vision", 1))
    tell_oddities(splits, sizes, say)
    return write_dataset(out, dataset, splits, sizes, lowercase, task=task, force=force, pages=pages)


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


def _key_of_labels(content: Mapping[str, Mapping[str, Any]], classification: bool) -> str:
    """Where the labels stand, or should."""
    if not classification:
        is_table = all(split.get(LABEL) is not None for split in content.values())
        return LABEL if is_table else LABELS
    everywhere = (key for key in CLASSES if all(split.get(key) is not None for split in content.values()))
    return next(everywhere, CLASSES[0])


def _read_split(
    split: str,
    data: dict[str, Any],
    key_of_labels: str,
    task: Task,
    dims: dict[str, int],
    unlabelled: bool,
    say: Callable[[str], None],
    pages: Pages,
) -> SplitData:
    has_labels = data.get(key_of_labels) is not None or not unlabelled
    for key in (*_KEYS, key_of_labels) if has_labels else _KEYS:
        if data.get(key) is None:
            is_none = key in data and key in (*USED, *CLASSES)
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
    frames = {modality: read_frames(split, modality, data, count, dims, say, pages) for modality in MODALITIES}
    return SplitData(ids, texts, labels.astype(np.float32), frames["audio"], frames["vision"])


def _advice(key: str, data: Mapping[str, Any]) -> str:
    """Why a key is not there, by what is there instead, and where to get it."""
    if key == "id":
        return ""
    table, always = (_NO_TEXT, _TRANSCRIPTS) if key == "raw_text" else (_NO_LABELS, "")
    return next((advice for other, advice in table.items() if other in data), "") + always
