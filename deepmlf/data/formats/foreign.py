"""Files that are no pickle: what they are, by their first bytes, and what to do with them."""

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path
from typing import BinaryIO, cast

from deepmlf.errors import DataError

_PICKLE_AGAIN = "and write it again with pickle.dump"
_UNPACK = "unpack it first"
_FETCH = "fetch it again"
_TABLE = "read it in Python, and write a pickle in the layout of MMSA"
_SIGNATURES = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself; fetch that with `git lfs pull`"),
    (b"/annex/objects/", "a git-annex pointer, not the file itself; fetch that with `git annex get`"),
    (b"\x89HDF\r\n\x1a\n", f"an HDF5 file; open it with h5py, {_TABLE.removeprefix('read it in Python, ')}"),
    (b"\x93NUMPY", f"a numpy array (.npy); np.load it {_PICKLE_AGAIN}, in the layout of MMSA"),
    # The number that torch.save began its files with before they were zip archives.
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", f"written by torch.save; torch.load it, .numpy() {_PICKLE_AGAIN}"),
    (b"MATLAB ", f"a MATLAB file; {_TABLE}"),
    (b"PAR1", "a Parquet file; give it a name that ends with .parquet"),
    (b"ARROW1", f"an Arrow file; {_TABLE}"),
    (b"SQLite format 3", f"an SQLite database; {_TABLE}"),
    (b"7z\xbc\xaf\x27\x1c", f"a 7z archive; {_UNPACK}"),
    (b"Rar!", f"a RAR archive; {_UNPACK}"),
    (b"\x28\xb5\x2f\xfd", f"compressed with zstd; {_UNPACK}"),
    (b"\x04\x22\x4d\x18", f"compressed with lz4, as joblib.dump may do; {_UNPACK}, or joblib.load it {_PICKLE_AGAIN}"),
    (b"%PDF", f"a PDF; {_FETCH}"),
)
_ZLIB = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda")
_PAGES = (b"<!doctype", b"<html", b"<head", b"<body", b"<script", b"<?xml")
_COMPRESSED = ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\x00", lzma.open))
_HEAD = 4096  # bytes


def open_pickle(path: Path) -> BinaryIO:
    """Open a file that may be a pickle, also one that gzip, bzip2 or xz compressed.

    Raises:
        DataError: If it is something else, with what it is.
        OSError: If it cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD)
    what = _what(path, head)
    if what:
        raise DataError(f"is {what}")
    opener = next((opener for magic, opener in _COMPRESSED if head.startswith(magic)), Path.open)
    return cast(BinaryIO, opener(path, "rb"))


def _what(path: Path, head: bytes) -> str | None:
    """What a file is that is no pickle, and what to do; None if it may be one."""
    if not head.strip(b"\0"):
        return f"full of NUL bytes: damaged; {_FETCH}" if head else f"empty: a download that never began; {_FETCH}"
    for magic, what in _SIGNATURES:
        if head.startswith(magic):
            return what
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(_PAGES):
        return "a web page, e.g. of a download that was refused; open it in a browser to see why, and fetch the file"
    if text.startswith((b"{", b"[")):
        return f"a JSON file; {_TABLE}"
    if head.startswith(_ZLIB):
        return f"compressed with zlib, as joblib.dump does; joblib.load it {_PICKLE_AGAIN}"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _what_zip(path)
    if head[257:262] == b"ustar":
        return f"a tar archive; {_UNPACK}"
    return None


def _what_zip(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except zipfile.BadZipFile:
        return f"a zip archive that is cut short; {_FETCH}"
    if any(name.endswith("data.pkl") for name in names):
        return f"written by torch.save; torch.load it, .numpy() {_PICKLE_AGAIN}"
    if any(name.endswith(".npy") for name in names):
        return f"a numpy archive (.npz); np.load it {_PICKLE_AGAIN}, in the layout of MMSA"
    return f"a zip archive; {_UNPACK}"
