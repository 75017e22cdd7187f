"""Experiments on remote storage: every node works in a copy of its own, and what others need goes up.

An experiment on a local path, a shared file system included, is used in place and nothing here runs. One on ``s3://``,
``gs://`` or any other file system that pyarrow knows has a copy in the home folder of each node. The driver sends up
what it writes (manifest, study, metrics, events), a worker what it writes (configuration, checkpoints, best weights);
no file has two writers.
"""

import contextlib
import functools
import json
import re
import shutil
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ParamSpec, TypeVar

from deepmlf.config import TrialConfig
from deepmlf.errors import DataError, SearchError, StorageError
from deepmlf.places import RemoteFolder, first_line, home, is_remote, join, local_copy
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.tune.experiment.lease import LEASE, Lease

AV_STORE = "av_encoders"
MANIFEST = "search.json"
JOURNAL = "optuna.journal"
REPORT = "report"
REPORTED = "reported.jsonl"
"""What workers have reported of a trial, as a driver that dies takes with it what it has not sent up yet."""
_OF_WORKERS = {"checkpoints", "best", AV_STORE, REPORTED}
_GROWS = re.compile(r"optuna\.journal|metrics\.jsonl|events\.out\.tfevents.*")
_COMPLETE = re.compile(r"checkpoints/epoch_\d{6}/state\.json")


def check_writable(place: str) -> None:
    """Refuse storage that cannot be written, or whose URI holds credentials.

    Raises:
        SearchError: With what the file system says.
    """
    try:
        RemoteFolder(place).check_writable()
    except DataError as error:
        raise SearchError(f"--storage {error}") from None
    except OSError as error:
        raise SearchError(f"--storage {place}: cannot be written ({first_line(error)})") from None


def pull(remote: RemoteFolder, local: Path) -> None:
    """Bring this machine's copy of an experiment up to date; checkpoints, weights and the report stay where they are.

    Files that only grow (journal, metrics, events) are taken where the remote one is longer: what this machine wrote
    and could not send up any more stays.
    """
    for name, size in remote.sizes().items():
        path, target = PurePosixPath(name), local / name
        if not _OF_WORKERS.isdisjoint(path.parts) or path.parts[0] in (REPORT, LEASE):
            continue
        if not (_GROWS.match(path.name) and target.is_file() and target.stat().st_size >= size):
            remote.download(name, target)


def refresh_events(remote: RemoteFolder, local: Path) -> None:
    """Let this machine's TensorBoard events grow as the remote ones do; TensorBoard keeps them open."""
    for name, size in remote.sizes().items():
        target = local / name
        if ".tfevents." in name and not (target.is_file() and target.stat().st_size >= size):
            remote.extend(name, target)


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
        raise SearchError(f"{place}: cannot be read ({first_line(error)})") from None
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
    """The folder of a trial or an exported model on this machine, with what it takes to predict.

    Raises:
        SearchError: If the file system cannot be used or reached.
    """
    if not is_remote(place):
        return Path(place)
    local, remote = local_copy(str(place)), RemoteFolder(str(place))
    try:
        for name in remote.sizes():
            if name.startswith("best/") or ("/" not in name and not _GROWS.fullmatch(name)):
                remote.download(name, local / name)
    except OSError as error:
        raise SearchError(f"{place}: cannot be read ({first_line(error)})") from None
    return local


def _rank(path: Path) -> bool:
    return path.name != JOURNAL


class Uploader:
    """Sends up what the driver changes in its copy, in a thread, as long as it is open.

    Args:
        local: The driver's copy.
        remote: Where it goes.
        lease: Once it is lost, nothing is sent any more.
        every: Seconds between looks.
    """

    def __init__(self, local: Path, remote: RemoteFolder, lease: Lease, every: float = 10.0) -> None:
        self._local, self._remote, self._lease, self._every = local, remote, lease, every
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
        if self._lease.lost:
            return
        paths = sorted(path for path in self._local.rglob("*") if self._is_driven(path.relative_to(self._local)))
        changed: dict[Path, tuple[int, int]] = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError):  # Ray removes its older records
                facts = path.stat()
                state = facts.st_size, facts.st_mtime_ns
                if stat.S_ISREG(facts.st_mode) and self._sent.get(path) != state:
                    changed[path] = state
        # The study must not know more than the trials' files do, nor Ray's records more than the study, wherever this
        # is cut short: they are read before and sent after what they must not be ahead of.
        last = sorted((path for path in changed if path.parent.name == "ray" or path.name == JOURNAL), key=_rank)
        try:
            contents = {path: path.read_bytes() for path in reversed(last)}
            for path in [*(path for path in changed if path not in contents), *last]:
                content = contents[path] if path in contents else path.read_bytes()
                self._remote.upload(content, path.relative_to(self._local).as_posix())
                self._sent[path] = changed[path]
        except OSError as error:
            raise SearchError(
                f"{self._remote.uri}: cannot be written ({first_line(error)}); all of it is in {self._local}: "
                f"`deepmlf resume {self._remote.uri}` goes on from there"
            ) from error

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


