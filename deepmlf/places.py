"""Folders on this machine or behind a URI, and this machine's copies of the latter."""

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from filelock import FileLock
from pyarrow.fs import FileSelector, FileSystem, FileType
from tenacity import retry, retry_if_exception, stop_after_delay, wait_exponential

from deepmlf.errors import DataError, first_line
from deepmlf.files import new_file
from deepmlf.locks import locked

STALL_SECONDS = 180
"""How long storage may refuse or stall before that counts as lost."""
_PERMANENT = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NETWORK_CONNECTION.*resolve", re.I
)

_CREDENTIAL = re.compile(r"key|secret|token|password|sig(nature)?=", re.I)
_NAMED_BY_USER = ("abfs", "abfss", "hdfs")  # a container or a user stands before the @, no secret
_VERSIONS = ".versions.json"


def home() -> Path:
    """The folder of downloaded and generated material: ``DEEPMLF_HOME``, or ``~/.cache/deepmlf``."""
    return Path(os.environ.get("DEEPMLF_HOME") or "~/.cache/deepmlf").expanduser()


@dataclass(frozen=True)
class Place:
    """A folder here or behind a URI; who works with one need not ask which.

    >>> str(Place.of("s3://bucket/runs?region=x") / "trials" / "0001_first")
    's3://bucket/runs/trials/0001_first?region=x'

    Build one with :meth:`of`.
    """

    name: str
    """What users call it, in a form that holds in any folder: a URI as it is, a path whole."""

    @classmethod
    def of(cls, name: "str | Path | Place") -> "Place":
        """The place that a user's path or URI names; it need not exist."""
        if isinstance(name, Place):
            return name
        return cls(str(name) if "://" in str(name) else str(Path(name).absolute()))

    def __str__(self) -> str:
        return self.name

    def __truediv__(self, child: str) -> "Place":
        if not self.is_remote:
            return Place(str(Path(self.name) / child))
        parts = urlsplit(self.name)  # options after a ``?`` stay at its end
        return Place(parts._replace(path=f"{parts.path.rstrip('/')}/{child}").geturl())

    @property
    def is_remote(self) -> bool:
        """Whether it is on another file system than this machine's."""
        return "://" in self.name

    @cached_property
    def remote(self) -> "RemoteFolder | None":
        """The folder behind the URI; None for one on this machine.

        Raises:
            DataError: If the URI is none that pyarrow knows, or holds credentials.
        """
        return RemoteFolder(self.name) if self.is_remote else None

    @property
    def folder(self) -> Path:
        """Its folder on this machine: itself, or where this machine keeps its copy of what is behind the URI."""
        if not self.is_remote:
            return Path(self.name)
        parts = urlsplit(self.name)
        path = PurePosixPath(parts.path)  # drops a slash at the end
        key = hashlib.sha256(f"{parts.scheme}://{parts.netloc}{path}".encode()).hexdigest()[:16]
        return home() / "remote" / key / path.name

    def fetched(self) -> Path:
        """Its folder on this machine with all that is in it: what is behind a URI is copied there whole, once.

        Processes that ask at the same time fetch once. What has changed under the same URI is fetched anew.

        Raises:
            DataError: If there is nothing behind the URI, or it cannot be read.
        """
        if self.remote is not None:
            _fetch(self.remote, self.folder)
        return self.folder

    def publish(self, name: str) -> str:
        """Bring a file that was written into its folder on this machine to where the place is.

        Args:
            name: The file's path in the folder.

        Returns:
            The file's whole path or URI.
        """
        if self.remote is not None:
            self.remote.upload((self.folder / name).read_bytes(), name)
        return str(self / name)


def check_uri(uri: str) -> None:
    """Refuse a URI that holds credentials, which would be written down with it.

    Raises:
        DataError: If it does; its text does not.
    """
    parts = urlsplit(uri)
    is_secret = bool(parts.username) and parts.scheme not in _NAMED_BY_USER
    if parts.password or is_secret or _CREDENTIAL.search(parts.query):
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        raise DataError(
            f"{shown}: holds credentials; give them by the environment, e.g. AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or by the machine's role"
        )


def _may_pass(error: BaseException) -> bool:
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError) and not _PERMANENT.search(str(error))


_persistent = retry(
    retry=retry_if_exception(_may_pass),
    wait=wait_exponential(multiplier=0.5, max=10),
    stop=stop_after_delay(STALL_SECONDS),
    reraise=True,
)


