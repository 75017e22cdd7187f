"""A study's journal behind a URI, in parts: objects there cannot be added to, and it grows with every epoch.

Each driver of a search writes parts of its own, of a mebibyte at most, and only its last one ever again: the first one
``optuna.journal`` and ``optuna.journal.0000.000001048576``, the next one ``optuna.journal.0001.000002097152``, its
generation and the offset of its first byte. From where a generation begins nothing counts that earlier ones have there,
so that a driver which stood still while another took over cannot spoil what that has written. A part may be longer:
``optuna.journal`` of a copy, or of an earlier release, is all of the journal that there was.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from deepmlf.files import new_file
from deepmlf.places import RemoteFolder
from deepmlf.tune.experiment.layout import JOURNAL, part_of

PART_BYTES = 1 << 20
_OVERLAP_BYTES = 1 << 14
"""By how much of their ends two journals are compared: many lines, each with a checksum and most with a time."""


@dataclass(frozen=True)
class Part:
    """Bytes of a file from an offset on, as an object of their own."""

    name: str
    generation: int
    offset: int
    size: int

    @property
    def end(self) -> int:
        """The offset of the first byte after it."""
        return self.offset + self.size


def journals_in(sizes: Mapping[str, int]) -> dict[str, list[Part]]:
    """The parts that count of every journal in a folder, in their order; an experiment may have others inside it.

    Args:
        sizes: Bytes of every file by its path in the folder.
    """
    journals: dict[str, list[Part]] = {}
    for name, size in sizes.items():
        if (found := part_of(name)) is not None:
            journal, generation, offset = found
            journals.setdefault(journal, []).append(Part(name, generation, offset, size))
    return {name: _counting(parts) for name, parts in journals.items()}


def _counting(parts: list[Part]) -> list[Part]:
    """Of all parts those that count, cut to what of them does."""
    counting: list[Part] = []
    parts = sorted(parts, key=lambda part: (part.generation, part.offset))
    for _, generation in groupby(parts, key=lambda part: part.generation):
        first, *others = generation
        before = [replace(p, size=min(p.size, first.offset - p.offset)) for p in counting if p.offset < first.offset]
        counting = [*before, first, *others]
    return counting


def length(parts: list[Part]) -> int:
    """Bytes of a file that has these parts."""
    return max((part.end for part in parts), default=0)


def next_generation(parts: list[Part]) -> int:
    """The generation of a driver that finds a journal with these parts, which may be none."""
    return max((part.generation + 1 for part in parts), default=0)


def first_offset(known: int) -> int:
    """Where the parts begin that a driver sends which finds so many bytes."""
    return known // PART_BYTES * PART_BYTES


def new_parts(path: Path, known: int) -> Iterator[tuple[int, bytes]]:
    """Offset and content of the parts that a file has got since it had `known` bytes."""
    with path.open("rb") as file:
        offset = file.seek(first_offset(known))
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
        if part is not parts[-1]:  # the last one may have grown since it was listed
            read = read[: part.size]
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
