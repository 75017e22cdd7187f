"""Reading of pickles that are not trusted: numpy arrays and plain containers, and nothing else."""

import codecs
import contextlib
import io
import mmap
import pickle
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np

from deepmlf.data.formats.foreign import open_pickle
from deepmlf.data.paging import BLOCK, Pages
from deepmlf.errors import DataError, first_line
from deepmlf.progress import bar

_FLOAT_SIZE = 9  # bytes, with the sign that it is one
_FLOATS = 256
_SMALL = 1024  # bytes; as much as it takes to know of an array where it lies

# What numpy's own pickles name, in its old and new module layout; dict, list, str and numbers need no name at all.
_NUMPY = {
    "numpy": {"ndarray", "dtype"},
    "core.multiarray": {"_reconstruct", "scalar"},
    "core.numeric": {"_frombuffer"},
}
_PLAIN = {
    ("_codecs", "encode"),
    ("collections", "OrderedDict"),
    ("collections", "defaultdict"),
    *(("builtins", name) for name in ("list", "dict", "set", "frozenset", "bytes", "bytearray", "int", "float", "str")),
}
_ALLOWED = _PLAIN | {
    (f"numpy.{prefix}{module}" if module != "numpy" else module, name)
    for module, names in _NUMPY.items()
    for prefix in (("", "_") if module != "numpy" else ("",))
    for name in names
}
_INSTEAD = {
    "torch": "torch tensors must be stored as tensor.numpy()",
    "pandas": "pandas objects must be stored as .to_numpy()",
    "numpy.ma": "masked arrays must be stored as .filled(0)",
    "joblib": "what joblib.dump wrote must be read with joblib.load and written again with the pickle module",
    "scipy": "sparse arrays must be stored as .toarray()",
    "tensorflow": "tensors must be stored as tensor.numpy()",
    "jax": "jax arrays must be stored as np.asarray(array)",
}
"""What to do about a package's objects."""


_PythonUnpickler: Any = pickle._Unpickler
"""Python's own in Python, whose steps can be others; that in C reads all of a pickle into memory."""


