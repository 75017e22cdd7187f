"""A worker's copy of a trial whose experiment is on remote storage."""

import functools
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from deepmlf.config.earlier import trial_config
from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError, StorageError, first_line
from deepmlf.places import Place, RemoteFolder, home
from deepmlf.seal import read_document
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.reports import line_of, read_lines
from deepmlf.tune.experiment.layout import (
    AV_STORE,
    BEST,
    CHECKPOINTS,
    CONFIG,
    REPORTED,
    STATE,
    TRIALS,
    checkpoint_of,
    complete_checkpoint,
)

P = ParamSpec("P")
R = TypeVar("R")


def _reaches_storage(method: Callable[P, R]) -> Callable[P, R]:
    """The method, with storage that does not answer told as :class:`StorageError`."""

    @functools.wraps(method)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return method(*args, **kwargs)
        except OSError as error:
            raise StorageError(f"the storage does not answer ({first_line(error)})") from error

    return wrapped


class TrialCopy:
    """A worker's copy of a trial's folder, for as long as the trial runs there.

    Args:
        experiment: Place of the experiment.
        identity: Tells the experiment from any other that was at the same place.
        name: Of the trial's folder.

    All methods raise :class:`StorageError` if storage does not answer for as long as it may stall.
    """

    def __init__(self, experiment: Place, identity: str, name: str) -> None:
        root = home() / TRIALS / identity
        self.folder = root / name
        self.av_store = root / AV_STORE
        self._trials = RemoteFolder(str(experiment / TRIALS))
        self._remote = RemoteFolder(str(experiment / TRIALS / name))
        self._remote_av = RemoteFolder(str(experiment / AV_STORE))
        self._best: str | None = None
        self._shared_av: set[str] = set()

    @_reaches_storage
    def fetch(self, config: TrialConfig) -> None:
        """Take what another node has got further with: the newest checkpoint, best weights; and encoders to share.

        Args:
            config: Of the trial. What a dead driver's workers have left under the same number of another one, or of
                one that storage does not know any more, is removed.
        """
        self._shared_av = set(self._remote_av.sizes())
        for name in self._shared_av:
            if not (self.av_store / name).is_file():
                self._remote_av.download(name, self.av_store / name)
        names = self._remote.sizes()
        if CONFIG not in names or not self._is_of(config):
            self._trials.delete(self.folder.name)
            self.close()
            names = {}
        (self.folder / REPORTED).unlink(missing_ok=True)  # a kill may have torn it
        if REPORTED in names:
            self._remote.download(REPORTED, self.folder / REPORTED)
        newest = max(filter(None, map(complete_checkpoint, names)), default=None)
        own = latest_checkpoint(self.folder)
        if newest is not None and (own is None or own.name < newest):
            for name in sorted(names, key=lambda name: name.endswith(STATE)):  # it makes a checkpoint complete
                if checkpoint_of(name) == newest or name.startswith(f"{BEST}/"):
                    self._remote.download(name, self.folder / name)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / CONFIG).write_text(config.to_json())
        self.send(CONFIG)

    def _is_of(self, config: TrialConfig) -> bool:
        self._remote.download(CONFIG, self.folder / CONFIG)
        try:
            there = trial_config(read_document(self.folder / CONFIG))
        except (ValueError, ConfigError):  # damaged: nobody can tell
            return False
        return there.placed(data=config.data.path) == config  # the same dataset may have another place by now

    @_reaches_storage
    def send(self, name: str) -> None:
        """Send up one file, if it is there."""
        if (self.folder / name).is_file():
            self._remote.upload((self.folder / name).read_bytes(), name)

    @_reaches_storage
    def save(self, metrics: Mapping[str, Any], checkpoint: Path) -> None:
        """Send up what an epoch has come to: its metrics, new shared encoders and best weights, and its checkpoint.

        The checkpoint goes last: whoever finds it there finds what led to it. Checkpoints that are gone here are
        dropped there.
        """
        with (self.folder / REPORTED).open("a") as file:
            file.write(line_of(metrics))
        self.send(REPORTED)
        for entry in self.av_store.glob("*/*"):
            name = entry.relative_to(self.av_store).as_posix()
            if not entry.parent.name.startswith(".") and name not in self._shared_av:
                self._remote_av.upload(entry.read_bytes(), name)
                self._shared_av.add(name)
        best = self.folder / BEST / STATE
        if best.is_file() and best.read_text() != self._best:
            self._send_folder(best.parent)
            self._best = best.read_text()
        self._send_folder(checkpoint)
        kept = {path.name for path in checkpoint.parent.iterdir()}
        for old in set(filter(None, map(checkpoint_of, self._remote.sizes()))) - kept:
            self._remote.delete(f"{CHECKPOINTS}/{old}")

    def _send_folder(self, folder: Path) -> None:
        for path in sorted(folder.iterdir(), key=lambda path: path.name == STATE):
            self._remote.upload(path.read_bytes(), path.relative_to(self.folder).as_posix())

    def close(self) -> None:
        """Free this node's disk: all of it is remote by now."""
        shutil.rmtree(self.folder, ignore_errors=True)


def reports_of_worker(folder: Path) -> list[dict[str, Any]]:
    """The metrics that a worker has reported of a trial while it was in a bucket, in their order.

    Raises:
        DamagedError: If a line is not as it was written.
    """
    return read_lines(folder / REPORTED)
