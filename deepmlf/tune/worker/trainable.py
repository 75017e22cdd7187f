"""The only adapter between the trainer and Ray: one trial, run by a worker."""

import contextlib
import errno
import functools
import gc
import importlib
import math
import os
import shutil
import socket
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray.tune.trainable import wrap_function

from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.errors import (
    DamagedError,
    DataError,
    DeepMLFError,
    LanguageModelError,
    NonFiniteLossError,
    PlaceError,
    StorageError,
    first_line,
)
from deepmlf.locks import waits_told_to
from deepmlf.model import lm_store
from deepmlf.places import Place
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.training.machine.device import fault_of
from deepmlf.training.reports import EpochReport
from deepmlf.tune.cluster.node_files import config_here
from deepmlf.tune.experiment.layout import AV_STORE, CHECKPOINTS, CONFIG, ERROR, REPORTED, TRIALS, trial_name
from deepmlf.tune.messages import SearchHalted, TrialFailed, TrialOrder, TrialWaits
from deepmlf.tune.worker.preemption import save_before_leaving, saved, training
from deepmlf.tune.worker.trial_copy import TrialCopy, reports_of_worker
from deepmlf.tune.worker.wire import order_of, send

_REFUSED = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EDQUOT)  # by the system, of any trial
NO_SPACE = "no space left on the device"


def is_deterministic(error: Exception) -> bool:
    """Whether the same trial would fail the same way again: a bad setting, out of memory, a non-finite loss."""
    if isinstance(error, (DeepMLFError, ValueError, TypeError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)


def is_out_of_space(error: Exception) -> bool:
    """Whether the disk is full, also where a library wraps that into an error of its own."""
    return os.strerror(errno.ENOSPC) in str(error)


def halt_of(error: Exception) -> SearchHalted | None:
    """What is to be said of an error that is no fault of the trial; None for one that is."""
    if is_out_of_space(error):
        return SearchHalted(f"{NO_SPACE}; free some and resume")
    if isinstance(error, StorageError):
        return SearchHalted(f"{error}; resume when it does")
    is_refused = isinstance(error, OSError) and error.errno in _REFUSED
    if is_refused or isinstance(error, (PlaceError, DataError)):  # no setting can spoil the data
        return SearchHalted(f"node {socket.gethostname()}: {first_line(error)}; mend that and resume")
    return None


def run_trial(ray_config: dict[str, Any]) -> None:
    """Train the trial that the driver ordered, from its newest checkpoint if it has one.

    A deterministic failure is reported and recorded. What is no fault of the trial and would meet others, too, is
    reported for the search to stop: no space, no storage, data or language model out of reach. Anything else is raised,
    so that Ray tries again.

    Args:
        ray_config: Carries the order.
    """
    order = order_of(ray_config)
    if order.only_record:
        return
    # How long Tune waits for a stopped trial to write its files before it starts another worker for the next one.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "30")
    if order.doomed is not None:
        send(TrialFailed(order.doomed))
        return
    try:
        run = _Run(order)
    except OSError as error:
        halt = halt_of(error)
        if halt is None:
            raise
        send(halt)
        return
    try:
        run.train()
    except Exception as error:
        halt = halt_of(error)
        if halt is None:
            run.note(error)
            if not is_deterministic(error):
                raise
        if isinstance(error, StorageError):
            run.copy = None  # what could not be sent stays on this node's disk
        send(halt or TrialFailed(f"{type(error).__name__}: {first_line(error)}"))
    finally:
        saved()
        if run.copy is not None:
            run.copy.close()


class _Run:
    """A trial in this worker: where its files are, and what becomes of its reports."""

    def __init__(self, order: TrialOrder) -> None:
        place, name = Place.of(order.terms.place), trial_name(order.number, order.terms.name)
        self._order = order
        self.copy: TrialCopy | None = None
        if place.is_remote:
            self.copy = TrialCopy(place, order.terms.experiment_id, name)
            self._folder, self._av_store = self.copy.folder, self.copy.av_store
        else:
            self._folder, self._av_store = place.folder / TRIALS / name, place.folder / AV_STORE
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / ERROR).unlink(missing_ok=True)  # of an attempt that this one repeats

    def train(self) -> None:
        """Train to the end; see `run_trial` for what is raised."""
        training()
        terms = self._order.terms
        train = _function(terms.train, terms.threads)
        if self.copy is None:
            (self._folder / CONFIG).write_text(self._order.config.to_json())
        else:
            self.copy.fetch(self._order.config)
        for metrics in self._reported():  # a driver that died may not have noted all of them
            send(EpochReport(metrics))
        _set_aside_what_stays()
        with waits_told_to(lambda awaited: send(TrialWaits(awaited))):
            train(
                reachable(self._order),
                self._report,
                out_dir=self._folder,
                resume_from=latest_checkpoint(self._folder),
                av_store=self._av_store,
                cache_gb=terms.cache_gb,
                keep=terms.keep,
            )

    def _reported(self) -> list[dict[str, Any]]:
        """What earlier workers reported while the trial was in a bucket; a trial that cannot tell begins anew."""
        try:
            return reports_of_worker(self._folder)
        except DamagedError as error:
            warnings.warn(f"{error}; the trial begins anew", stacklevel=2)
            shutil.rmtree(self._folder / CHECKPOINTS, ignore_errors=True)
            (self._folder / REPORTED).unlink()
            return []

    def note(self, error: Exception) -> None:
        """Write the stack of an error into the trial's folder."""
        (self._folder / ERROR).write_text("".join(traceback.format_exception(error)))
        if self.copy is not None:
            with contextlib.suppress(StorageError):  # the error is what matters
                self.copy.send(ERROR)

    def _report(self, metrics: Mapping[str, Any], checkpoint: Path | None) -> None:
        for name in self._order.terms.objectives:
            if not math.isfinite(metrics.get(name, 0.0)):
                raise NonFiniteLossError(f"{name} became {metrics[name]} in epoch {metrics['epoch']}")
        if self.copy is not None and checkpoint is not None:
            self.copy.save(metrics, checkpoint)  # before the report: what the search knows of, any node can go on from
        saved()
        send(EpochReport(metrics))
        training()