P = ParamSpec("P")
R = TypeVar("R")


def _reaches_storage(method: Callable[P, R]) -> Callable[P, R]:
    @functools.wraps(method)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            raise StorageError(f"the storage does not answer ({first_line(error)})") from error

    return told


class TrialCopy:
    """A worker's copy of a trial's folder, for as long as the trial runs there.

    Args:
        experiment: URI of the experiment.
        identity: Tells the experiment from any other that was at the same place.
        name: Of the trial's folder.

    All methods raise :class:`StorageError` if storage does not answer for as long as it may stall.
    """

    def __init__(self, experiment: str, identity: str, name: str) -> None:
        root = home() / "trials" / identity
        self.folder = root / name
        self.av_store = root / AV_STORE
        self._trials = RemoteFolder(join(experiment, "trials"))
        self._remote = RemoteFolder(join(experiment, "trials", name))
        self._remote_av = RemoteFolder(join(experiment, AV_STORE))
        self._best: str | None = None
        self._shared_av: set[str] = set()

    @_reaches_storage
    def fetch(self, config: TrialConfig) -> list[dict[str, Any]]:
        """Take what another node has got further with: the newest checkpoint, best weights; and encoders to share.

        Args:
            config: Of the trial. What a dead driver's workers have left under the same number of another one, or of
                one that storage does not know any more, is removed.

        Returns:
            The metrics of the epochs that were reported already, in their order.
        """
        self._shared_av = set(self._remote_av.sizes())
        for name in self._shared_av:
            if not (self.av_store / name).is_file():
                self._remote_av.download(name, self.av_store / name)
        names = self._remote.sizes()
        if "config.json" not in names or not self._is_of(config):
            self._trials.delete(self.folder.name)
            self.close()
            names = {}
        (self.folder / REPORTED).unlink(missing_ok=True)  # a kill may have torn it
        if REPORTED in names:
            self._remote.download(REPORTED, self.folder / REPORTED)
        newest = max((name.split("/")[1] for name in names if _COMPLETE.fullmatch(name)), default=None)
        own = latest_checkpoint(self.folder)
        if newest is not None and (own is None or own.name < newest):
            for name in sorted(names, key=lambda name: name.endswith("state.json")):  # it makes a checkpoint complete
                if name.startswith((f"checkpoints/{newest}/", "best/")):
                    self._remote.download(name, self.folder / name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "config.json").write_text(config.to_json())
        self.send("config.json")
        reported = self.folder / REPORTED
        return [json.loads(line) for line in reported.read_text().splitlines()] if reported.is_file() else []

    def _is_of(self, config: TrialConfig) -> bool:
        self._remote.download("config.json", self.folder / "config.json")
        return TrialConfig.from_dict(json.loads((self.folder / "config.json").read_text())) == config

    @_reaches_storage
    def send(self, name: str) -> None:
        """Send up one file, if it is there."""
        if (self.folder / name).is_file():
            self._remote.upload((self.folder / name).read_bytes(), name)

    @_reaches_storage
    def save(self, metrics: Mapping[str, Any], checkpoint: Path) -> None:
        """Send up what an epoch has come to: its metrics, new shared encoders and best weights, and its checkpoint.

        Checkpoints that are gone here are dropped there.
        """
        with (self.folder / REPORTED).open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        self.send(REPORTED)
        for entry in self.av_store.glob("*/*"):
            name = entry.relative_to(self.av_store).as_posix()
            if not entry.parent.name.startswith(".") and name not in self._shared_av:
                self._remote_av.upload(entry.read_bytes(), name)
                self._shared_av.add(name)
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
            self._remote.upload(path.read_bytes(), path.relative_to(self.folder).as_posix())

    def close(self) -> None:
        """Free this node's disk: all of it is remote by now."""
        shutil.rmtree(self.folder, ignore_errors=True)
