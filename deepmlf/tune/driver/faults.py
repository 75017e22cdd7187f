"""What goes wrong with a trial's worker: it dies, runs out of memory, or makes no progress; noticed, noted, bounded."""

import re
import time
from typing import Any

import optuna

from deepmlf.tune.cluster.ray_patches import kill_worker, last_error_of
from deepmlf.tune.driver.callback import DriverCallback
from deepmlf.tune.experiment.notes import describe
from deepmlf.tune.experiment.study import RESTARTS, get_trial, note
from deepmlf.tune.messages import TrialWaits
from deepmlf.tune.worker.wire import doom, message_in, number_of

_MEMORY_KILLS = 2
_PREEMPTION = re.compile(r"receive[sd]( a)? SIGTERM|was preempted", re.I)
_WANT_OF_MEMORY = re.compile(r"OutOfMemory|running low on memory|memory monitor", re.I)


class FaultWatch(DriverCallback):
    """Notes why trials start again, kills workers that are stuck, and ends trials that need too much memory.

    Every restart is a line in the trial's user attribute ``restarts`` of the study.

    Args:
        study: Where restarts are noted.
        trial_timeout: Seconds without a report after which a worker is taken for stuck, unless it has said that it
            waits for another's work; None for ever.
    """

    def __init__(self, study: optuna.Study, trial_timeout: float | None) -> None:
        self._study, self._timeout = study, trial_timeout
        self._heard: dict[int, float] = {}
        self._running: dict[int, Any] = {}
        self._waiting: set[int] = set()
        self._stuck: set[int] = set()
        self._memory_kills: dict[int, int] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = number_of(trial.config)
        self._heard[number] = time.monotonic()
        self._waiting.discard(number)
        self._running[number] = trial

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        number, message = number_of(trial.config), message_in(result)
        self._heard[number] = time.monotonic()
        if isinstance(message, TrialWaits) and message.awaited is not None:
            self._waiting.add(number)  # the worker whose work it needs is watched itself
        else:
            self._waiting.discard(number)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._running.pop(number_of(trial.config), None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._running.pop(number_of(trial.config), None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = number_of(trial.config)
        error = last_error_of(trial)
        if number in self._stuck:
            self._stuck.discard(number)
            reason = f"no report for {self._timeout:g} s"
        elif _WANT_OF_MEMORY.search(error):
            self._memory_kills[number] = self._memory_kills.get(number, 0) + 1
            reason = "its node ran out of memory"
            if self._memory_kills[number] == _MEMORY_KILLS:
                # It would be killed again: the next worker says so instead of training.
                doom(trial, f"killed {_MEMORY_KILLS} times because its node ran out of memory")
        else:
            reason = reason_of(error)
        restarts = get_trial(self._study, number).user_attrs.get(RESTARTS, [])
        note(self._study, number, RESTARTS, [*restarts, reason])
        describe(self._study, number)
        self._heard[number] = time.monotonic()
        self._waiting.discard(number)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._timeout is None:
            return
        for number, trial in self._running.items():
            is_late = time.monotonic() - self._heard[number] > self._timeout
            if is_late and number not in self._waiting | self._stuck and kill_worker(trial):
                self._stuck.add(number)


def reason_of(error: str) -> str:
    """The telling line of a failure: an exception's own, or that the worker or its node died or was taken away."""
    lines = [line.strip() for line in error.splitlines()[1:] if line.strip()]
    if _PREEMPTION.search(error):
        return "preempted"
    if any("node" in line and "died" in line for line in lines):
        return "its node died"
    if any(
        "ActorDied" in line or "ActorUnavailable" in line or "actor died" in line or "worker died" in line.lower()
        for line in lines[:3]
    ):
        return "its worker died"
    return lines[-1] if lines else "its worker died"
