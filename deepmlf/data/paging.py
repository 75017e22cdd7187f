"""Files mapped into memory, of which little stays resident, and temporary ones that vanish with the process."""

import contextlib
import mmap
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from deepmlf.errors import DataError, first_line

BLOCK = 1 << 23
"""Bytes that are read, or stay mapped, at a time."""

_SCATTERED = 8 * BLOCK
"""Of arrays whose rows are no pieces of memory: the more at a time, the fewer visits to each page."""


class Pages:
    """Maps of files; as soon as a block of them has been read, none of it stays resident.

    The kernel counts pages that were read as memory of the process until it needs them for something else: a large file
    that is read once would look like one that is held.
    """

    def __init__(self, folder: Path) -> None:
        """Begin without any.

        Args:
            folder: Where temporary files lie, or if it is not there, in the next above it.
        """
        folder = folder.absolute()
        self._folder = next(path for path in (folder, *folder.parents) if path.is_dir())
        self._maps: list[mmap.mmap] = []
        self._touched = 0

    def temporary(self, size: int = 0) -> IO[bytes]:
        """A file without a name, which is gone when it is closed or the process ends, however it does.

        Args:
            size: Bytes that can be mapped before they are written.

        Raises:
            DataError: If none can be made.
        """
        try:
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (its user closes it)
            file.truncate(size)
            return file
        except OSError as error:
            raise self._unwritable(error) from None

    def write(self, file: IO[bytes], data: Any) -> None:
        """Add to a temporary file; it can be read at once.

        Raises:
            DataError: If the disk is full.
        """
        try:
            file.write(data)
            file.flush()
        except OSError as error:
            with contextlib.suppress(OSError):  # it would try again to write what is left
                file.close()
            raise self._unwritable(error) from None

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(f"{self._folder}: cannot be written ({error.strerror or first_line(error)})")

    def map(self, file: IO[bytes]) -> mmap.mmap:
        """A file that is not empty, for reading.

        Raises:
            OSError: If it cannot be mapped.
        """
        found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._maps.append(found)
        return found

    def touch(self, count: int) -> None:
        """Tell that so many bytes of the maps have been read."""
        self._touched += count
        if self._touched >= BLOCK:
            self._touched = 0
            for found in self._maps:
                found.madvise(mmap.MADV_DONTNEED)

    def pieces(self, buffer: Any) -> Iterator[memoryview]:
        """The bytes of a buffer that may be a map, piece by piece."""
        view = memoryview(buffer)
        for start in range(0, len(view), BLOCK):
            piece = view[start : start + BLOCK]
            yield piece
            self.touch(len(piece))


class PagedRows(Sequence[Any]):
    """The values of a sequence one at a time; arrays, which may lie in a map, come as copies in the machine's order."""

    def __init__(self, values: Sequence[Any] | np.ndarray, pages: Pages) -> None:
        self._values, self._pages = values, pages
        self._is_scattered = isinstance(values, np.ndarray) and values.ndim > 1 and not values.flags.c_contiguous
        self._first, self._some = 0, np.zeros(0)

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, row: Any) -> Any:
        if self._is_scattered:
            return self._row_among_others(row)
        value = self._values[row]
        if isinstance(value, np.ndarray):
            self._pages.touch(value.nbytes)
            value = np.array(value, value.dtype.newbyteorder("="))
        return value

    def _row_among_others(self, row: int) -> np.ndarray:
        """A row of an array in Fortran's order, where each is spread over all of its map: many are read at once."""
        if not self._first <= row < self._first + len(self._some):
            array = np.asarray(self._values)
            rows = array[row : row + max(1, _SCATTERED * len(array) // array.nbytes)]
            self._first, self._some = row, np.empty(rows.shape, array.dtype.newbyteorder("="))
            for feature in range(rows.shape[-1]):
                self._some[..., feature] = rows[..., feature]
                self._pages.touch(BLOCK)
        found: np.ndarray = self._some[row - self._first]
        return found
