"""The layout of MAG-BERT and MISA: each split a list of ``((words, visual, acoustic), label, segment)``."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deepmlf.data.features import MODALITIES
from deepmlf.data.formats.content import LABELS
from deepmlf.data.values import numbers, plain
from deepmlf.errors import DataError

_FEATURES = 3  # words, visual, acoustic; MISA adds the words themselves as a fourth where the first are indices


def is_mag(split: Any) -> bool:
    """Whether a split is in this layout, by its first utterance."""
    return (
        isinstance(split, list)
        and len(split) > 0
        and isinstance(split[0], list | tuple)
        and len(split[0]) == 3
        and isinstance(split[0][0], list | tuple)
        and len(split[0][0]) >= _FEATURES
    )


def read_mag(split: str, utterances: Sequence[Any]) -> dict[str, Any]:
    """One split under the names of MMSA's.

    Where each word has a row of visual and of acoustic features, as there, zeros are frames like any other; else they
    are padding at the ends.

    Args:
        split: Its name, for the error's text.
        utterances: Its entries.

    Raises:
        DataError: If one is of another layout, or its label is not one number.
    """
    content: dict[str, Any] = {name: [] for name in ("id", "raw_text", LABELS, *MODALITIES)}
    for row, utterance in enumerate(utterances):
        if not is_mag([utterance]):
            raise DataError(f"split {split!r}, row {row}: is no ((words, visual, acoustic), label, segment)")
        (words, visual, acoustic, *more), label, segment = utterance
        value = numbers(label, f"split {split!r}, label, row {row}")
        if value.size != 1:
            raise DataError(
                f"split {split!r}, row {row}: must have one label, but has {value.size}; keep the sentiment, in "
                "CMU-MOSEI's the first"
            )
        content["id"].append(segment)
        content["raw_text"].append(_words(split, row, words, more))
        content[LABELS].append(float(value.reshape(-1)[0]))
        content["vision"].append(visual)
        content["audio"].append(acoustic)
    counts = [len(words) for words in content["raw_text"]]
    for modality in MODALITIES:
        pairs = zip(content[modality], counts, strict=True)
        if all(np.ndim(frames) and len(frames) == count for frames, count in pairs):
            content[f"{modality}_lengths"] = counts
    return content


def _words(split: str, row: int, words: Any, more: Sequence[Any]) -> list[Any]:
    """The words; where they are indices of a vocabulary, those that MISA has beside them."""
    for given in (words, *more):
        said = plain(given)
        if isinstance(said, list | tuple) and all(isinstance(word, str | bytes) for word in said):
            return list(said)
    raise DataError(f"split {split!r}, row {row}: its words are indices of a vocabulary; words themselves are needed")
