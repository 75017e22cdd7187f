"""Single values of a pickle as what they stand for: numbers, texts, ids. People write them in many ways."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from deepmlf.errors import DataError

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\s\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+")

ID_JOINT = "$_$"
"""Between the parts of an id, as MMSA writes ``video$_$clip``."""


def entries(split: str, key: str, values: Any, count: int | None = None) -> Sequence[Any]:
    """The values of a key, one per utterance.

    Args:
        split: For the error's text, like `key`.
        key: Their key.
        values: What should be a list or an array.
        count: How many there must be.

    Raises:
        DataError: If they are no sequence, or there are more or fewer.
    """
    is_array = isinstance(values, np.ndarray) and values.ndim > 0
    is_sequence = is_array or (isinstance(values, Sequence) and not isinstance(values, str | bytes | bytearray))
    if not is_sequence:
        raise DataError(f"split {split!r}: {key!r} must hold a value per utterance, but holds {_kind(values)}")
    if count is not None and len(values) != count:
        raise DataError(f"split {split!r}: {count} ids, but {len(values)} entries in {key!r}")
    return values


def numbers(value: Any, where: str) -> np.ndarray:
    """A value as an array of real numbers in the type that it has; None becomes NaN.

    Raises:
        DataError: If it holds anything else.
    """
    try:
        # An object array of arrays is a list of them; numpy would keep it as it is.
        array = np.asarray(value.tolist() if isinstance(value, np.ndarray) and value.dtype == object else value)
        if array.dtype.kind in "OUS":
            array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise DataError(f"{where}: must hold numbers, but holds {_shown(value)}") from None
    if array.dtype.kind not in "biuf":
        raise DataError(f"{where}: must hold real numbers, but holds {array.dtype.name}")
    return array


def number_per_entry(split: str, key: str, values: Sequence[Any]) -> np.ndarray:
    """The numbers of a key, of any shape, float64; an error names the row at fault.

    Raises:
        DataError: If an entry is no number.
    """
    try:
        return numbers(values, f"split {split!r}, {key}").astype(np.float64)
    except DataError:
        for row, value in enumerate(values):
            numbers(value, f"split {split!r}, {key}, row {row}")
        raise


def read_ids(split: str, values: Sequence[Any]) -> list[str]:
    """Ids as a person can type them; one of several parts has ``$_$`` between them.

    Raises:
        DataError: If an utterance has none, or two have the same.
    """
    ids = [_id(value, f"split {split!r}, id, row {row}") for row, value in enumerate(values)]
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row:
            raise DataError(
                f"split {split!r}: id {name!r} occurs more than once (rows {first[name]} and {row}); "
                f"put what tells them apart in front, e.g. video{ID_JOINT}{name}"
            )
    return ids


def read_texts(split: str, values: Sequence[Any], say: Callable[[str], None]) -> list[str]:
    """Transcripts; a missing one (None, NaN) is an empty text, a list of words is joined by blanks, and both are told.

    Raises:
        DataError: If one is anything else.
    """
    texts = [_text(value, f"split {split!r}, raw_text, row {row}") for row, value in enumerate(values)]
    missing = [row for row, text in enumerate(texts) if text is None]
    empty = [row for row, text in enumerate(texts) if text is not None and not text.strip()]
    words = [row for row, value in enumerate(values) if isinstance(plain(value), list | tuple) and len(value) > 1]
    for rows, what in (
        (missing, "are missing (None or NaN) and taken as empty"),
        (empty, "are empty"),
        (words, "are lists of words, joined by blanks"),
    ):
        if rows:
            say(f"split {split!r}: {len(rows)} of {len(texts)} texts {what} (the first in row {rows[0]})")
    return [text or "" for text in texts]


def read_name(value: Any, where: str) -> str | None:
    """The name of a class: a text, or a whole number as one; None if it is missing (None, NaN, an empty text).

    Raises:
        DataError: If it is anything else.
    """
    value = plain(value)
    if isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if value is None or _is_nan(value):
        return None
    if isinstance(value, str | bytes):
        return _decoded(value, where).strip() or None
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    raise DataError(f"{where}: must be the name or the number of a class, but is {_shown(value)}")


def _id(value: Any, where: str) -> str:
    value = plain(value)
    if isinstance(value, list | tuple):
        parts = [_id(part, where) for part in value]
    elif isinstance(value, str | bytes | int | float) and not _is_nan(value):
        parts = [_decoded(value, where) if isinstance(value, str | bytes) else str(value)]
    else:
        raise DataError(f"{where}: must be an id, but is {_shown(value)}")
    if not all(parts) or not parts:
        raise DataError(f"{where}: must be an id, but is empty")
    return ID_JOINT.join(parts)


def _text(value: Any, where: str) -> str | None:
    value = plain(value)
    if value is None or _is_nan(value):
        return None
    if isinstance(value, str | bytes | bytearray):
        return _decoded(value, where)
    if isinstance(value, list | tuple):
        words = [_text(word, where) for word in value]
        if None in words:
            raise DataError(f"{where}: must be text, but one of its words is None or NaN")
        return " ".join(word for word in words if word)
    raise DataError(f"{where}: must be text, but is {_shown(value)}")


def _decoded(value: str | bytes | bytearray, where: str) -> str:
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{where}: holds half a character ({value!a:.40}); read it again in the encoding of its file"
            ) from None
        return str(value)  # numpy has a type of its own
    try:
        if b"\0" in value:  # UTF-16 of plain letters would pass as UTF-8
            raise ValueError
        return value.decode("utf-8-sig")
    except ValueError:
        raise DataError(
            f"{where}: holds bytes that are not UTF-8; decode them first, e.g. Chinese of Windows with "
            ".decode('gb18030')"
        ) from None


def plain(value: Any) -> Any:
    """A value without numpy: lists for arrays."""
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a dict"
    return "None" if value is None else f"one {type(value).__name__}"


def _shown(value: Any) -> str:
    """A value in a few letters, for an error's text."""
    if isinstance(value, np.ndarray):
        return f"an array of {value.dtype.name} {list(value.shape)}"
    if isinstance(value, list | tuple | Mapping):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{value!r:.40}"


def words_of(text: str) -> list[str]:
    """The words of a text in lower case; of Chinese and Japanese, which have no blanks, the characters."""
    return _WORD.findall(text.lower())
