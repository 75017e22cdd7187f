"""Files that are no pickle are named by their first bytes, with what to do; compressed pickles are read."""

import bz2
import gzip
import io
import json
import lzma
import pickle
import sqlite3
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from deepmlf.data.formats.unpickling import load_pickle
from deepmlf.data.paging import Pages
from deepmlf.errors import DataError


def torch_saved(path: Path, *, is_zip: bool) -> None:
    torch.save({"train": torch.zeros(2)}, path, _use_new_zipfile_serialization=is_zip)


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("MOSI.pkl", b"")


def in_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("MOSI.pkl"), io.BytesIO())


def database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("create table t (a)")
    connection.commit()
    connection.close()


def written(content: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(content)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (written(b""), "is empty: a download that never began; fetch it again"),
        (written(bytes(100)), "is full of NUL bytes: damaged; fetch it again"),
        (written(b"version https://git-lfs.github.com/spec/v1\n"), "is a Git LFS pointer, .* `git lfs pull`"),
        (written(b"/annex/objects/MD5E-s1--d\n"), "is a git-annex pointer, .* `git annex get`"),
        (
            written(b"\x89HDF\r\n\x1a\n" + bytes(64)),
            "is an HDF5 file; open it with h5py, and write a pickle in the layout",
        ),
        (written(b"\r\n  <HTML><body>Sign in</body></html>"), "is a web page, .*; open it in a browser"),
        (written(b'\xef\xbb\xbf<?xml version="1.0"?><Error/>'), "is a web page"),
        (written(json.dumps({"train": {}}).encode()), "is a JSON file; read it in Python, and write a pickle"),
        (written(b"MATLAB 5.0 MAT-file, "), "is a MATLAB file; read it in Python"),
        (written(b"\x28\xb5\x2f\xfd1234"), "is compressed with zstd; unpack it first"),
        (written(b"PK\x03\x04" + bytes(50)), "is a zip archive that is cut short; fetch it again"),
        (
            lambda path: torch_saved(path, is_zip=True),
            r"is written by torch\.save; torch\.load it, \.numpy\(\) and write",
        ),
        (lambda path: torch_saved(path, is_zip=False), r"is written by torch\.save; torch\.load it"),
        (lambda path: np.savez(path.open("wb"), a=np.ones(2)), r"is a numpy archive \(\.npz\); np\.load it"),
        (lambda path: np.save(path.open("wb"), np.ones(2)), r"is a numpy array \(\.npy\); np\.load it"),
        (
            lambda path: pq.write_table(pa.table({"a": [1]}), path),
            "is a Parquet file; give it a name that ends",
        ),
        (zipped, "is a zip archive; unpack it first"),
        (in_tar, "is a tar archive; unpack it first"),
        (database, "is an SQLite database; read it in Python"),
        (written(b"video_id,clip_id,text\n03bSnISJMiM,1,so\n"), "not a whole pickle .*; fetch or write it again"),
    ],
)
def test_a_foreign_file_is_named(tmp_path: Path, write: Callable[[Path], object], message: str) -> None:
    path = tmp_path / "MOSI.pkl"
    write(path)
    with pytest.raises(DataError, match=message) as caught:
        load_pickle(path, Pages(path.parent))
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lzma.compress])
def test_a_compressed_pickle_is_read(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    path = tmp_path / "MOSI.pkl.gz"
    content = {"a": np.random.default_rng(0).normal(size=500)}
    path.write_bytes(compress(pickle.dumps(content)))
    np.testing.assert_array_equal(load_pickle(path, Pages(path.parent))["a"], content["a"])
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"not a whole pickle \(it ends too early\); fetch or write it again"):
        load_pickle(path, Pages(path.parent))


def test_a_folder_and_nothing_are_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no.pkl: No such file or directory"):
        load_pickle(tmp_path / "no.pkl", Pages(tmp_path))
    with pytest.raises(DataError, match="Is a directory"):
        load_pickle(tmp_path, Pages(tmp_path))
