"""TensorBoard on an experiment, wherever it is."""

import contextlib
import errno
import io
import socket
import time

from tensorboard.program import TensorBoard

from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.experiment.layout import TRIALS, trial_folders
from deepmlf.tune.experiment.manifest import read_manifest
from deepmlf.tune.experiment.remote import refresh, refresh_events


class Board:
    """A TensorBoard server in this process, for as long as it lives.

    Args:
        place: The experiment's folder or URI.
        host: Address to listen on.
        port: 0 takes a free one.

    Raises:
        SearchError: If there is no experiment, or host and port cannot be listened on.
    """

    def __init__(self, place: str, host: str, port: int) -> None:
        self._experiment = Place.of(place)
        refresh(self._experiment)
        read_manifest(self._experiment)
        _check_address(host, port)
        folder = self._experiment.folder
        server = TensorBoard()
        server.configure(
            logdir=str(folder / TRIALS),
            host=host,
            port=port,
            window_title=f"{folder.name} - TensorBoard",
        )
        with contextlib.redirect_stderr(io.StringIO()):  # it praises its data server
            self.url = server.launch()

    def has_trials(self) -> bool:
        """Whether any trial has started."""
        return any(trial_folders(self._experiment.folder))

    def watch(self, every: float = 10.0) -> None:
        """Never return; keep this machine's copy of a remote experiment's events up to date.

        Args:
            every: Seconds between looks.
        """
        while True:
            time.sleep(every)
            with contextlib.suppress(OSError):  # storage that fails now may be there at the next look
                refresh_events(self._experiment)


def _check_address(host: str, port: int) -> None:
    """Refuse what cannot be listened on; TensorBoard's own server would end the process with a page of advice."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SearchError(f"port {port} is in use; choose another by --port, or --port 0 for a free one") from None
        raise SearchError(f"--host {host} --port {port}: cannot be listened on ({error.strerror})") from None
