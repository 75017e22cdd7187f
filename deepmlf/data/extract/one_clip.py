"""One clip becomes its features, in any process. The libraries of a modality are imported if it is asked for."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from deepmlf.data.extract.clips import Clip
from deepmlf.errors import DataError, DeepMLFError, first_line
from deepmlf.files import new_file


@dataclass(frozen=True)
class Order:
    """What is asked for of each clip."""

    out: Path
    modalities: tuple[str, ...]
    pictures_per_second: float
    models: Path | None
    """Of faces; None if vision is not asked for."""


@dataclass(frozen=True)
class Outcome:
    """What came of a clip."""

    name: str
    fault: str | None = None
    """Why it has no features."""
    frames: Mapping[str, int] = field(default_factory=dict)
    """How many, by modality."""


class Extractor:
    """What makes the features in one process, loaded once."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._speech = self._face = None
        if "audio" in order.modalities:
            from deepmlf.data.extract.speech import SpeechFeatures

            self._speech = SpeechFeatures()
        if order.models is not None:
            from deepmlf.data.extract.face import FaceFeatures

            self._face = FaceFeatures(order.models)

    def kinds(self) -> dict[str, dict[str, Any]]:
        """What the features are, by modality."""
        kinds: dict[str, dict[str, Any]] = {}
        if self._speech is not None:
            rate = self._speech.frames_per_second
            kinds["audio"] = {"kind": self._speech.kind, "frames_per_second": rate, "names": self._speech.names}
        if self._face is not None:
            rate = self._order.pictures_per_second
            kinds["vision"] = {"kind": self._face.kind, "frames_per_second": rate, "names": list(self._face.names)}
        return kinds

    def features_of(self, path: Path) -> dict[str, np.ndarray]:
        """The features of a clip by modality, [frames, features] float32 each.

        Raises:
            DataError: If it cannot be decoded.
        """
        from deepmlf.data.extract.decoding import decode

        speech, face = self._speech, self._face
        sound: list[np.ndarray] = []
        rows: list[np.ndarray] = []
        decode(
            path,
            on_sound=sound.append if speech is not None else None,
            on_picture=(lambda picture: rows.append(face.of(picture))) if face is not None else None,
            pictures_per_second=self._order.pictures_per_second,
        )
        features = {}
        if speech is not None:
            features["audio"] = speech.of(sound)
        if face is not None:
            features["vision"] = face.frames(rows)
        for modality, frames in features.items():
            if not np.isfinite(frames).all():
                raise DataError(f"its {modality} features hold NaN or inf: its {modality} is damaged")
        return features


@functools.lru_cache(1)
def extractor_of(order: Order) -> Extractor:
    """The extractor of this process."""
    return Extractor(order)


def extract(order: Order, clip: Clip) -> Outcome:
    """Write a clip's features. That a clip cannot be read is no error of the others.

    Raises:
        OSError: If they cannot be written.
    """
    try:
        features = extractor_of(order).features_of(clip.path)
    except Exception as error:  # whatever decoders say of a file that nobody has tried before
        for modality in order.modalities:  # those of the file that was there before
            clip.target(order.out, modality).unlink(missing_ok=True)
        is_told = isinstance(error, DeepMLFError)
        return Outcome(clip.name, first_line(error) if is_told else f"{type(error).__name__}: {first_line(error)}")
    for modality, frames in features.items():
        target = clip.target(order.out, modality)
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_file(target) as unfinished, unfinished.open("wb") as file:
            np.save(file, frames)
    return Outcome(clip.name, frames={modality: len(frames) for modality, frames in features.items()})
