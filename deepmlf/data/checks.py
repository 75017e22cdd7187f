"""What no single row shows: leaks between splits, labels that are something else, features that are not comparable."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations

import numpy as np

from deepmlf.data.dataset import SplitData
from deepmlf.data.features import MODALITIES
from deepmlf.data.frames import lengths_of
from deepmlf.data.statistics import mean_and_std, odd_features
from deepmlf.data.task import Task
from deepmlf.errors import DataError

Say = Callable[[str], None]

_FAR = 1e4  # standard deviations; what is as far from the training data makes a loss that says nothing
_SIMS_STEP = 0.2


def check_labels(task: Task, labels: Mapping[str, np.ndarray], say: Say, *, is_range_given: bool = False) -> None:
    """Refuse classes as labels, and one label to train on; tell those of another dataset, and splits of equal ones.

    Args:
        task: What the labels are.
        labels: [N] of each split, all finite.
        say: Called with one line each.
        is_range_given: The user has said that they are numbers.

    Raises:
        DataError: If the labels are classes: whole numbers, none of them negative; if train has one utterance.
    """
    if len(labels["train"]) < 2:
        raise DataError("split 'train': holds one utterance; training needs two at least")
    if task.is_classification:
        for split, given in labels.items():
            if len(given) and (lacking := _unused(given, task.classes)):
                say(f"split {split!r}: has no utterance of {', '.join(lacking)}")
        return
    every = np.concatenate(list(labels.values()))
    values = np.unique(every)
    if (
        not is_range_given
        and len(values) > 1
        and values[0] >= 0
        and (values == np.round(values)).all()
        and len(every) >= len(values) * 3
    ):
        raise DataError(
            f"all labels are whole numbers from {values[0]:g} to {values[-1]:g} alone, as classes are; "
            f"--task classification takes them for classes, --label-range {values[0]:g} {values[-1]:g} for ratings"
        )
    if task.metrics == "mosi" and np.abs(values).max() <= 1 and (values != np.round(values)).any():
        in_steps = np.allclose(values / _SIMS_STEP, np.round(values / _SIMS_STEP), atol=1e-3)
        steps = f" and all are steps of {_SIMS_STEP}" if in_steps else ""
        say(f"no label is beyond 1{steps}: if this is CH-SIMS, import it with --dataset sims; metrics depend on it")
    for split, given in labels.items():
        if len(given) > 1 and (given == given[0]).all():
            say(f"split {split!r}: every label is {given[0]:g}; Corr is 0 by definition there")


def _unused(labels: np.ndarray, classes: Iterable[str]) -> list[str]:
    """The classes that no label of a split is."""
    had = set(labels[np.isfinite(labels)].astype(int).tolist())
    return [name for place, name in enumerate(classes) if place not in had]


def tell_oddities(splits: Mapping[str, SplitData], dims: tuple[int, int], say: Say) -> None:
    """Tell what makes results wrong although every row is right.

    Args:
        splits: All of them.
        dims: Features per audio and per vision frame.
        say: Called with one line each.
    """
    contents = {name: _contents(split) for name, split in splits.items()}
    for one, other in combinations(splits, 2):
        _tell_shared((one, other), (splits[one].ids, splits[other].ids), (contents[one], contents[other]), say)
    for modality, dim in zip(MODALITIES, dims, strict=True):
        frames: dict[str, Sequence[np.ndarray]] = {name: getattr(split, modality) for name, split in splits.items()}
        have = [name for name in frames if any(lengths_of(frames[name]))]
        lack = [name for name in frames if len(frames[name]) and name not in have]
        if have and lack:
            say(f"no utterance of {' and '.join(lack)} has {modality}, though those of {' and '.join(have)} have")
        _tell_scales(modality, frames, dim, say)


def _tell_shared(
    names: tuple[str, str],
    ids: tuple[Sequence[str], Sequence[str]],
    contents: tuple[Sequence[bytes | None], Sequence[bytes | None]],
    say: Say,
) -> None:
    """Utterances of two splits that are the same, by their ids or, under other ids, by text and frames."""
    known, hashes = set(ids[0]), set(contents[0])
    by_id = [name for name in ids[1] if name in known]
    same = [
        name
        for name, content in zip(ids[1], contents[1], strict=True)
        if content is not None and content in hashes and name not in known
    ]
    for found, how in ((by_id, "by their ids"), (same, "by their texts and features, under other ids")):
        if found:
            say(
                f"{len(found)} of {len(ids[1])} utterances of {names[1]!r} are in {names[0]!r}, too, {how} (the first "
                f"is {found[0]!r}): results on {names[1]!r} would be of data that is not new"
            )


def _contents(split: SplitData) -> list[bytes | None]:
    """A hash of each utterance's text and frames; None without frames: short texts occur again."""
    return [
        hashlib.blake2b(text.encode() + b"\0" + audio.tobytes() + b"\0" + vision.tobytes()).digest()
        if len(audio) or len(vision)
        else None
        for text, audio, vision in zip(split.texts, split.audio, split.vision, strict=True)
    ]


def _tell_scales(modality: str, frames: Mapping[str, Sequence[np.ndarray]], dim: int, say: Say) -> None:
    """A few values that squeeze all others of a feature, and values of other splits far from all that train has."""
    for odd in odd_features(frames["train"], dim):
        say(
            f"split 'train', {modality}, row {odd.row}, frame {odd.frame}, feature {odd.feature}: {odd.value:g} makes "
            f"the feature's standard deviation {odd.std:.2g}, without it about {odd.std_of_others:.2g}: scaled by it, "
            "all other values are the same; mend or clip it"
        )
    if not any(lengths_of(frames["train"])):
        return
    means, stds = (np.array(values) for values in mean_and_std(frames["train"], dim))
    for split in ("valid", "test"):
        for row, sequence in enumerate(frames[split]):
            distance = np.abs(sequence - means) / stds
            if distance.size and distance.max() > _FAR:
                frame, feature = np.unravel_index(distance.argmax(), distance.shape)
                say(
                    f"split {split!r}, {modality}, row {row}, frame {frame}, feature {feature}: "
                    f"{sequence[frame, feature]:g} is {distance.max():.2g} standard deviations of train from its mean; "
                    "mend or clip it"
                )
                break
