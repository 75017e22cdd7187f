"""TensorBoard on an experiment or on one trial, wherever it is."""

import contextlib
import io
import socket
import time

from tensorboard.program import TensorBoard

from deepmlf.addresses import refusal_of_address
from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.training.checkpoints.files import EVENTS
from deepmlf.tune.experiment.layout import MANIFEST, TRIALS, trial_folders
from deepmlf.tune.experiment.manifest import read_manifest
from deepmlf.tune.experiment.remote import refresh, refresh_events


class Board:
    """A TensorBoard server in this process, for as long as it lives.

    Args:
        place: Folder or URI of the experiment, or of a trial: of one in it, or what ``deepmlf train`` wrote.
        host: Address to listen on.
        port: 0 takes a free one.

    Raises:
        SearchError: If neither is there, or host and port cannot be listened on.
    """

    def __init__(self, place: str, host: str, port: int) -> None:
        self._place = Place.of(place)
        refresh(self._place)
        folder = self._place.folder
        self._is_trial = not (folder / MANIFEST).exists() and any(folder.glob(EVENTS))
        if not self._is_trial:
            self._check_experiment()
        _check_address(host, port)
        server = TensorBoard()
        server.configure(
            logdir=str(folder if self._is_trial else folder / TRIALS),
            host=host,
            port=port,
            window_title=f"{folder.name} - TensorBoard",
        )
        with contextlib.redirect_stderr(io.StringIO()):  # it praises its data server
            self.url = server.launch()

    def has_trials(self) -> bool:
        """Whether any trial has started."""
        return self._is_trial or any(trial_folders(self._place.folder))

    def watch(self, every: float = 10.0) -> None:
        """Never return; keep this machine's copy of remote events up to date.

        Args:
            every: Seconds between looks.
        """
        while True:
            time.sleep(every)
            with contextlib.suppress(OSError):  # storage that fails now may be there at the next look
                refresh_events(self._place)

    def _check_experiment(self) -> None:
        if not (self._place.folder / MANIFEST).exists():
            raise SearchError(
                f"{self._place}: neither an experiment (no {MANIFEST} there) nor a trial's folder (no {EVENTS})"
            )
        read_manifest(self._place)


def _check_address(host: str, port: int) -> None:
    """Refuse what cannot be listened on; TensorBoard's own server would end the process with a page of advice."""
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise refusal_of_address(error, host, port) from None
