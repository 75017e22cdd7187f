"""Experiments on remote storage: every node works in a copy of its own, and what others need goes up.

An experiment on a local path, a shared file system included, is used in place and nothing here runs. One on ``s3://``,
``gs://`` or any other file system that pyarrow knows has a copy in the home folder of each node. The driver sends up
what it writes (manifest, study, metrics, events), a worker what it writes (configuration, checkpoints, best weights);
no file has two writers.
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from pyarrow.fs import FileSelector, FileSystem, FileType
from tenacity import retry, retry_if_exception, stop_after_delay, wait_exponential

from deepmlf.errors import SearchError
from deepmlf.model.lm_store import home
from deepmlf.training.checkpoint import latest_checkpoint

AV_STORE = "av_encoders"
MANIFEST = "search.json"
STALL_SECONDS = 180
"""How long storage may refuse or stall before that counts as lost."""
_PERMANENT = re.compile(
    r"ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH|NETWORK_CONNECTION.*resolve", re.I
)

_OF_WORKERS = {"checkpoints", "best", AV_STORE}
_GROWS = re.compile(r"optuna\.journal|metrics\.jsonl|events\.out\.tfevents.*")
_COMPLETE = re.compile(r"checkpoints/epoch_\d{6}/state\.json")


def is_remote(place: str | Path) -> bool:
    """Whether a place is a URI of another file system than this machine's."""
    return "://" in str(place)


def join(uri: str, *names: str) -> str:
    """A place below a URI; options after a ``?`` stay at its end."""
    parts = urlsplit(uri)
    return parts._replace(path="/".join([parts.path.rstrip("/"), *names])).geturl()


def check_uri(uri: str) -> None:
    """Refuse a URI that holds credentials, which would be written down with it.

    Raises:
        SearchError: If it does.
    """
    parts = urlsplit(uri)
    if parts.password or parts.username or re.search(r"(secret|access)_key|token|password", parts.query, re.I):
        shown = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
        raise SearchError(
            f"--storage {shown}: holds credentials; give them by the environment, e.g. AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or by the machine's role"
        )


def local_copy(uri: str) -> Path:
    """Where this machine keeps its copy of a remote folder."""
    parts = urlsplit(uri)
    key = hashlib.sha256(f"{parts.scheme}://{parts.netloc}{parts.path}".encode()).hexdigest()[:16]
    return home() / "remote" / key / PurePosixPath(parts.path).name


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
        SearchError: If the URI is none that pyarrow knows.
    """

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self._files, self._root = FileSystem.from_uri(uri)
        except (ValueError, OSError, NotImplementedError) as error:
            raise SearchError(f"{uri}: no file system that can be used ({_line(error)})") from None

    def child(self, *names: str) -> "RemoteFolder":
        """A folder inside this one."""
        return RemoteFolder(join(self.uri, *names))

    def check_writable(self) -> None:
        """Write a file and delete it again, once.

        Raises:
            SearchError: If that fails.
        """
        probe = f"{self._root}/.writable-{os.getpid()}"
        try:
            self._files.create_dir(self._root)
            with self._files.open_output_stream(probe) as stream:
                stream.write(b"")
            self._files.delete_file(probe)
        except OSError as error:
            raise SearchError(f"--storage {self.uri}: cannot be written ({_line(error)})") from None

    @_persistent
    def sizes(self) -> dict[str, int]:
        """Bytes of every file by its path in the folder; empty if there is no such folder."""
        selector = FileSelector(self._root, recursive=True, allow_not_found=True)
        infos = self._files.get_file_info(selector)
        return {
            str(PurePosixPath(info.path).relative_to(self._root)): info.size
            for info in infos
            if info.type == FileType.File
        }

    @_persistent
    def upload(self, source: Path, name: str) -> None:
        """Copy a local file to `name`; it is there whole or not at all."""
        content = source.read_bytes()
        target = f"{self._root}/{name}"
        self._files.create_dir(str(PurePosixPath(target).parent))
        with self._files.open_output_stream(target) as stream:
            stream.write(content)

    @_persistent
    def download(self, name: str, target: Path) -> None:
        """Copy the file at `name` to a local one, which appears whole."""
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        with self._files.open_input_stream(f"{self._root}/{name}") as stream:
            temporary.write_bytes(stream.read())
        temporary.rename(target)

    @_persistent
    def delete(self, name: str) -> None:
        """Delete a folder inside this one, if it is there."""
        path = f"{self._root}/{name}"
        if self._files.get_file_info(path).type == FileType.Directory:
            self._files.delete_dir(path)


def pull(remote: RemoteFolder, local: Path) -> None:
    """Bring this machine's copy of an experiment up to date; checkpoints and weights stay where they are.

    Files that only grow (journal, metrics, events) are taken where the remote one is longer: what this machine wrote
    and could not send up any more stays.
    """
    for name, size in remote.sizes().items():
        path, target = PurePosixPath(name), local / name
        if not _OF_WORKERS.isdisjoint(path.parts[:-1]):
            continue
        if not (_GROWS.match(path.name) and target.is_file() and target.stat().st_size >= size):
            remote.download(name, target)


def open_experiment(place: str | Path) -> Path:
    """The folder of an experiment on this machine: a path as it is, a URI as an up to date copy.

    Raises:
        SearchError: If the file system cannot be used or reached.
    """
    if not is_remote(place):
        return Path(place).absolute()
    local, remote = local_copy(str(place)), RemoteFolder(str(place))
    try:
        _forget_another(local, remote)
        pull(remote, local)
    except OSError as error:
        raise SearchError(f"{place}: cannot be read ({_line(error)})") from None
    return local


def _forget_another(local: Path, remote: RemoteFolder) -> None:
    """Remove a copy that is of an earlier experiment at the same place."""
    manifest = local / MANIFEST
    if manifest.is_file() and MANIFEST in remote.sizes():
        before = manifest.read_text()
        remote.download(MANIFEST, manifest)
        if json.loads(before)["id"] != json.loads(manifest.read_text())["id"]:
            shutil.rmtree(local)


def open_trial(place: str | Path) -> Path:
    """The folder of a trial on this machine, with its configuration and best weights.

    Raises:
        SearchError: If the file system cannot be used or reached.
    """
    if not is_remote(place):
        return Path(place)
    local, remote = local_copy(str(place)), RemoteFolder(str(place))
    try:
        for name in remote.sizes():
            if name == "config.json" or name.startswith("best/"):
                remote.download(name, local / name)
    except OSError as error:
        raise SearchError(f"{place}: cannot be read ({_line(error)})") from None
    return local


class Uploader:
    """Sends up what the driver changes in its copy, in a thread, as long as it is open.

    Args:
        local: The driver's copy.
        remote: Where it goes.
        every: Seconds between looks.
    """

    def __init__(self, local: Path, remote: RemoteFolder, every: float = 10.0) -> None:
        self._local, self._remote, self._every = local, remote, every
        self._sent: dict[Path, tuple[int, int]] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Uploader":
        self.push()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()
        self.push()

    def push(self) -> None:
        """Send every file that has changed.

        Raises:
            SearchError: If storage does not take it for as long as it may stall.
        """
        for path in sorted(self._local.rglob("*")):
            name = path.relative_to(self._local)
            if not path.is_file() or not self._is_driven(name):
                continue
            facts = path.stat()
            state = facts.st_size, facts.st_mtime_ns
            if self._sent.get(path) == state:
                continue
            try:
                self._remote.upload(path, name.as_posix())
            except OSError as error:
                raise SearchError(
                    f"{self._remote.uri}: cannot be written ({_line(error)}); all of it is in {self._local}: "
                    f"`deepmlf resume {self._remote.uri}` goes on from there"
                ) from error
            self._sent[path] = state

    @staticmethod
    def _is_driven(name: Path) -> bool:
        """Whether the driver writes a file: no lock, nothing half written, nothing of a worker or of Ray's logs."""
        if any(part.startswith(".") or part in _OF_WORKERS for part in name.parts) or name.suffix == ".lock":
            return False
        return name.parts[0] != "ray" or name.name.startswith("experiment_state")

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            with contextlib.suppress(SearchError):  # the last push says so if it lasts
                self.push()


