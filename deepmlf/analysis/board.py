"""TensorBoard on an experiment, wherever it is."""

import contextlib
import errno
import io
import socket
import time

from tensorboard.program import TensorBoard

from deepmlf.errors import SearchError
from deepmlf.places import RemoteFolder, is_remote, local_copy
from deepmlf.tune.experiment.remote import MANIFEST, open_experiment, refresh_events


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
        experiment = open_experiment(place)
        if not (experiment / MANIFEST).is_file():
            raise SearchError(f"{place}: not an experiment (no {MANIFEST} there)")
        _check_address(host, port)
        self._place, self._trials = place, experiment / "trials"
        server = TensorBoard()
        server.configure(
            logdir=str(self._trials), host=host, port=port, window_title=f"{experiment.name} - TensorBoard"
        )
        with contextlib.redirect_stderr(io.StringIO()):  # it praises its data server
            self.url = server.launch()

    def has_trials(self) -> bool:
        """Whether any trial has started."""
        return any(self._trials.glob("[0-9]*_*"))

    def watch(self, every: float = 10.0) -> None:
        """Never return; keep this machine's copy of a remote experiment's events up to date.

        Args:
            every: Seconds between looks.
        """
        while True:
            time.sleep(every)
            if is_remote(self._place):
                with contextlib.suppress(OSError):  # storage that fails now may be there at the next look
                    refresh_events(RemoteFolder(self._place), local_copy(self._place))


def _check_address(host: str, port: int) -> None:
    """Refuse what cannot be listened on; TensorBoard's own server would end the process with a page of advice."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SearchError(f"port {port} is in use; choose another by --port, or --port 0 for a free one") from None
        raise SearchError(f"--host {host} --port {port}: cannot be listened on ({error.strerror})") from None
