"""A study's journal behind a URI, in parts: objects there cannot be added to, and it grows with every epoch.

``optuna.journal`` is the first mebibyte, ``optuna.journal.000001048576`` what follows that byte, and so on; only the
last part is ever written again. What a part holds stands at its place whatever the parts before it hold, so that a
first part may be longer: a copy's, or an earlier release's, is all of the journal that there was.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from deepmlf.files import new_file
from deepmlf.places import RemoteFolder
from deepmlf.tune.experiment.layout import JOURNAL, journal_of

PART_BYTES = 1 << 20
_OVERLAP_BYTES = 1 << 14
"""By how much of their ends two journals are compared: many lines, each with a checksum and most with a time."""


@dataclass(frozen=True)
class Part:
    """Bytes of a file from an offset on, as an object of their own."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset of the first byte after it."""
        return self.offset + self.size


def journals_in(sizes: Mapping[str, int]) -> dict[str, list[Part]]:
    """The parts of every journal in a folder, in their order; an experiment may have others inside it.

    Args:
        sizes: Bytes of every file by its path in the folder.
    """
    journals: dict[str, list[Part]] = {}
    for name, size in sizes.items():
        if (whole := journal_of(name)) is not None:
            journals.setdefault(whole, []).append(Part(name, int(name[len(whole) + 1 :] or 0), size))
    return {name: sorted(parts, key=lambda part: part.offset) for name, parts in journals.items()}


def length(parts: list[Part]) -> int:
    """Bytes of a file that has these parts."""
    return max((part.end for part in parts), default=0)


def new_parts(path: Path, known: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of the parts that a file has got since it had `known` bytes."""
    with path.open("rb") as file:
        offset = file.seek(known // PART_BYTES * PART_BYTES)
        while content := file.read(PART_BYTES):
            yield offset, content
            offset += len(content)


def read_from(remote: RemoteFolder, parts: list[Part], offset: int = 0) -> bytes:
    """What a file of these parts has from an offset on.

    Raises:
        OSError: If the file system cannot be reached, or a part is not there any more.
    """
    content = bytearray()
    for part in (part for part in parts if part.end > offset):
        read = remote.read(part.name)
        at = max(0, part.offset - offset)
        if read is None or at > len(content):
            raise FileNotFoundError(f"{JOURNAL}: lacks bytes before or in {part.name}")
        read = read[max(0, offset - part.offset) :]
        content[at : at + len(read)] = read
    return bytes(content)


def grow(remote: RemoteFolder, parts: list[Part], target: Path) -> None:
    """Add to a local journal what the one behind a URI has beyond it; one that is no beginning of it is replaced.

    Raises:
        OSError: If the file system cannot be reached.
    """
    size = target.stat().st_size if target.is_file() else 0
    if size >= length(parts):
        return
    overlap = min(size, _OVERLAP_BYTES)
    content = read_from(remote, parts, size - overlap)
    if size and _read(target, size - overlap, overlap) == content[:overlap]:
        with target.open("ab") as file:
            file.write(content[overlap:])
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with new_file(target) as temporary:
        temporary.write_bytes(read_from(remote, parts))


def went_apart(remote: RemoteFolder, parts: list[Part], target: Path) -> bool:
    """Whether neither of a local journal and the one behind a URI is the beginning of the other.

    Raises:
        OSError: If the file system cannot be reached.
    """
    common = min(target.stat().st_size if target.is_file() else 0, length(parts))
    start = max(0, common - _OVERLAP_BYTES)
    return common > 0 and _read(target, start, common - start) != read_from(remote, parts, start)[: common - start]


def _read(path: Path, offset: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(count)