class TrialCopy:
    """A worker's copy of a trial's folder, for as long as the trial runs there.

    Args:
        experiment: URI of the experiment.
        identity: Tells the experiment from any other that was at the same place.
        name: Of the trial's folder.
    """

    def __init__(self, experiment: str, identity: str, name: str) -> None:
        root = home() / "trials" / identity
        self.folder = root / name
        self.av_store = root / AV_STORE
        self._remote = RemoteFolder(join(experiment, "trials", name))
        self._remote_av = RemoteFolder(join(experiment, AV_STORE))
        self._best: str | None = None

    def fetch(self) -> None:
        """Take what another node has got further with: the newest checkpoint, best weights; and encoders to share."""
        for name in self._remote_av.sizes():
            if not (self.av_store / name).is_file():
                self._remote_av.download(name, self.av_store / name)
        names = self._remote.sizes()
        remote = max((name.split("/")[1] for name in names if _COMPLETE.fullmatch(name)), default=None)
        own = latest_checkpoint(self.folder)
        if remote is None or (own is not None and own.name >= remote):
            return
        for name in sorted(names, key=lambda name: name.endswith("state.json")):  # what makes it complete comes last
            if name.startswith((f"checkpoints/{remote}/", "best/")):
                self._remote.download(name, self.folder / name)

    def send(self, name: str) -> None:
        """Send up one file, if it is there."""
        if (self.folder / name).is_file():
            self._remote.upload(self.folder / name, name)

    def save(self, checkpoint: Path) -> None:
        """Send up a checkpoint, the best weights if they are new, and shared encoders; drop checkpoints gone here."""
        for entry in self.av_store.glob("*/*"):
            name = entry.relative_to(self.av_store).as_posix()
            if not entry.parent.name.startswith(".") and name not in self._remote_av.sizes():
                self._remote_av.upload(entry, name)
        best = self.folder / "best" / "state.json"
        if best.is_file() and best.read_text() != self._best:
            self._send_folder(best.parent)
            self._best = best.read_text()
        self._send_folder(checkpoint)
        kept = {path.name for path in checkpoint.parent.iterdir()}
        for old in {name.split("/")[1] for name in self._remote.sizes() if name.startswith("checkpoints/")} - kept:
            self._remote.delete(f"checkpoints/{old}")

    def _send_folder(self, folder: Path) -> None:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == "state.json"):
            self._remote.upload(path, path.relative_to(self.folder).as_posix())

    def close(self) -> None:
        """Free this node's disk: all of it is remote by now."""
        shutil.rmtree(self.folder, ignore_errors=True)


def _line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
