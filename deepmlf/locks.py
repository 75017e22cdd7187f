"""Locks between processes. Who waits for one says so: waiting for another's work is no hang."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from filelock import BaseFileLock, Timeout

SILENT_SECONDS = 1.0
"""How long a wait may last before it is told."""

Tell = Callable[[str | None], None]

_tell: ContextVar[Tell] = ContextVar("tell", default=lambda awaited: None)


@contextlib.contextmanager
def waits_told_to(tell: Tell) -> Iterator[None]:
    """Have this thread's waits told.

    Args:
        tell: Called with what is waited for when a wait lasts, and with None when it is over.
    """
    token = _tell.set(tell)
    try:
        yield
    finally:
        _tell.reset(token)


@contextlib.contextmanager
def locked(lock: BaseFileLock, awaited: str) -> Iterator[None]:
    """Hold a lock; the system frees that of a process that died.

    Args:
        lock: The lock, not held by this process.
        awaited: What another process that holds it makes, for who is told of waits.
    """
    try:
        try:
            lock.acquire(timeout=SILENT_SECONDS)
        except Timeout:
            _tell.get()(awaited)
            lock.acquire()
            _tell.get()(None)
        yield
    finally:
        lock.release()  # does nothing if it is not held
