"""What goes wrong with a trial's worker: it dies, runs out of memory, or makes no progress; noticed, noted, bounded."""

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune import Callback
from ray.tune.error import TuneError
from ray.tune.execution.tune_controller import TuneController

from deepmlf.tune.experiment.study import get_trial
from deepmlf.tune.worker.trainable import DOOMED

RESTARTS = "restarts"
_MEMORY_KILLS = 2
_PREEMPTION = re.compile(r"receive[sd]( a)? SIGTERM|was preempted", re.I)
_WANT_OF_MEMORY = re.compile(r"OutOfMemory|running low on memory|memory monitor", re.I)


class FaultWatch(Callback):
    """Notes why trials start again, kills workers that are stuck, and ends trials that need too much memory.

    Every restart is a line in the trial's user attribute ``restarts`` of the study.

    Args:
        study: Where restarts are noted.
        trial_timeout: Seconds without a report after which a worker is taken for stuck; None for ever.
    """

    def __init__(self, study: optuna.Study, trial_timeout: float | None) -> None:
        self._study, self._timeout = study, trial_timeout
        self._heard: dict[int, float] = {}
        self._running: dict[int, Any] = {}
        self._stuck: set[int] = set()
        self._memory_kills: dict[int, int] = {}

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray pickles its run config for a restore that this project never does.
        return object, ()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._heard[trial.config["number"]] = time.monotonic()
        self._running[trial.config["number"]] = trial

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        self._heard[trial.config["number"]] = time.monotonic()

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._running.pop(trial.config["number"], None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._running.pop(trial.config["number"], None)

    def on_trial_recover(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        number = trial.config["number"]
        error = _last_error(trial)
        if number in self._stuck:
            self._stuck.discard(number)
            reason = f"no report for {self._timeout:g} s"
        elif _WANT_OF_MEMORY.search(error):
            self._memory_kills[number] = self._memory_kills.get(number, 0) + 1
            reason = "its node ran out of memory"
            if self._memory_kills[number] == _MEMORY_KILLS:
                # It would be killed again: the next worker says so instead of training.
                trial.config[DOOMED] = f"killed {_MEMORY_KILLS} times because its node ran out of memory"
        else:
            reason = reason_of(error)
        self._note(number, reason)
        self._heard[number] = time.monotonic()

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._timeout is None:
            return
        for number, trial in self._running.items():
            is_late = time.monotonic() - self._heard[number] > self._timeout
            actor = trial.temporary_state.ray_actor
            if trial.status == "RUNNING" and is_late and number not in self._stuck and actor is not None:
                self._stuck.add(number)
                ray.kill(actor)  # Ray takes that for a death like any other

    def _note(self, number: int, reason: str) -> None:
        trial = get_trial(self._study, number)
        restarts = [*trial.user_attrs.get(RESTARTS, []), reason]
        self._study._storage.set_trial_user_attr(trial._trial_id, RESTARTS, restarts)


@contextlib.contextmanager
def deaths_are_survived() -> Iterator[None]:
    """Close three gaps of Ray 2.60 in which the fault of a worker is not answered by a retry of its trial.

    A worker that Ray's memory monitor has killed raises an error of its own kind, which Tune does not expect: the
    whole search would end. A worker that dies while it is handed its next trial is reported twice; Tune takes the
    second report, which reaches a trial that already waits for another worker, for a final failure. And it gives up
    a trial whose worker cannot let go of the one before in time, as where a last upload takes long.
    """
    task_failed = RayActorManager._actor_task_failed
    trial_failed = TuneController._trial_task_failure
    trial_reset = TuneController._on_trial_reset

    def _actor_task_failed(manager: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, OutOfMemoryError):
            death = RayActorError()
            death.error_msg = f"OutOfMemory: {exception}"
            exception = death
        task_failed(manager, tracked_actor_task, exception)

    def _trial_task_failure(controller: TuneController, trial: Any, exception: Exception) -> None:
        controller._resetting_trials.discard(trial)  # or it would wait for the dead worker for ever
        is_reported = isinstance(exception, RayActorError) and trial.status == "PENDING"
        if not is_reported:
            trial_failed(controller, trial, exception)

    def _on_trial_reset(controller: TuneController, trial: Any, success: bool) -> None:
        if success:
            trial_reset(controller, trial, success)
            return
        # As after a death, but it is no failure of the trial, which has not begun.
        controller._resetting_trials.remove(trial)
        controller._set_trial_status(trial, "RUNNING")
        controller._unstage_trial_with_resources(trial)
        controller._try_recover(trial, TuneError("its worker has not let go of the trial before"))

    RayActorManager._actor_task_failed = _actor_task_failed
    TuneController._trial_task_failure = _trial_task_failure
    TuneController._on_trial_reset = _on_trial_reset
    try:
        yield
    finally:
        RayActorManager._actor_task_failed = task_failed
        TuneController._trial_task_failure = trial_failed
        TuneController._on_trial_reset = trial_reset


def _last_error(trial: Any) -> str:
    """What Ray has written down of a trial's last failure."""
    path = trial.error_file
    text = Path(path).read_text() if path and Path(path).is_file() else ""
    return text.rpartition("Failure # ")[2]


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
