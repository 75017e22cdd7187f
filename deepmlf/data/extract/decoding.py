"""Video and audio files as what is in them: sound at one rate, pictures at regular times. FFmpeg's libraries decode."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition
from PIL import Image

from deepmlf.errors import DataError, first_line

SAMPLING_RATE = 16_000
"""Samples per second of the sound that is handed on: eGeMAPS looks no higher than 5 kHz."""
_LARGEST_SIDE = 1280  # pixels; larger pictures are made smaller, which keeps every landmark of a face
_EXACT = {"avi", "flac", "matroska", "mov", "mp4", "webm"}
"""Forms of files whose stated length holds; of others FFmpeg judges by what is there."""
_UNKNOWN_SIZE = 0x7FFF_0000  # from here on a RIFF file's size is what programs write that do not know it
_TOLERANCE = 0.5  # seconds by which a whole file may end before the end that it states
_USUAL_RATE = 25.0  # frames per second
_REMEDY = "if a player plays it, write it anew, e.g. `ffmpeg -i {name} new.mp4`"


def decode(
    path: Path,
    on_sound: Callable[[np.ndarray], None] | None,
    on_picture: Callable[[Image.Image], None] | None,
    pictures_per_second: float,
) -> None:
    """Hand on what is in a file, in one pass; nothing is called for what it does not hold.

    Args:
        path: The file.
        on_sound: Called with one piece of mono sound after the other, [samples] float32 in -1 to 1, 16,000 samples per
            second; None for none.
        on_picture: Called with one picture after the other, upright and at most 1280 pixels wide or high; None for
            none. A picture that illustrates a sound file (its cover) is none.
        pictures_per_second: How many pictures of each second are handed on at most.

    Raises:
        DataError: If the file cannot be decoded, holds neither sound nor pictures, or is cut short.
    """
    _check_riff(path)
    try:
        with av.open(str(path)) as container:
            sound, film = _streams(container)
            if sound is None and film is None:
                raise DataError("holds neither sound nor pictures")
            resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLING_RATE)
            chosen = _Chosen(container, film, pictures_per_second)
            end = Fraction(0)
            for packet in container.demux([stream for stream in (sound, film) if stream is not None]):
                end = max(end, _end_of(packet))
                if packet.stream is sound and on_sound is not None:
                    for frame in packet.decode():
                        _resample(resampler, frame, on_sound)
                elif packet.stream is film and on_picture is not None:
                    for frame in filter(chosen, packet.decode()):
                        on_picture(_upright(frame))
            if sound is not None and on_sound is not None:
                _resample(resampler, None, on_sound)
            _check_end(container, end)
    except av.FFmpegError as error:
        reason = error.strerror or first_line(error)
        raise DataError(f"cannot be decoded ({reason}); {_REMEDY.format(name=path.name)}") from None


def _streams(container: Any) -> tuple[Any, Any]:
    """The best stream of sound and of pictures, None where there is none."""
    film = container.streams.best("video")
    if film is not None and film.disposition & Disposition.attached_pic:
        film = None
    return container.streams.best("audio"), film


def _end_of(packet: Any) -> Fraction:
    """When a packet ends, in seconds."""
    if packet.pts is None or packet.time_base is None:
        return Fraction(0)
    return (packet.pts + (packet.duration or 0)) * packet.time_base


def _check_riff(path: Path) -> None:
    """A .wav or .avi file tells its size in its first bytes, which FFmpeg does not compare."""
    with path.open("rb") as file:
        head = file.read(8)
    stated, there = int.from_bytes(head[4:], "little") + len(head), path.stat().st_size
    if head[:4] == b"RIFF" and there < stated < _UNKNOWN_SIZE:
        raise DataError(f"is cut short: {there} bytes of {stated}; fetch it again")


def _check_end(container: Any, end: Fraction) -> None:
    if container.duration is None or not _EXACT & set(container.format.name.split(",")):
        return
    stated = container.duration / av.time_base
    reached = float(end) - (container.start_time or 0) / av.time_base
    if reached < stated - _TOLERANCE:
        raise DataError(f"is cut short: ends after {reached:.1f} s of {stated:.1f} s; fetch it again")


def _resample(resampler: Any, frame: Any, on_sound: Callable[[np.ndarray], None]) -> None:
    """Hand on a frame's sound; None for what the resampler has kept back."""
    try:
        pieces = resampler.resample(frame)
    except ValueError as error:  # its channels or rate are other ones than before
        raise DataError(f"its sound changes in between ({first_line(error)}); write it anew with one kind") from None
    for piece in pieces:
        on_sound(piece.to_ndarray()[0])


class _Chosen:
    """Whether a frame is the first one near one of the regular times; frames are asked for in their order."""

    def __init__(self, container: Any, film: Any, per_second: float) -> None:
        self._start = (container.start_time or 0) / av.time_base
        self._rate = float(film.average_rate or _USUAL_RATE) if film is not None else _USUAL_RATE
        self._per_second = per_second
        self._frames = 0
        self._last = -1

    def __call__(self, frame: Any) -> bool:
        # Some old files have no times.
        seconds = self._frames / self._rate if frame.time is None else frame.time - self._start
        self._frames += 1
        slot = math.floor(seconds * self._per_second + 0.5)
        is_first = slot > self._last
        self._last = max(slot, self._last)
        return is_first


def _upright(frame: Any) -> Image.Image:
    """A frame as a picture, turned as a player would turn it: phones record lying pictures and say so."""
    scale = min(1.0, _LARGEST_SIDE / max(frame.width, frame.height))
    picture = frame.to_image(width=round(frame.width * scale), height=round(frame.height * scale))
    return picture.rotate(frame.rotation, expand=True) if frame.rotation else picture
