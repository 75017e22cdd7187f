"""Labels of a split: numbers within a range, or classes under the names that the data has for them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from deepmlf.data.task import Task
from deepmlf.data.values import entries, number_per_entry, plain, read_name
from deepmlf.errors import DataError

_REMEDY = "leave the utterance out, or import with --unlabelled what is to be predicted only"
_MOST_CLASSES = 100


def read_numbers(split: str, key: str, given: Any, count: int, task: Task, *, unlabelled: bool) -> np.ndarray:
    """Labels of one split that are numbers, [N].

    Args:
        split: For the error's text, like `key`.
        key: Their key.
        given: What stands there.
        count: Utterances of the split.
        task: Has their range.
        unlabelled: NaN is no label, instead of an error.

    Raises:
        DataError: If one is no number of the range, or there are more or fewer than utterances.
    """
    try:
        labels = number_per_entry(split, key, entries(split, key, given))
    except DataError as error:
        names = any(isinstance(plain(label), str | bytes) for label in entries(split, key, given))
        raise DataError(f"{error}{'; --task classification takes names of classes' if names else ''}") from None
    if labels.ndim == 2 and len(labels) == count and labels.shape[1] > 1 and labels.size != count:
        raise DataError(
            f"split {split!r}: a row of {key!r} must have one label, but has {labels.shape[1]}; "
            f"keep the sentiment, in CMU-MOSEI's the first, {key}[:, 0]"
        )
    labels = labels.reshape(-1)
    if len(labels) != count:
        raise DataError(f"split {split!r}: {count} ids, but {len(labels)} entries in {key!r}")
    bad = ~np.isfinite(labels) if not unlabelled else np.isinf(labels)
    if bad.any():
        raise DataError(
            f"split {split!r}, {key}, row {int(bad.argmax())}: holds NaN or inf (or None), no label; {_REMEDY}"
        )
    outside = np.flatnonzero((labels < task.low - 1e-6) | (labels > task.high + 1e-6))
    if len(outside):
        row, known = int(outside[0]), labels[np.isfinite(labels)]
        are_classes = (known >= 0).all() and (known == np.round(known)).all()
        raise DataError(
            f"split {split!r}, row {row}: label {labels[row]:g} is outside [{task.low:g}, {task.high:g}]; labels of "
            "another range are imported with --label-range LOW HIGH"
            + (", classes with --task classification" if are_classes else "")
        )
    return labels


def class_names(given: Mapping[str, Any], key: str, *, unlabelled: bool) -> tuple[str, ...]:
    """The classes that occur in any split: in numerical order if all are whole numbers, else in that of the alphabet.

    Args:
        given: What stands under the key in each split.
        key: For the error's text.
        unlabelled: A missing label is none, instead of an error; so may be all of them.

    Raises:
        DataError: If a label is no name and no whole number, or all are the same.
    """
    names = {name for split, values in given.items() for name in _names(split, key, values, unlabelled) if name}
    if len(names) > _MOST_CLASSES:
        raise DataError(
            f"{key}: {len(names)} different labels are too many for classes ({', '.join(sorted(names)[:3])}…)"
        )
    if len(names) < 2 and not unlabelled:
        raise DataError(f"{key}: a classification needs two classes at least, but all labels are {', '.join(names)}")
    are_numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int) if are_numbers else sorted(names))


def read_classes(
    split: str, key: str, given: Any, count: int, classes: Sequence[str], *, unlabelled: bool
) -> np.ndarray:
    """Labels of one split as positions among the classes, [N], NaN where there is none.

    Args:
        split: For the error's text, like `key`.
        key: Their key.
        given: What stands there.
        count: Utterances of the split.
        classes: All of them.
        unlabelled: A missing label is none, instead of an error.

    Raises:
        DataError: If one is no name and no whole number, or there are more or fewer than utterances.
    """
    names = _names(split, key, given, unlabelled)
    if len(names) != count:
        raise DataError(f"split {split!r}: {count} ids, but {len(names)} entries in {key!r}")
    places = {name: float(place) for place, name in enumerate(classes)}
    return np.array([np.nan if name is None else places[name] for name in names])


def _names(split: str, key: str, given: Any, unlabelled: bool) -> list[str | None]:
    names = [
        read_name(value, f"split {split!r}, {key}, row {row}") for row, value in enumerate(entries(split, key, given))
    ]
    if None in names and not unlabelled:
        raise DataError(f"split {split!r}, {key}, row {names.index(None)}: holds no label; {_REMEDY}")
    return names