class RemoteFolder:
    """A folder on another file system. What fails is tried again for as long as storage may stall.

    Args:
        uri: Of the folder, which need not exist.

    Raises:
        DataError: If the URI is none that pyarrow knows, or holds credentials.
    """

    def __init__(self, uri: str) -> None:
        check_uri(uri)
        self.uri = uri
        try:
            self._files, self._root = FileSystem.from_uri(uri)
        # In this order: an unknown scheme or option; a library or a bucket's region that is not found; a file system
        # that this build of Arrow was made without.
        except (ValueError, OSError, NotImplementedError) as error:
            raise DataError(f"{uri}: no file system that can be used ({first_line(error)})") from None

    @_persistent
    def versions(self) -> dict[str, list[int]]:
        """Bytes and time of change (ns) of every file by its path in the folder; empty if there is no such folder."""
        infos = self._files.get_file_info(FileSelector(self._root, recursive=True, allow_not_found=True))
        found = {
            str(PurePosixPath(info.path).relative_to(self._root)): [info.size, info.mtime_ns or 0]
            for info in infos
            if info.type == FileType.File
        }
        return dict(sorted(found.items()))

    def sizes(self) -> dict[str, int]:
        """Bytes of every file by its path in the folder; empty if there is no such folder."""
        return {name: size for name, (size, _) in self.versions().items()}

    @_persistent
    def upload(self, content: bytes, name: str) -> None:
        """Write a file; it is there whole or not at all."""
        self.put(content, name)

    def put(self, content: bytes, name: str) -> None:
        """The same without a second try.

        Raises:
            OSError: If that fails.
        """
        target = f"{self._root}/{name}"
        self._files.create_dir(str(PurePosixPath(target).parent))
        with self._files.open_output_stream(target) as stream:
            stream.write(content)

    @_persistent
    def download(self, name: str, target: Path) -> None:
        """Copy the file at `name` to a local one, which appears whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._files.open_input_stream(f"{self._root}/{name}") as stream, new_file(target) as temporary:
            temporary.write_bytes(stream.read())

    @_persistent
    def extend(self, name: str, target: Path) -> None:
        """Add to a local file what the one at `name` has grown by; who has it open reads on."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._files.open_input_file(f"{self._root}/{name}") as stream, target.open("ab") as file:
            stream.seek(file.tell())
            file.write(stream.read())

    def check_writable(self) -> None:
        """Write a file and delete it again, without a second try.

        Raises:
            OSError: If that fails.
        """
        probe = f"{self._root}/.writable-{os.getpid()}"
        self._files.create_dir(self._root)
        with self._files.open_output_stream(probe) as stream:
            stream.write(b"")
        self._files.delete_file(probe)

    @_persistent
    def read(self, name: str) -> bytes | None:
        """The content of a small file; None if there is none."""
        try:
            with self._files.open_input_stream(f"{self._root}/{name}") as stream:
                return bytes(stream.read())
        except FileNotFoundError:
            return None

    @_persistent
    def delete(self, name: str) -> None:
        """Delete a file or a folder inside this one, if it is there."""
        path = f"{self._root}/{name}"
        kind = self._files.get_file_info(path).type
        if kind == FileType.Directory:
            self._files.delete_dir(path)
        elif kind == FileType.File:
            self._files.delete_file(path)


def _fetch(remote: RemoteFolder, local: Path) -> None:
    versions: dict[str, list[int]] = {}

    def is_current(folder: Path) -> bool:
        versions.update(remote.versions())
        if not versions:
            raise DataError(f"{remote.uri}: no such folder, or nothing in it")
        noted = folder / _VERSIONS
        return noted.is_file() and noted.read_text() == json.dumps(versions)

    def fill(folder: Path) -> None:
        for name in versions:
            remote.download(name, folder / name)
        (folder / _VERSIONS).write_text(json.dumps(versions))

    try:
        keep_copy(local, is_current, fill)
    except OSError as error:
        raise DataError(f"{remote.uri}: cannot be fetched ({first_line(error)})") from None


def keep_copy(local: Path, is_current: Callable[[Path], bool], fill: Callable[[Path], None]) -> None:
    """Make a folder what it is to be a copy of, whole or not at all; of processes that ask at once, one does it.

    Args:
        local: The copy.
        is_current: Whether a folder, which need not exist, is what it should be.
        fill: Brings the content into an empty folder.
    """
    with alone_with_copy(local):
        if is_current(local):
            return
        unfinished = local.with_name(f".{local.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)  # of a process that died
        unfinished.mkdir()
        fill(unfinished)
        shutil.rmtree(local, ignore_errors=True)
        unfinished.rename(local)


@contextlib.contextmanager
def alone_with_copy(local: Path) -> Iterator[None]:
    """Be the only process that brings a copy, which need not exist, up to date; others wait."""
    local.parent.mkdir(parents=True, exist_ok=True)
    with locked(FileLock(local.with_name(f".{local.name}.lock")), f"another process that fetches {local.name}"):
        yield
