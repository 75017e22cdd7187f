"""The end of a search before its end."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from deepmlf.tune.driver.callback import DriverCallback
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.stop_request import StopRequest
from deepmlf.tune.messages import SearchHalted
from deepmlf.tune.worker.wire import message_in

_LOOK_SECONDS = 1.0


class Stop(DriverCallback):
    """Ends a search as Ctrl-C does, so that what runs can be resumed.

    It ends when its time is up, when somebody wishes it, when the disk is full, when workers cannot reach data,
    language model or storage, or when another driver has taken it over.

    Args:
        time_budget: Seconds from now; None for no end.
        lease: The driver's own, of a remote experiment, by which a wish comes.
        request: By which one comes on this machine, looked for once a second.
    """

    def __init__(
        self, time_budget: float | None, lease: Lease | None = None, request: StopRequest | None = None
    ) -> None:
        self._lease, self._request, self._looked = lease, request, time.monotonic()
        self.on_interrupt: Callable[[], None] = lambda: None
        """Called at once when Ctrl-C is pressed for the first time."""
        self._hears_interrupts = False
        self._deadline = None if time_budget is None else time.monotonic() + time_budget
        self._stopped = False
        self.out_of_time = False
        self.reason: str | None = None

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if not self._hears_interrupts and threading.current_thread() is threading.main_thread():
            self._hears_interrupts = True
            self._hear_interrupts()

    def _hear_interrupts(self) -> None:
        """Answer Ctrl-C before Ray does, whose own handler ends the run after the step and gives the next one back."""
        of_ray = signal.getsignal(signal.SIGINT)

        def answer(number: int, frame: FrameType | None) -> None:
            if not self._stopped:
                self._stopped = True
                self.on_interrupt()
            if callable(of_ray):
                of_ray(number, frame)

        signal.signal(signal.SIGINT, answer)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        message = message_in(result)
        if isinstance(message, SearchHalted) and not self._stopped:
            self.reason = message.reason
            self._stop()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._stopped:
            return
        if self._lease is not None and self._lease.lost:
            self.reason = "another driver has taken it over"
            self._stop()
        elif self._deadline is not None and time.monotonic() > self._deadline:
            self.out_of_time = True
            self._stop()
        elif self._is_wished():
            self._stop()

    def _is_wished(self) -> bool:
        if self._lease is not None:
            return self._lease.asked_to_stop
        if self._request is None or time.monotonic() - self._looked < _LOOK_SECONDS:
            return False
        self._looked = time.monotonic()
        return self._request.is_there()

    def _stop(self) -> None:
        self._stopped = True
        signal.raise_signal(signal.SIGINT)  # Ray's handler of it ends the run after this step
