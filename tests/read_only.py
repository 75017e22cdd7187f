"""A folder of somebody else's: it can be read, and not written."""

import contextlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def folder_for_all() -> Iterator[Path]:
    """An empty folder that others can pass through, which pytest's own are not; removed in the end."""
    with tempfile.TemporaryDirectory(prefix="deepmlf_test_") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in `folder`, which is one for all, can be written meanwhile; root, who could, is nobody for that time."""
    is_root = os.geteuid() == 0
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [folder, *folder.rglob("*")]}
    for path in modes:
        path.chmod(0o555 if path.is_dir() else 0o444)
    if is_root:
        os.seteuid(_NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
