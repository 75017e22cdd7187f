"""What the driver of a remote experiment writes, sent up while it runs."""

import contextlib
import stat
import threading
import time
from pathlib import Path, PurePosixPath

from deepmlf.errors import SearchError, first_line
from deepmlf.places import RemoteFolder
from deepmlf.tune.experiment.layout import JOURNAL, RAY, TRIALS, is_of_the_driver, only_grows, part_name, part_of
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.parts import (
    Part,
    first_offset,
    journals_in,
    length,
    new_parts,
    next_generation,
    went_apart,
)

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
        self._generation: dict[Path, int] = {}  # of a journal's parts
        self._replaced: dict[Path, list[str]] = {}  # parts of earlier drivers that the first one of this replaces
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
                    self._begin(path, journals.get(name, []))
                elif TRIALS in PurePosixPath(name).parts and sizes.get(name) == state[0]:
                    self._sent[path] = state
        except OSError as error:
            raise SearchError(f"{self._remote.uri}: cannot be read ({first_line(error)})") from error

    def _begin(self, journal: Path, parts: list[Part]) -> None:
        """Go on with a journal: in parts of a new generation, which begins with the first push."""
        if went_apart(self._remote, parts, journal):
            raise SearchError(f"{self._remote.uri}: another driver has gone on with it meanwhile; resume it again")
        self._generation[journal] = next_generation(parts)
        self._known[journal] = min(journal.stat().st_size, length(parts))
        self._replaced[journal] = [part.name for part in parts if part.offset >= first_offset(self._known[journal])]

    def __enter__(self) -> "Uploader":
        self.push()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        self._thread.join()
        self._due.clear()
        if not self._lease.wait_until_sure():
            raise self._unwritable("its lease could not be renewed")
        self.push()
        self._send_what_differs()

    def push(self) -> None:
        """Send every file that has changed; of a journal its new parts alone. Nothing as long as the lease is unsure.

        Raises:
            SearchError: If storage does not take it for as long as it may stall.
        """
        changed = {path: state for path, state in self._changed().items() if time.monotonic() >= self._due.get(path, 0)}
        # The study must not know more than the trials' files do, nor Ray's records more than the study, wherever this
        # is cut short: they are read before and sent after what they must not be ahead of.
        last = [path for path in changed if path.name == JOURNAL]
        last += [path for path in changed if path.parent.name == RAY]
        try:
            contents = {path: self._content(path) for path in reversed(last)}
            for path in [*(path for path in changed if path not in contents), *last]:
                pieces = contents[path] if path in contents else self._content(path)
                if not self._send(path, pieces):  # the next push goes on, or another driver
                    return
                self._sent[path] = changed[path]
                if path.parent.name == RAY:  # they go up whole; what they lack is made up for by a resume
                    self._due[path] = time.monotonic() + changed[path][0] / _RECORDS_BYTES_PER_SECOND
        except OSError as error:
            raise self._unwritable(first_line(error)) from error

    def _send(self, path: Path, pieces: list[tuple[int, bytes]]) -> bool:
        """Send what is new of a file, unless the lease is unsure; of a journal remove what that replaces."""
        name, generation = self._name(path), self._generation.get(path, 0)
        for offset, content in pieces:
            if not self._lease.is_sure:
                return False
            self._remote.upload(content, part_name(name, generation, offset))
            self._known[path] = offset + len(content)
        if pieces:
            for old in self._replaced.pop(path, []):
                if part_of(old) != (name, 0, 0):  # where everybody looks first
                    self._remote.delete(old)
        return self._lease.is_sure

    def _unwritable(self, reason: str) -> SearchError:
        return SearchError(
            f"{self._remote.uri}: cannot be written ({reason}); all of it is in {self._local}: "
            f"`deepmlf resume {self._remote.uri}` goes on from there"
        )

    def _send_what_differs(self) -> None:
        """Send metrics and events again that the last request of a driver which had stood still may have replaced."""
        if self._lease.lost:
            return
        with contextlib.suppress(OSError):  # all of it was there
            sizes = self._remote.sizes()
            for path, (size, _) in list(self._sent.items()):
                name = self._name(path)
                if path.name != JOURNAL and only_grows(PurePosixPath(name)) and sizes.get(name) != size:
                    del self._sent[path]
        self.push()

    def _content(self, path: Path) -> list[tuple[int, bytes]]:
        """What is to be sent of a file: offset and bytes, all of it but of a journal."""
        if path.name == JOURNAL:
            return list(new_parts(path, self._known.get(path, 0)))
        return [(0, path.read_bytes())]

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
