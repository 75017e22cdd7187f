"""The layout of MMSA: a pickle of padded numpy arrays. Pickles are not trusted."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deepmlf.data.dataset import SPLITS
from deepmlf.data.features import MODALITIES
from deepmlf.data.formats.content import CLASSES, USED, VALID_NAMES, Content
from deepmlf.data.formats.mag import is_mag, read_mag
from deepmlf.data.formats.unpickling import load_pickle
from deepmlf.data.paging import PagedRows, Pages
from deepmlf.errors import DataError


def read_mmsa(path: Path, pages: Pages, *, unlabelled: bool, say: Callable[[str], None]) -> Content:
    """The splits of a pickle by their names, each with what is used of it alone: the rest makes room.

    Args:
        path: The pickle, ``{"train" | "valid" | "test": {...}}``; gzip, bzip2 or xz may have compressed it.
        pages: Where its arrays are mapped.
        unlabelled: Splits may be missing.
        say: Called with one line on what was not taken as it is.

    Raises:
        DataError: If it is no such pickle.
    """
    content = load_pickle(path, pages)
    if not isinstance(content, Mapping):
        raise DataError(f"{path}: must hold a dict of splits, but got {type(content).__name__}")
    if any(isinstance(key, bytes) for key in content):
        say(f"{path}: its keys are bytes, as Python 2 writes them; read as text")
    content = _with_text_keys(content)
    other = next((name for name in VALID_NAMES if name in content), None)
    if "valid" not in content and other is not None:
        say(f"{path}: split {other!r} is taken as 'valid'")
        content["valid"] = content.pop(other)
    for name in SPLITS:
        if is_mag(content.get(name)):
            content[name] = read_mag(name, content[name])
        if content.get(name) is not None and not isinstance(content[name], Mapping):
            raise DataError(
                f"{path}: split {name!r} must be a dict of {', '.join(USED[:5])}, "
                f"but is of type {type(content[name]).__name__}"
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
    return {name: _used(_with_text_keys(content[name]), pages) for name in found}


def _used(split: Mapping[str, Any], pages: Pages) -> dict[str, Any]:
    """What may be used of a split, and of the rest the keys."""
    used = {key: value if key in USED or key in CLASSES else None for key, value in split.items()}
    for modality in MODALITIES:
        value = used.get(modality)
        if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.ndim):
            used[modality] = PagedRows(value, pages)
    return used


def _with_text_keys(content: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key): value for key, value in content.items()
    }
