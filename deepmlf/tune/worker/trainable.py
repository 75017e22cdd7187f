"""The only adapter between the trainer and Ray: one trial, run by a worker."""

import contextlib
import errno
import functools
import gc
import importlib
import math
import os
import socket
import traceback
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.trainable import wrap_function

from deepmlf.config import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.errors import DataError, DeepMLFError, LanguageModelError, NonFiniteLossError, PlaceError, StorageError
from deepmlf.model import lm_store
from deepmlf.places import first_line, is_remote
from deepmlf.training.checkpoints.files import latest_checkpoint
from deepmlf.tune.cluster.node_files import DATA, LANGUAGE_MODEL, overrides_here
from deepmlf.tune.experiment.remote import AV_STORE, TrialCopy
from deepmlf.tune.worker.preemption import save_before_leaving, saved, training

DEFAULT_TRAIN = "deepmlf.training.trainer:train"
ONLY_RECORD = "only_record"
DOOMED = "doomed"
NO_SPACE = "no space left on the device"
NO_STORAGE = "no_storage"
"""Reported, with what the storage says, by a trial that cannot reach it: like a full disk no fault of the trial."""
OUT_OF_REACH = "out_of_reach"
"""The same, with node and reason, by a trial whose data or language model its node does not have or cannot open."""


def trial_folder(experiment: Path, number: int, name: str | None = None) -> Path:
    """The folder of a trial, the same on every resume.

    Args:
        experiment: The experiment's folder.
        number: The trial's number.
        name: The name that the experiment began with; None takes its folder's, and looks around if that has changed.
    """
    trials = experiment / "trials"
    folder = trials / f"{number:04d}_{name or experiment.name}"
    return folder if name or folder.is_dir() else next(trials.glob(f"{number:04d}_*"), folder)


def is_deterministic(error: Exception) -> bool:
    """Whether the same trial would fail the same way again: a bad setting, out of memory, a non-finite loss."""
    if isinstance(error, (DeepMLFError, ValueError, TypeError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and ("out of memory" in text or "allocate memory" in text)


def is_out_of_space(error: Exception) -> bool:
    """Whether the disk is full, also where a library wraps that into an error of its own."""
    return os.strerror(errno.ENOSPC) in str(error)


def _reach(config: dict[str, Any]) -> dict[str, str]:
    """Settings that name this node's folders of data and language model, which are there and can be opened.

    Raises:
        PlaceError: If one is not, which says nothing about the trial's own setting.
    """
    here = overrides_here(config["base"], config["served"])
    places = config["base"] | here
    try:
        Dataset.open(places[DATA])
        lm_store.facts(places[LANGUAGE_MODEL])
    except (DataError, LanguageModelError) as error:
        raise PlaceError(str(error)) from error
    return here


@functools.cache
def _set_aside_what_stays() -> None:
    """Once per worker: the collection after each trial need not go through half a million objects of the libraries.

    That took 0.3 s, most of what a trial cost beside its training.
    """
    gc.collect()
    gc.freeze()


def run_trial(config: dict[str, Any]) -> None:
    """Train the trial that the searcher chose, from its newest checkpoint if it has one.

    A deterministic failure is reported and recorded. What is no fault of the trial and would meet others, too, is
    reported for the search to stop: no space, no storage, data or language model out of reach. Anything else is raised,
    so that Ray tries again.

    Args:
        config: ``number`` and ``overrides`` from the searcher; ``experiment`` (a path or a URI), ``id``, ``name``,
            ``base``, ``served``, ``objectives``, ``train``, ``threads``, ``cache_gb`` and ``keep`` from the search.
    """
    if config.get(ONLY_RECORD):
        return
    # How long Tune waits for a stopped trial to write its files before it starts another worker for the next one.
    os.environ.setdefault("TUNE_FUNCTION_THREAD_TIMEOUT_S", "30")
    if DOOMED in config:
        tune.report({"failed": config[DOOMED]})
        return
    copy: TrialCopy | None = None
    if is_remote(config["experiment"]):
        copy = TrialCopy(config["experiment"], config["id"], f"{config['number']:04d}_{config['name']}")
        out_dir, av_store = copy.folder, copy.av_store
    else:
        experiment = Path(config["experiment"])
        out_dir, av_store = trial_folder(experiment, config["number"], config["name"]), experiment / AV_STORE
    out_dir.mkdir(parents=True, exist_ok=True)
    (out_dir / "error.txt").unlink(missing_ok=True)  # of an attempt that this one repeats
    module, _, name = config["train"].partition(":")

    def report(metrics: dict[str, Any], checkpoint: Path | None) -> None:
        for name in config["objectives"]:
            if not math.isfinite(metrics.get(name, 0.0)):
                raise NonFiniteLossError(f"{name} became {metrics[name]} in epoch {metrics['epoch']}")
        if copy is not None and checkpoint is not None:
            copy.save(metrics, checkpoint)  # before the report: what the search knows of, any node can go on from
        saved()
        tune.report(metrics)
        training()

    try:
        import torch

        training()
        torch.set_num_threads(config["threads"])
        trial = TrialConfig.from_overrides(config["base"], config["overrides"])
        if copy is None:
            (out_dir / "config.json").write_text(trial.to_json())
        else:
            for metrics in copy.fetch(trial):  # a driver that died may not have noted all of them
                tune.report(metrics)
        train = getattr(importlib.import_module(module), name)
        _set_aside_what_stays()
        train(
            TrialConfig.from_overrides(config["base"], config["overrides"], _reach(config)),
            report,
            out_dir=out_dir,
            resume_from=latest_checkpoint(out_dir),
            av_store=av_store,
            cache_gb=config["cache_gb"],
            keep=config["keep"],
        )
    except Exception as error:
        if is_out_of_space(error):
            tune.report({NO_SPACE: True})  # no fault of the trial: the search stops and can be resumed
            return
        if isinstance(error, StorageError):
            copy = None  # what could not be sent stays on this node's disk
            tune.report({NO_STORAGE: str(error)})
            return
        if isinstance(error, (PlaceError, DataError)):  # no setting can spoil the data
            tune.report({OUT_OF_REACH: f"node {socket.gethostname()}: {first_line(error)}"})
            return
        (out_dir / "error.txt").write_text(traceback.format_exc())
        if copy is not None:
            with contextlib.suppress(StorageError):  # the error is what matters
                copy.send("error.txt")
        if not is_deterministic(error):
            raise
        tune.report({"failed": f"{type(error).__name__}: {first_line(error)}"})
    finally:
        saved()
        if copy is not None:
            copy.close()


class TrialWorker(wrap_function(run_trial)):  # type: ignore[misc]
    """Ray's worker of trials, which saves before it leaves."""

    def setup(self, config: dict[str, Any]) -> None:
        """Called once, in the main thread, before the first trial."""
        save_before_leaving()
        super().setup(config)
