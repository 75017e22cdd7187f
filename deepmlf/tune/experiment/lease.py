"""One driver at a time on an experiment in a bucket, where no file lock reaches."""

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

from deepmlf.errors import SearchError
from deepmlf.places import STALL_SECONDS, RemoteFolder
from deepmlf.tune.experiment.layout import LEASE, STOP

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 20.0
"""How long a driver may not have renewed its lease before it counts as dead."""


class Lease:
    """Held by the driver of a remote experiment while it is open, renewed every few seconds.

    Who finds another's lease waits to see whether it is renewed; a dead process of this machine needs no wait. A driver
    that could not renew it for too long may find it taken: it is `lost` then, and the driver must end.
    With each beat it looks whether somebody wishes that the driver stop.

    Args:
        remote: The experiment.
        quiet: Do not say that it waits.

    Raises:
        SearchError: On entry, if another driver is at it.
    """

    def __init__(self, remote: RemoteFolder, *, quiet: bool = False) -> None:
        self._remote, self._quiet = remote, quiet
        self._own = {"id": uuid.uuid4().hex, "host": socket.gethostname(), "pid": os.getpid()}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._renewed: float | None = None
        self.lost = False
        self.asked_to_stop = False

    def __enter__(self) -> "Lease":
        other = self._seen()
        if other is not None and not is_dead(other):
            self._wait_for(other)
        self._renew(self._remote.upload)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()
        if not self.lost:
            self._remote.delete(LEASE)

    def _wait_for(self, other: dict[str, Any]) -> None:
        if not self._quiet:
            print(f"deepmlf: seeing whether the driver on {other['host']} is still there", file=sys.stderr)
        started = time.monotonic()
        while (found := self._seen()) is not None:
            if found["beat"] != other["beat"]:
                raise SearchError(
                    f"{self._remote.uri}: another driver is running this search, on {found['host']} "
                    f"(process {found['pid']})"
                )
            if time.monotonic() - started > PATIENCE_SECONDS:
                return
            time.sleep(1)

    def _seen(self) -> dict[str, Any] | None:
        return lease_at(self._remote)

    def _read(self) -> dict[str, Any] | None:
        return _read(self._remote)

    @property
    def is_sure(self) -> bool:
        """Whether nobody can have taken it yet: it was renewed not long ago, time in which all stood still included."""
        return not self.lost and (self._renewed is None or _clock() - self._renewed < PATIENCE_SECONDS)

    def wait_until_sure(self) -> bool:
        """Wait until it is renewed or lost, for as long as storage may stall; whether it is either by then."""
        deadline = _clock() + STALL_SECONDS
        while not (self.is_sure or self.lost) and _clock() < deadline:
            time.sleep(0.1)
        return self.is_sure or self.lost

    def _renew(self, write: Callable[[bytes, str], None]) -> None:
        began = _clock()
        write(json.dumps(self._own | {"beat": uuid.uuid4().hex}).encode(), LEASE)
        self._renewed = began

    def _run(self) -> None:
        while not self._closing.wait(BEAT_SECONDS):
            try:
                found = self._read()
                if found is not None and found["id"] != self._own["id"]:
                    self.lost = True
                    return
                self._renew(self._remote.put)  # tried again only after another look at whose it is
                self.asked_to_stop = self._remote.read(STOP) is not None
            except (OSError, ValueError):
                continue  # storage that does not answer now, or not as it was written, may do so later


def _clock() -> float:
    """Seconds on a clock that goes on while this process or machine stands still, where there is one."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def lease_at(remote: RemoteFolder) -> dict[str, Any] | None:
    """The lease of an experiment; one that is torn is that of a driver of which nothing is known.

    Raises:
        OSError: If the storage does not answer.
    """
    try:
        return _read(remote)
    except ValueError:
        return {"id": "", "host": "an unknown machine", "pid": 0, "beat": ""}


def is_dead(lease: dict[str, Any]) -> bool:
    """Whether a lease is that of a process of this machine which is gone; of another machine's nothing is known."""
    if lease["host"] != socket.gethostname():
        return False
    try:
        os.kill(lease["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # somebody else's, alive
    return False


def _read(remote: RemoteFolder) -> dict[str, Any] | None:
    """The lease that is there.

    Raises:
        OSError: If the storage does not answer.
        ValueError: If it is torn, as where it is just being written.
    """
    content = remote.read(LEASE)
    if content is None:
        return None
    found = json.loads(content)
    if not isinstance(found, dict) or not {"id", "host", "pid", "beat"} <= found.keys():
        raise ValueError("no lease")
    return found
