"""The wish, left in an experiment, that the driver which is at it save and leave."""

import contextlib
import time
from collections.abc import Callable, Iterator

from filelock import FileLock, Timeout

from deepmlf.errors import SearchError, first_line
from deepmlf.places import Place
from deepmlf.tune.experiment.layout import LOCK, MANIFEST, STOP
from deepmlf.tune.experiment.lease import PATIENCE_SECONDS, is_dead, lease_at

_LOOK_SECONDS = 0.5


class StopRequest:
    """A file in an experiment, on this machine or in a bucket, that its driver looks for.

    Args:
        place: The experiment.
    """

    def __init__(self, place: Place) -> None:
        self._remote, self._path = place.remote, place.folder / STOP

    def is_there(self) -> bool:
        """Whether somebody wishes it."""
        return self._path.exists() if self._remote is None else self._remote.read(STOP) is not None

    def leave(self) -> None:
        """Wish it."""
        if self._remote is None:
            self._path.touch()
        else:
            self._remote.upload(b"", STOP)

    def withdraw(self) -> None:
        """Wish it no longer, whoever has."""
        if self._remote is None:
            self._path.unlink(missing_ok=True)
        else:
            self._remote.delete(STOP)

    @contextlib.contextmanager
    def withdrawn(self) -> Iterator[None]:
        """For a driver: what was wished before it came was not meant for it, and afterwards it has obeyed."""
        self.withdraw()
        try:
            yield
        finally:
            self.withdraw()


def stop_driver(place: Place, waiting: Callable[[], None]) -> bool:
    """Have the driver of an experiment save and leave, and wait until it has.

    Args:
        place: The experiment.
        waiting: Called once a driver has been found and asked.

    Returns:
        Whether there was a driver: False if nothing runs it, or what ran it has died.

    Raises:
        SearchError: If there is no experiment, or its file system cannot be reached.
    """
    _check_experiment(place)
    request, is_running = StopRequest(place), _watch(place)
    if not is_running():
        return False
    request.leave()
    waiting()
    while (runs := is_running()) is True:
        if not request.is_there():  # a driver that came just now took it for an older one
            request.leave()
        time.sleep(_LOOK_SECONDS)
    request.withdraw()
    return runs is False


def _check_experiment(place: Place) -> None:
    try:
        found = (place.folder / MANIFEST).is_file() if place.remote is None else place.remote.read(MANIFEST) is not None
    except OSError as error:
        raise SearchError(f"{place}: cannot be read ({first_line(error)})") from None
    if not found:
        raise SearchError(f"{place}: not an experiment (no {MANIFEST} there)")


def _watch(place: Place) -> Callable[[], bool | None]:
    """A function that says whether a driver is at an experiment: None once the one that was there seems to be dead."""
    if place.remote is None:
        return lambda: _is_locked(place)
    remote = place.remote
    beat, heard = "", time.monotonic()

    def is_running() -> bool | None:
        nonlocal beat, heard
        found = lease_at(remote)
        if found is None or is_dead(found):
            return False
        if found["beat"] != beat:
            beat, heard = found["beat"], time.monotonic()
        return None if time.monotonic() - heard > PATIENCE_SECONDS else True

    return is_running


def _is_locked(place: Place) -> bool:
    """Whether another process holds the lock of a folder here; the system frees that of a process that died."""
    try:
        with FileLock(place.folder / LOCK, timeout=0):
            return False
    except Timeout:
        return True
