"""What the driver of a remote experiment writes, sent up while it runs."""

import contextlib
import stat
import threading
import time
from pathlib import Path, PurePosixPath

from deepmlf.errors import SearchError, first_line
from deepmlf.places import RemoteFolder
from deepmlf.tune.experiment.layout import JOURNAL, RAY, TRIALS, is_of_the_driver, part_name
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.parts import Part, journals_in, length, new_parts, went_apart

_RECORDS_BYTES_PER_SECOND = 1 << 18


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
        self._due: dict[Path, float] = {}  # when one of Ray's records may go again
        self._known: dict[Path, int] = {}  # how many bytes of a file are remote
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def compare(self) -> None:
        """Take note of what need not be sent, right after the copy was brought up to date and before it is written to.

        Raises:
            SearchError: If another driver has gone on since, or storage does not answer.
        """
        try:
            sizes = self._remote.sizes()
            journals = journals_in(sizes)
            for path, state in self._changed().items():
                name = self._name(path)
                if path.name == JOURNAL:
                    self._known[path] = self._bytes_in_common(path, journals.get(name, []))
                    is_there = self._known[path] == state[0]
                else:
                    is_there = TRIALS in PurePosixPath(name).parts and sizes.get(name) == state[0]
                if is_there:
                    self._sent[path] = state
        except OSError as error:
            raise SearchError(f"{self._remote.uri}: cannot be read ({first_line(error)})") from error

    def __enter__(self) -> "Uploader":
        self.push()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()
        self._due.clear()
        self.push()

    def push(self) -> None:
        """Send every file that has changed; of a journal its new parts alone.

        Raises:
            SearchError: If storage does not take it for as long as it may stall.
        """
        if self._lease.lost:
            return
        changed = {path: state for path, state in self._changed().items() if time.monotonic() >= self._due.get(path, 0)}
        # The study must not know more than the trials' files do, nor Ray's records more than the study, wherever this
        # is cut short: they are read before and sent after what they must not be ahead of.
        last = [path for path in changed if path.name == JOURNAL]
        last += [path for path in changed if path.parent.name == RAY]
        try:
            contents = {path: self._content(path) for path in reversed(last)}
            for path in [*(path for path in changed if path not in contents), *last]:
                for offset, content in contents[path] if path in contents else self._content(path):
                    self._remote.upload(content, part_name(self._name(path), offset))
                    self._known[path] = offset + len(content)
                self._sent[path] = changed[path]
                if path.parent.name == RAY:  # they go up whole; what they lack is made up for by a resume
                    self._due[path] = time.monotonic() + changed[path][0] / _RECORDS_BYTES_PER_SECOND
        except OSError as error:
            raise SearchError(
                f"{self._remote.uri}: cannot be written ({first_line(error)}); all of it is in {self._local}: "
                f"`deepmlf resume {self._remote.uri}` goes on from there"
            ) from error

    def _content(self, path: Path) -> list[tuple[int, bytes]]:
        """What is to be sent of a file: offset and bytes, all of it but of a journal."""
        if path.name == JOURNAL:
            return list(new_parts(path, self._known.get(path, 0)))
        return [(0, path.read_bytes())]

    def _bytes_in_common(self, journal: Path, parts: list[Part]) -> int:
        """How much of a journal is remote. What is there beyond it, a line that was torn, is removed."""
        if went_apart(self._remote, parts, journal):
            raise SearchError(f"{self._remote.uri}: another driver has gone on with it meanwhile; resume it again")
        size = journal.stat().st_size
        if size < length(parts):
            self._remote.upload(journal.read_bytes(), self._name(journal))
            for part in parts[1:]:
                if part.end > size:
                    self._remote.delete(part.name)
        return min(size, length(parts))

    def _name(self, path: Path) -> str:
        return path.relative_to(self._local).as_posix()

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
