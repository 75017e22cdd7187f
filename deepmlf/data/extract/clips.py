"""Which files of a folder are clips, and where the features of each go."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from deepmlf.errors import DataError

_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm"),
    *(".wmv", ".aac", ".aif", ".aiff", ".amr", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus", ".wav", ".wma"),
}
"""Ends of names of video and audio files."""


@dataclass(frozen=True)
class Clip:
    """A video or audio file."""

    path: Path
    name: str
    """Its path in the folder of clips, without its ending: ``7``, ``talk/7``."""

    def target(self, out: Path, modality: str) -> Path:
        """Where its features of a modality go; `deepmlf data import` looks there for those of ``talk$_$7``, too."""
        return out / modality / f"{self.name}.npy"

    def is_done(self, out: Path, modalities: tuple[str, ...]) -> bool:
        """Whether its features are there, and no older than itself."""
        written = [self.target(out, modality) for modality in modalities]
        since = self.path.stat().st_mtime
        return all(path.is_file() and path.stat().st_mtime >= since for path in written)


def find_clips(folder: Path, say: Callable[[str], None]) -> list[Clip]:
    """The clips of a folder and the folders in it, by name. Files whose names begin with a dot are passed over.

    Args:
        folder: The folder.
        say: Called with one line on files that are no clips by their names, and on folders that are links.

    Raises:
        DataError: If there is no clip, or two would have the same features.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder")
    found: dict[str, Path] = {}
    others: list[str] = []
    links: list[str] = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_symlink() and path.is_dir():
            links.append(str(inside))
        if not path.is_file() or any(part.startswith(".") for part in inside.parts):
            continue
        if path.suffix.lower() not in _SUFFIXES:
            others.append(str(inside))
            continue
        name = inside.with_suffix("").as_posix()
        if name in found:
            raise DataError(
                f"{folder}: the features of {found[name].name} and {path.name} would both be in {name}.npy; "
                "rename one of them, or move it elsewhere"
            )
        found[name] = path
    if others:
        say(f"{len(others)} files are no video or audio by their names and left out (the first is {others[0]})")
    if links:
        say(f"{len(links)} folders are links and not looked into (the first is {links[0]})")
    if not found:
        raise DataError(f"{folder}: holds no video or audio file ({', '.join(sorted(_SUFFIXES))})")
    return [Clip(path, name) for name, path in found.items()]
