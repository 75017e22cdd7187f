"""The one door to Ray's insides: what is read there, and what Ray is kept from doing.

What schedulers need of ASHA's insides is in :mod:`deepmlf.tune.decide.scheduler`.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.tune.error import TuneError
from ray.tune.execution import class_cache
from ray.tune.execution.tune_controller import TuneController

from deepmlf.tune.engines import require_insides


def check_insides() -> None:
    """Refuse a Ray without the insides that this file uses.

    Raises:
        SearchError: With the releases that have them.
    """
    controller = (
        "_trial_task_failure", "_on_trial_reset", "_set_trial_status", "_unstage_trial_with_resources", "_try_recover",
    )  # fmt: skip
    require_insides(
        "ray",
        [(class_cache, "ENV_VARS_TO_PROPAGATE"), (RayActorManager, "_actor_task_failed")]
        + [(TuneController, name) for name in controller],
    )


@contextlib.contextmanager
def adjusted_ray() -> Iterator[None]:
    """All that Ray is kept from doing while a search runs.

    Raises:
        SearchError: If this Ray's insides are others than those that are known.
    """
    check_insides()
    with credentials_stay(), signal_handlers_stay(), deaths_are_survived():
        yield


@contextlib.contextmanager
def signal_handlers_stay() -> Iterator[None]:
    """Give SIGINT and SIGUSR1 back to whom they belong: Tune keeps them after a run, and swallows the next Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def credentials_stay() -> Iterator[None]:
    """Keep Ray Tune from handing the driver's credentials to its workers.

    Ray 2.60 would put ``AWS_SECRET_ACCESS_KEY`` and its like into their runtime environment, which it writes in plain
    text into a log on every node. Workers have the credentials of the process that started Ray on their node.
    """
    handed_on = class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.ENV_VARS_TO_PROPAGATE = {name for name in handed_on if not name.startswith("AWS_")}
    try:
        yield
    finally:
        class_cache.ENV_VARS_TO_PROPAGATE = handed_on


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


def kill_worker(trial: Any) -> bool:
    """Kill the worker that has a Ray trial, which Ray takes for a death like any other; False if none has it."""
    actor = trial.temporary_state.ray_actor
    if trial.status != "RUNNING" or actor is None:
        return False
    ray.kill(actor)
    return True


def last_error_of(trial: Any) -> str:
    """What Ray has written down of a trial's last failure."""
    path = trial.error_file
    text = Path(path).read_text() if path and Path(path).is_file() else ""
    return text.rpartition("Failure # ")[2]
