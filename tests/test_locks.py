"""Waiting for another's lock: told when it lasts, and again when it is over."""

import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from deepmlf import locks
from deepmlf.locks import locked, waits_told_to
from deepmlf.places import keep_copy


def test_a_lock_that_is_free_is_taken_without_a_word(tmp_path: Path) -> None:
    told: list[str | None] = []
    with waits_told_to(told.append), locked(FileLock(tmp_path / "lock"), "nothing"), pytest.raises(Timeout):
        FileLock(tmp_path / "lock").acquire(timeout=0)
    assert told == []
    FileLock(tmp_path / "lock").acquire(timeout=0).lock.release()


def test_a_wait_that_lasts_is_told_and_so_is_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.05)
    told: list[str | None] = []
    is_told = threading.Event()

    def tell(awaited: str | None) -> None:
        told.append(awaited)
        is_told.set()

    def wait() -> None:
        with waits_told_to(tell), locked(FileLock(tmp_path / "lock"), "another trial's work"):
            told.append("held")

    with FileLock(tmp_path / "lock"):
        waiter = threading.Thread(target=wait)
        waiter.start()
        assert is_told.wait(10)
        assert told == ["another trial's work"]
    waiter.join(10)
    assert told == ["another trial's work", None, "held"]


def test_who_cannot_tell_does_not_hold_the_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.05)

    def tell(awaited: str | None) -> None:
        if awaited is None:
            raise InterruptedError

    held = threading.Event()

    def hold() -> None:
        with FileLock(tmp_path / "lock"):
            held.set()
            time.sleep(0.3)

    threading.Thread(target=hold).start()
    assert held.wait(10)
    with pytest.raises(InterruptedError), waits_told_to(tell), locked(FileLock(tmp_path / "lock"), "work"):
        pass
    FileLock(tmp_path / "lock").acquire(timeout=0).lock.release()


def test_waiting_for_another_process_that_fetches_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "SILENT_SECONDS", 0.05)
    told: list[str | None] = []
    copy = tmp_path / "set"
    first = threading.Thread(target=lambda: keep_copy(copy, lambda folder: False, lambda folder: time.sleep(1)))
    first.start()
    while not (tmp_path / ".set.unfinished").is_dir():
        time.sleep(0.01)
    with waits_told_to(told.append):
        keep_copy(copy, lambda folder: folder.is_dir(), lambda folder: pytest.fail("fetched twice"))
    first.join()
    assert told == ["another process that fetches set", None]
