"""Numpy arrays and plain containers of any Python are read; whatever else a pickle names is refused, with advice."""

import collections
import operator
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from deepmlf.data.formats.unpickling import load_pickle
from deepmlf.data.paging import Pages
from deepmlf.errors import DataError


def read(tmp_path: Path, content: Any, protocol: int = 4) -> Any:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    return load_pickle(path, Pages(path.parent))


class Python2Pickler(pickle._Pickler):  # type: ignore[name-defined]
    """Writes str and bytes as Python 2 writes its ``str``."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def save_string(self, value: str | bytes) -> None:
        content = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_containers_and_arrays_are_read(tmp_path: Path, protocol: int) -> None:
    content = collections.OrderedDict(
        default=collections.defaultdict(list, a=[1]),
        set={1},
        frozen=frozenset({2}),
        bytes=b"a\xff",
        array=bytearray(b"b"),
    )
    assert read(tmp_path, content, protocol) == content
    arrays = [np.arange(6.0).reshape(2, 3), np.array(["a", None], object), np.array([b"x"]), np.array(["\u6211"])]
    found = read(tmp_path, [*arrays, np.float32(2), np.str_("a")], protocol)
    for array, other in zip(arrays, found, strict=False):
        np.testing.assert_array_equal(array, other)
    assert found[4:] == [2, "a"]


@pytest.mark.parametrize("protocol", [1, 2])
def test_a_pickle_of_python_2_is_read(tmp_path: Path, protocol: int) -> None:
    values = np.random.default_rng(0).normal(size=(3, 4)).astype(">f4")
    with (tmp_path / "data.pkl").open("wb") as file:
        Python2Pickler(file, protocol).dump(
            {"audio": values, "text": "caf\u00e9", "rows": np.array([b"a"]), "set": {1}}
        )
    found = load_pickle(tmp_path / "data.pkl", Pages(tmp_path))
    assert set(found) == {b"audio", b"text", b"rows", b"set"}
    np.testing.assert_array_equal(found[b"audio"], values)
    assert (found[b"text"].decode(), found[b"rows"].tolist(), found[b"set"]) == ("caf\u00e9", [b"a"], {1})


LARGE = np.random.default_rng(1).normal(size=(5, 40, 7))


def large_arrays() -> dict[str, np.ndarray]:
    structured = np.zeros(200, [("a", "<f4"), ("b", "S3")])
    structured["a"] = np.arange(200)
    return {
        "float64": LARGE,
        "float32": LARGE.astype(np.float32),
        "big end first": LARGE.astype(">f8"),
        "Fortran": np.asfortranarray(LARGE),
        "two axes": LARGE[0].repeat(3, 0),
        "whole": np.arange(900).reshape(30, 30),
        "texts": np.array([f"text {row}" for row in range(100)]),
        "structured": structured,
    }


def lies_in_a_map(array: np.ndarray) -> bool:
    """Whether an array is a view of memory that no array holds."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return isinstance(base, memoryview)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_large_arrays_are_what_they_were_and_lie_in_the_file(tmp_path: Path, protocol: int) -> None:
    given = large_arrays()
    listed = np.empty(2, object)
    listed[:] = [given["float32"], given["two axes"]]
    found = read(tmp_path, {**given, "again": given["float64"], "listed": listed}, protocol)
    assert found["again"] is found["float64"]
    for name, array in given.items():
        assert found[name].dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
        np.testing.assert_array_equal(found[name], array)
        assert lies_in_a_map(found[name]) == (protocol >= 2), name
    assert found["Fortran"].flags.f_contiguous
    for array, other in zip(listed, found["listed"], strict=True):
        np.testing.assert_array_equal(other, array)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_what_is_large_and_no_array_is_read_as_it_is(tmp_path: Path, protocol: int) -> None:
    content = ["\u00e9" * 5000, b"\xff" * 5000, bytearray(b"\xfe" * 5000), [float(n) / 7 for n in range(3000)], 0.5]
    found = read(tmp_path, content, protocol)
    assert found == content
    assert [type(value) for value in found] == [str, bytes, bytearray, list, float]


@pytest.mark.parametrize("protocol", [1, 2])
def test_large_arrays_of_python_2_are_read(tmp_path: Path, protocol: int) -> None:
    with (tmp_path / "data.pkl").open("wb") as file:
        Python2Pickler(file, protocol).dump({"audio": LARGE, "again": [LARGE], "text": "a" * 3000})
    found = load_pickle(tmp_path / "data.pkl", Pages(tmp_path))
    np.testing.assert_array_equal(found[b"audio"], LARGE)
    assert found[b"again"][0] is found[b"audio"]
    assert found[b"text"] == b"a" * 3000
    assert lies_in_a_map(found[b"audio"])


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickle_is_cut_wherever_it_is(tmp_path: Path, protocol: int) -> None:
    whole = pickle.dumps({"audio": LARGE, "rows": [1.5] * 9, "text": "caf\u00e9"}, protocol)
    path = tmp_path / "data.pkl"
    for end in [*range(1, 200), *range(200, len(whole) - 200, 997), *range(len(whole) - 200, len(whole))]:
        path.write_bytes(whole[:end])
        with pytest.raises(DataError, match=r"data\.pkl: not a whole pickle \("):
            load_pickle(path, Pages(tmp_path))


class Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.reduced = call, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (Evil(os.system, "true"), r"names (posix|nt)\.system; only numpy arrays and plain containers are admitted"),
        (Evil(eval, "1"), r"names (__builtin__|builtins)\.eval; only"),
        (Evil(getattr, "a", "join"), r"names (__builtin__|builtins)\.getattr; only"),
        (Evil(operator.attrgetter, "a"), r"names operator\.attrgetter; only"),
        (collections.defaultdict(os.getcwd), r"names posix\.getcwd; only"),
        (
            torch.zeros(2),
            r"names torch\._utils\._rebuild_tensor_v2; torch tensors must be stored as tensor\.numpy\(\); only",
        ),
        (
            np.ma.masked_array([1.0], [True]),
            r"names numpy\.ma\.core\._mareconstruct; masked arrays .*\.filled\(0\); only",
        ),
    ],
)
@pytest.mark.parametrize("protocol", [2, 4])
def test_what_is_named_otherwise_is_refused(tmp_path: Path, content: Any, message: str, protocol: int) -> None:
    with pytest.raises(DataError, match=f"data.pkl: the pickle {message}"):
        read(tmp_path, {"train": content}, protocol)


def test_a_pickle_that_claims_more_than_memory_is_told(tmp_path: Path) -> None:
    path = tmp_path / "data.pkl"
    path.write_bytes(pickle.PROTO + b"\x04" + pickle.BINBYTES8 + struct.pack("<Q", 2**62))
    with pytest.raises(DataError, match=r"data\.pkl: (does not fit into memory|not a whole pickle)"):
        load_pickle(path, Pages(path.parent))
