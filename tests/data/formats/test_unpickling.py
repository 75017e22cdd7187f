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