def _function(name: str, threads: int) -> Callable[..., None]:
    """The function that trains; what it imports decides whether there is a torch to give threads to."""
    module, _, function = name.partition(":")
    train: Callable[..., None] = getattr(importlib.import_module(module), function)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return train


def reachable(order: TrialOrder) -> TrialConfig:
    """The trial's configuration with this node's folders of data and language model, and its device; all can be used.

    Raises:
        PlaceError: If one cannot, or the language model is another than the search's, which says nothing about the
            trial's own setting.
    """
    begun_with = order.terms.language_models.get(order.config.model.language_model)
    config = config_here(order.config, order.terms.served)
    name = config.model.language_model
    if config.training.device == "auto":
        config = config.placed(device=order.terms.device)
    fault = None if config.training.device in ("auto", "cpu") else fault_of(config.training.device)
    if fault is not None:
        raise PlaceError(f"torch cannot use {config.training.device}, on which trials train ({fault})")
    try:
        Dataset.open(config.data.path)
        lm_store.facts(name)
        found = lm_store.fingerprint(name)
    except (DataError, LanguageModelError) as error:
        raise PlaceError(str(error)) from error
    if begun_with is not None and found != begun_with:
        raise PlaceError(f"{name} is not the language model that {order.terms.name} began with")
    return config


@functools.cache
def _set_aside_what_stays() -> None:
    """Once per worker: the collection after each trial need not go through half a million objects of the libraries.

    That took 0.3 s, most of what a trial cost beside its training.
    """
    gc.collect()
    gc.freeze()


class TrialWorker(wrap_function(run_trial)):  # type: ignore[misc]
    """Ray's worker of trials, which saves before it leaves."""

    def setup(self, config: dict[str, Any]) -> None:
        """Called once, in the main thread, before the first trial."""
        save_before_leaving()
        super().setup(config)
