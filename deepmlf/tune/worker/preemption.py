"""What a worker does when it is told that its node goes: it saves its trial's epoch first, if that takes not long."""

import signal
import threading
from types import FrameType

GRACE_SECONDS = 20.0
"""How long a worker that was told to leave may go on to its next checkpoint; clouds give 30 s or more."""

_saved = threading.Event()
_saved.set()


def training() -> None:
    """From here on leaving would lose something."""
    _saved.clear()


def saved() -> None:
    """All that a trial has trained is where another node finds it, or there is no trial."""
    _saved.set()


def save_before_leaving() -> None:
    """Answer SIGTERM in two steps: go on to the next checkpoint, then leave as this process would have at once.

    Only the main thread can call it. Trials are trained in another one, so the main thread can wait.
    """
    leave = signal.getsignal(signal.SIGTERM)

    def on_notice(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGTERM, leave)  # a second notice is obeyed at once
        _saved.wait(GRACE_SECONDS)
        if callable(leave):
            leave(number, frame)

    signal.signal(signal.SIGTERM, on_notice)
