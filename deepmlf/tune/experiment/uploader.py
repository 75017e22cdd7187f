"""What the driver of a remote experiment writes, sent up while it runs."""

import contextlib
import stat
import threading
from pathlib import Path

from deepmlf.errors import SearchError, first_line
from deepmlf.places import RemoteFolder
from deepmlf.tune.experiment.layout import JOURNAL, RAY, is_of_the_driver
from deepmlf.tune.experiment.lease import Lease


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
        changed = self._changed()
        # The study must not know more than the trials' files do, nor Ray's records more than the study, wherever this
        # is cut short: they are read before and sent after what they must not be ahead of.
        last = [path for path in changed if path.name == JOURNAL]
        last += [path for path in changed if path.parent.name == RAY]
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

    def _changed(self) -> dict[Path, tuple[int, int]]:
        """Size and time of change of every file that is not as it was last sent."""
        changed: dict[Path, tuple[int, int]] = {}
        for path in sorted(self._local.rglob("*")):
            if not is_of_the_driver(path.relative_to(self._local)):
                continue
            with contextlib.suppress(FileNotFoundError):  # Ray removes its older records
                facts = path.stat()
                state = facts.st_size, facts.st_mtime_ns
                if stat.S_ISREG(facts.st_mode) and self._sent.get(path) != state:
                    changed[path] = state
        return changed

    def _run(self) -> None:
        while not self._closing.wait(self._every):
            with contextlib.suppress(SearchError):  # the last push says so if it lasts
                self.push()
