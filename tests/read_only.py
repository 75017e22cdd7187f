"""A folder of somebody else's: it can be read, and not written."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534
_PASSABLE = 0o055


@contextlib.contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing in `folder` can be written meanwhile; root, who could, is nobody for that time."""
    is_root = os.geteuid() == 0
    own = [folder, *folder.rglob("*")]
    closed = [path for path in folder.parents if is_root and path.stat().st_mode & _PASSABLE != _PASSABLE]
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in [*own, *closed]}
    try:
        for path in own:
            path.chmod(0o555 if path.is_dir() else 0o444)
        for path in closed:  # pytest's own folder
            path.chmod(modes[path] | _PASSABLE)
        if is_root:
            os.seteuid(_NOBODY)
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)
