"""From an utterance's rows in a pickle to frames without padding: where they lie, and that all are numbers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepmlf.data.frames import Frames
from deepmlf.data.paging import Pages
from deepmlf.data.values import entries, number_per_entry, numbers
from deepmlf.errors import DataError
from deepmlf.progress import bar

MODALITIES = ("audio", "vision")
EVERY_FRAME = object()
"""As lengths of a modality: all frames of all utterances count, zeros too."""
_LARGEST = float(np.sqrt(np.finfo(np.float32).max))
"""Beyond it (1.8e19) float32 cannot square a value, as every norm does."""


@dataclass(frozen=True)
class _Rows:
    """Where the frames of a modality of a split lie; arrays of N."""

    total: np.ndarray
    """Frames with padding."""
    first: np.ndarray
    """First frame that is not padding, i.e. holds more than zeros and NaN; 0 where there is none."""
    end: np.ndarray
    """One past the last such frame; 0 where there is none."""


def read_frames(
    split: str,
    modality: str,
    data: Mapping[str, Any],
    count: int,
    dims: dict[str, int],
    say: Callable[[str], None],
    pages: Pages,
) -> Sequence[np.ndarray]:
    """The frames of a modality, without padding.

    Padding is zero or NaN, behind or in front. Where lengths are given they decide how many frames an utterance has;
    its padding says at which end. A modality that is None or not there is absent: no utterance has a frame.

    Args:
        split: Name of the split.
        modality: ``audio`` or ``vision``.
        data: The split, with ``{modality}`` and maybe ``{modality}_lengths``, numbers or `EVERY_FRAME`. Each row is
            asked for twice.
        count: Utterances.
        dims: Features per frame of each modality, as far as they are known; what is found is added.
        say: Called with one line on what was not taken as it is.
        pages: Where what is found is written.

    Returns:
        `count` arrays [frames, features], float32, which share no memory with `data`.

    Raises:
        DataError: With the row at fault.
    """
    if data.get(modality) is None:
        return [np.zeros((0, dims.get(modality, 1)), np.float32)] * count
    values = entries(split, modality, data[modality], count)
    rows = _find_padding(split, modality, values, dims)
    given = data.get(f"{modality}_lengths")
    place = f"split {split!r}, {modality}"
    if given is None:
        starts, ends = np.zeros_like(rows.total), rows.total
        _tell_front(place, rows, say)
    elif given is EVERY_FRAME:
        starts, ends = np.zeros_like(rows.total), rows.total
        remedy = f"if those are padding, give the number of frames in a column '{modality}_lengths'"
        _tell_padded(f"{place}: all frames count", rows, remedy, say)
    else:
        starts, ends = _by_length(split, modality, rows, given, say)
    return _write_windows(
        place, modality, values, (starts, ends), None if given is not None else rows, dims, say, pages
    )


def _find_padding(split: str, modality: str, values: Sequence[Any], dims: dict[str, int]) -> _Rows:
    spans = np.zeros((3, len(values)), np.int64)
    for row in bar(range(len(values)), f"split {split!r}, {modality}: padding"):
        frames = _frames_of(values[row], f"split {split!r}, {modality}, row {row}", modality, dims)
        if frames.shape[1]:
            dim = dims.setdefault(modality, frames.shape[1])
            if frames.shape[1] != dim:
                raise DataError(f"split {split!r}, {modality}, row {row}: {frames.shape[1]} features, but {dim} before")
        filled = np.flatnonzero(((frames != 0) & ~np.isnan(frames)).any(axis=1))
        spans[:, row] = (len(frames), filled[0], filled[-1] + 1) if len(filled) else (len(frames), 0, 0)
    return _Rows(*spans)


def _write_windows(
    place: str,
    modality: str,
    values: Sequence[Any],
    windows: tuple[np.ndarray, np.ndarray],
    padded: _Rows | None,
    dims: Mapping[str, int],
    say: Callable[[str], None],
    pages: Pages,
) -> Frames:
    """The frames between two ends of each row, and if `padded` says where padding is, without it."""
    count = len(values)
    nan, inf = np.zeros((2, count), np.int64)
    sequences = Frames(pages, dims.get(modality, 1))
    for row, (start, end) in enumerate(bar(zip(*windows, strict=True), place, count)):
        where = f"{place}, row {row}"
        window = _frames_of(values[row], where, modality, dims)[start:end]
        frames, nan[row], inf[row] = _clean(where, modality, window, int(start))
        if padded is not None:
            frames = frames[padded.first[row] : padded.end[row]]
        sequences.append(frames if frames.any() else frames[:0])  # zeros alone are absent, whatever the length
    for what, found in (("NaN", nan), ("-inf", inf)):
        if found.any():
            say(f"{place}: {found.sum()} values of {what} became 0 (in {np.count_nonzero(found)} of {count} rows)")
    absent = sequences.lengths.count(0)
    if 0 < absent < count:
        say(f"{place}: {absent} of {count} utterances have no frames")
    return sequences


def _frames_of(value: Any, where: str, modality: str, dims: Mapping[str, int]) -> np.ndarray:
    """What stands in a row as [frames, features]."""
    frames = numbers(value, where)
    if frames.ndim == 2:
        return frames
    if frames.ndim < 2 and (frames.size == 0 or (frames.ndim == 0 and np.isnan(frames))):  # [] or None
        return np.zeros((0, dims.get(modality, 0)))
    advice = f"; one vector per utterance is one frame, {modality}[:, None, :]" if frames.ndim == 1 else ""
    raise DataError(f"{where}: must be [frames, features], but has {frames.ndim} axes{advice}")


def _tell_front(place: str, rows: _Rows, say: Callable[[str], None]) -> None:
    in_front = int((rows.first > 0).sum())
    if in_front:
        say(f"{place}: {in_front} of {len(rows.first)} rows begin with frames of zeros, left out as padding")


def _by_length(
    split: str, modality: str, rows: _Rows, given: Any, say: Callable[[str], None]
) -> tuple[np.ndarray, np.ndarray]:
    place, key, count = f"split {split!r}, {modality}", f"{modality}_lengths", len(rows.total)
    lengths = _read_lengths(split, modality, rows, given)
    in_front = _are_padded_in_front(rows, lengths)
    starts = np.where(in_front, rows.total - lengths, 0)
    ends = starts + lengths
    moved = int((in_front & (lengths < rows.total) & (rows.end > lengths)).sum())
    if moved:
        say(
            f"{place}: {moved} of {count} rows are padded in front; their last frames are taken, as many as {key!r} "
            "says"
        )
    cut = np.flatnonzero((rows.end > ends) | (rows.first < starts))
    if len(cut):
        say(
            f"{place}: {len(cut)} of {count} rows have frames other than zero beyond their length (the first is row "
            f"{cut[0]}), left out because {key!r} decides"
        )
    if (lengths == rows.total).all():
        _tell_padded(f"{place}: {key!r} counts all frames", rows, f"if those are padding, leave {key!r} out", say)
    return starts, ends


def _tell_padded(what: str, rows: _Rows, remedy: str, say: Callable[[str], None]) -> None:
    """Tell if zeros that count as frames look like padding."""
    count, padded = len(rows.total), int(((rows.end > 0) & (rows.end - rows.first < rows.total)).sum())
    if 2 * padded > count:
        say(f"{what}, though {padded} of {count} rows begin or end with zeros; {remedy}")


def _are_padded_in_front(rows: _Rows, lengths: np.ndarray) -> np.ndarray:
    """[N], by what lies outside the first or the last frames; where both could be, what most rows of the split are."""
    fits_first, fits_last = rows.end <= lengths, rows.first >= rows.total - lengths
    only_last, only_first = fits_last & ~fits_first, fits_first & ~fits_last
    return only_last | ((fits_first == fits_last) & bool(only_last.sum() > only_first.sum()))


def _read_lengths(split: str, modality: str, rows: _Rows, given: Any) -> np.ndarray:
    key = f"{modality}_lengths"
    lengths = number_per_entry(split, key, entries(split, key, given)).reshape(-1)
    if len(lengths) != len(rows.total):
        raise DataError(f"split {split!r}: {len(rows.total)} ids, but {len(lengths)} entries in {key!r}")
    unknown = np.isnan(lengths)
    lengths = np.where(unknown & (rows.end == 0), 0, lengths)
    for row in np.flatnonzero((lengths != np.round(lengths)) | (lengths < 0) | (lengths > rows.total)):
        if unknown[row]:
            raise DataError(
                f"split {split!r}, {key}, row {row}: is None or NaN, though it has frames; give 0 for none, or leave "
                f"{key!r} out"
            )
        raise DataError(
            f"split {split!r}, {modality}, row {row}: length {lengths[row]:g} is outside 0 to {rows.total[row]}; "
            f"mend {key!r}, or leave it out: zeros are then padding"
            if lengths[row] == np.round(lengths[row])
            else f"split {split!r}, {key}, row {row}: {lengths[row]:g} is no number of frames"
        )
    return lengths.astype(np.int64)


def _clean(where: str, modality: str, frames: np.ndarray, start: int) -> tuple[np.ndarray, int, int]:
    """Frames with NaN and -inf as 0, and how many were NaN and -inf.

    Args:
        where: The row, for an error's text.
        modality: The same.
        frames: [frames, features]
        start: Frames of the row before these.
    """
    finite = np.isfinite(frames)
    nan = inf = 0
    if not finite.all():
        above = np.isposinf(frames)
        if above.any():
            raise DataError(
                f"{where}, frame {start + int(above.any(axis=1).argmax())}: holds {int(above.sum())} values of +inf; "
                f"put a number in their place, e.g. {modality}[np.isposinf({modality})] = 0"
            )
        nan, inf = int(np.isnan(frames).sum()), int(np.isneginf(frames).sum())
        frames = np.where(finite, frames, 0)
    if frames.size and max(-float(frames.min()), float(frames.max())) > _LARGEST:
        frame, feature = np.argwhere(np.abs(frames.astype(np.float64)) > _LARGEST)[0]
        raise DataError(
            f"{where}, frame {start + int(frame)}, feature {feature}: {frames[frame, feature]:g} is too large to "
            f"calculate with in float32 (above {_LARGEST:.1e}); mend or clip it"
        )
    return frames, nan, inf