class _ArrayUnpickler(_PythonUnpickler):
    """Leaves the contents of arrays where they are in the file: an array is a view of its map.

    The contents of an array are what Python's pickler writes last of its state, or first of what it is made of. In
    protocol 2 they are text, which stands for bytes as Latin-1 does; as those they are written into a second file.
    """

    dispatch = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: mmap.mmap, pages: Pages) -> None:
        super().__init__(file, encoding="bytes")  # Python 2's
        self._file_readline = self._line
        self._file, self._pages = file, pages
        self._spill: _Spill | None = None
        self._encoder = self._encode  # the one object that is on the stack, to be compared with

    def find_class(self, module: str, name: str) -> Any:
        if module == "__builtin__":  # Python 2's
            module = "builtins"
        if (module, name) not in _ALLOWED:
            packages = (package for package in _INSTEAD if f"{module}.".startswith(f"{package}."))
            instead = "".join(f" {_INSTEAD[package]};" for package in packages)
            raise DataError(
                f"the pickle names {module}.{name};{instead} only numpy arrays and plain containers are admitted, "
                "because a pickle can run any code that it names"
            )
        if (module, name) == ("_codecs", "encode"):
            return self._encoder
        return super().find_class(module, name)

    def load_frame(self) -> None:
        """Frames say how much to read at once, which a map need not know."""
        self.read(8)

    def load_binbytes(self) -> None:
        self.append(self._bytes(*struct.unpack("<I", self.read(4))))

    def load_binbytes8(self) -> None:
        self.append(self._bytes(*struct.unpack("<Q", self.read(8))))

    def load_binstring(self) -> None:
        self.append(self._bytes(*struct.unpack("<I", self.read(4))))

    def load_bytearray8(self) -> None:
        found = self._bytes(*struct.unpack("<Q", self.read(8)))
        self.append(bytearray(found) if isinstance(found, bytes) else found)

    def load_binunicode(self) -> None:
        (count,) = struct.unpack("<I", self.read(4))
        is_array = count >= _SMALL and len(self.stack) == 5 and self.stack[4] is self._encoder
        if is_array and self.metastack and isinstance(self.metastack[-1][-1], np.ndarray):
            self.append(self._view(count))
        else:
            self.append(str(self.read(count), "utf-8", "surrogatepass"))

    def load_binfloat(self) -> None:
        """All that follow each other: one at a time, features in lists would take several times as long as in C."""
        start = self._file.tell() - 1
        following = self._file[start : start + _FLOATS * _FLOAT_SIZE]
        signs = following[: len(following) // _FLOAT_SIZE * _FLOAT_SIZE : _FLOAT_SIZE]
        count = len(signs) - len(signs.lstrip(pickle.BINFLOAT))
        if not count:
            raise EOFError
        self.stack.extend(struct.unpack(">" + count * "xd", following[: count * _FLOAT_SIZE]))
        self._file.seek(start + count * _FLOAT_SIZE)

    def load_build(self) -> None:
        array, state = self.stack[-2:]
        if not (isinstance(array, np.ndarray) and isinstance(state, tuple) and isinstance(state[-1], memoryview)):
            super().load_build()
            return
        _, shape, dtype, is_fortran, contents = state
        mapped = np.frombuffer(contents, dtype).reshape(shape, order="F" if is_fortran else "C")
        self.stack[-2:] = [mapped]
        for key in reversed(self.memo):  # it was stored there, lately, before it was filled
            if self.memo[key] is array:
                self.memo[key] = mapped
                break

    def _bytes(self, count: int) -> bytes | memoryview:
        """What stands next; a view if it is what an array will be made of."""
        outer = self.metastack[-1][-1:] if self.metastack else []
        is_state = len(self.stack) == 4 and bool(outer) and isinstance(outer[0], np.ndarray)
        is_buffer = not self.stack and bool(outer) and getattr(outer[0], "__name__", "") == "_frombuffer"
        return self._view(count) if count >= _SMALL and (is_state or is_buffer) else self.read(count)

    def _line(self) -> bytes:
        line = self._file.readline()
        if not line.endswith(b"\n"):  # half a name would be one that is not admitted
            raise EOFError
        return line

    def _view(self, count: int) -> memoryview:
        start = self._file.tell()
        if start + count > len(self._file):
            raise EOFError
        self._file.seek(start + count)
        self._pages.touch(count)  # of what stands around it the kernel has mapped about as much
        return memoryview(self._file)[start : start + count]

    def _encode(self, text: str | memoryview, encoding: str, *more: Any) -> bytes | memoryview:
        if isinstance(text, str):
            return codecs.encode(text, encoding, *more)
        if encoding != "latin1":
            return codecs.encode(str(text, "utf-8", "surrogatepass"), encoding, *more)
        if self._spill is None:
            self._spill = _Spill(len(self._file), self._pages)
        return self._spill.add(text)

    dispatch[pickle.FRAME[0]] = load_frame
    dispatch[pickle.BINBYTES[0]] = load_binbytes
    dispatch[pickle.BINBYTES8[0]] = load_binbytes8
    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8
    dispatch[pickle.BINSTRING[0]] = load_binstring
    dispatch[pickle.BINUNICODE[0]] = load_binunicode
    dispatch[pickle.BINFLOAT[0]] = load_binfloat
    dispatch[pickle.BUILD[0]] = load_build


class _Spill:
    """A temporary file of bytes that stand as text in a pickle."""

    def __init__(self, size: int, pages: Pages) -> None:
        """Begin without any; what is added must be no more than `size`, which is what is mapped."""
        self._file, self._pages, self._end = pages.temporary(size), pages, 0
        self._left = size
        self._map = pages.map(self._file)

    def add(self, text: memoryview) -> memoryview:
        """The bytes of a text in UTF-8 whose characters stand for bytes."""
        self._left -= len(text)
        if self._left < 0:
            raise ValueError("it has the same contents for several arrays")
        start, decoder = self._end, codecs.getincrementaldecoder("utf-8")()
        for piece in self._pages.pieces(text):
            contents = decoder.decode(piece).encode("latin1")
            self._pages.write(self._file, contents)
            self._end += len(contents)
        return memoryview(self._map)[start : self._end]


def load_pickle(path: Path, pages: Pages) -> Any:
    """What a pickle holds, also one of Python 2 (whose ``str`` comes as bytes) or a compressed one.

    Args:
        path: The pickle.
        pages: Where it is mapped; its arrays are views of that, unless they are small.

    Raises:
        DataError: If it is no pickle or not a whole one, or names anything but numpy arrays and plain containers.
    """
    try:
        with open_pickle(path) as file, _unpacked(file, pages) as plain:
            return _ArrayUnpickler(pages.map(plain), pages).load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or first_line(error)}") from None
    except MemoryError:
        raise DataError(f"{path}: does not fit into memory, or it is damaged") from None
    except Exception as error:  # a torn or foreign file can raise nearly anything
        is_cut = isinstance(error, EOFError | struct.error) or "truncated" in str(error)
        why = "it ends too early" if is_cut else f"{type(error).__name__}: {first_line(error)}"
        raise DataError(f"{path}: not a whole pickle ({why}); fetch or write it again") from None


@contextlib.contextmanager
def _unpacked(file: BinaryIO, pages: Pages) -> Iterator[IO[bytes]]:
    """A file that can be mapped: itself, or if it is compressed a temporary one of what it holds."""
    if isinstance(file, io.BufferedReader):
        yield file
        return
    with pages.temporary() as plain:
        for piece in bar(iter(lambda: file.read(BLOCK), b""), "unpacking"):
            pages.write(plain, piece)
        yield plain
