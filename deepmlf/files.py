"""Files and folders that appear whole or not at all, also after a power cut."""

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

from deepmlf.errors import first_line


@contextlib.contextmanager
def new_file(target: Path) -> Iterator[Path]:
    """The path of a temporary file that becomes `target` if the block succeeds, and vanishes otherwise."""
    temporary = _unfinished(target)
    try:
        yield temporary
        _to_disk(temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder that becomes `target` if the block succeeds, and vanishes otherwise; what is there goes."""
    temporary = _unfinished(target)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        publish_folder(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_folder(temporary: Path, target: Path) -> None:
    """Give a written folder its name once its files are on the disk; what had the name is removed."""
    for path in temporary.rglob("*"):
        if path.is_file():
            _to_disk(path)
    if target.exists():
        shutil.rmtree(target)
    temporary.rename(target)
    _to_disk(target.parent)


def why_unwritable(folder: Path) -> str | None:
    """Why a folder cannot be written into, as the system says; None if it can. It need not exist.

    It is tried, as permissions do not tell of a read-only disk, a file in the way or a name too long. Nothing stays.
    """
    try:
        folder = folder.absolute()
        existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
        with tempfile.TemporaryDirectory(prefix=".writable.", dir=existing) as scratch:
            (Path(scratch) / folder.relative_to(existing)).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        return error.strerror or first_line(error)
    return None


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that lacks its end: it would swallow the next one."""
    content = path.read_bytes() if path.is_file() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _unfinished(target: Path) -> Path:
    # A name without the target's: TensorBoard reads any file with `tfevents` in its name.
    return target.with_name(f".unfinished.{uuid.uuid4().hex[:12]}")


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
