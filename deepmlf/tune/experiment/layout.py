"""An experiment on disk: the name of every file, and who writes it.

::

    search.json          the manifest, once                                          driver
    optuna.journal       the study; with --study-storage a database has it           driver
    optuna.journal.N.M   in a bucket, what the N-th resume has it go on with at M    driver
    space.py             the source of the space, to be read by people               driver
    trials/0001_first/   see below
    trials/events.…      what TensorBoard shows of no single trial                   driver
    av_encoders/         first stages that trials share                              workers
    ray/                 Ray's own records                                           driver
    results.parquet      one row per trial and fusion epoch                          `analyze`
    report/index.html                                                                `analyze`
    confirm-1-4-x5/      an experiment that trains the best settings again           `confirm`
    .lock .driver.json   say that a driver is at it
    .stop                the wish that it leave                                      `stop`
    .copying             in a copy that is not whole yet                             `copy`
    .taken.json          which versions this machine's copy of a bucket has

A trial's folder has ``config.json``, ``error.txt``, ``checkpoints/``, ``best/`` and in a bucket ``reported.jsonl``
from its worker; ``metrics.jsonl`` and TensorBoard's events from the driver. No file has two writers. Names that a
trial has also where no search is, as after ``deepmlf train``, are those of :mod:`deepmlf.training.checkpoints.files`.
"""

import re
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from deepmlf.training.checkpoints.files import BEST, CHECKPOINTS, CONFIG, METRICS, STATE

MANIFEST = "search.json"
JOURNAL = "optuna.journal"
SPACE = "space.py"
TRIALS = "trials"
AV_STORE = "av_encoders"
RAY = "ray"
RAY_RECORDS = "experiment_state-*.json"
RESULTS = "results.parquet"
REPORT = "report"
PAGE = f"{REPORT}/index.html"
LOCK = ".lock"
LEASE = ".driver.json"
STOP = ".stop"
COPYING = ".copying"
TAKEN = ".taken.json"
CONFIRMATIONS = "confirm-*"
VERDICT = "confirm.json"
ERROR = "error.txt"
REPORTED = "reported.jsonl"
"""What a worker has reported of a trial, as a driver that dies takes with it what it has not sent up yet."""

_OF_WORKERS = {CHECKPOINTS, BEST, AV_STORE, REPORTED}
_GROWS = re.compile(rf"{re.escape(JOURNAL)}|{re.escape(METRICS)}|events\.out\.tfevents.*")
_CHECKPOINT = re.compile(rf"{CHECKPOINTS}/(epoch_\d+)/.+")
_JOURNAL_PART = re.compile(rf"{re.escape(JOURNAL)}(?:\.(\d+)\.(\d+))?")
_TRIAL = re.compile(r"(\d{4,})_.+")


def trial_name(number: int, experiment: str) -> str:
    """The name of a trial's folder, the same on every resume.

    Args:
        number: The trial's number in the study.
        experiment: The name that the experiment began with.
    """
    return f"{number:04d}_{experiment}"


def trial_folder(experiment: Path, number: int) -> Path:
    """The folder of a trial, also of an experiment whose own folder has another name by now."""
    trials = experiment / TRIALS
    folder = trials / trial_name(number, experiment.name)
    return folder if folder.is_dir() else next(trials.glob(f"{number:04d}_*"), folder)


def trial_folders(experiment: Path) -> Iterator[tuple[int, Path]]:
    """Number and folder of every trial that has one."""
    for folder in (experiment / TRIALS).glob("*_*"):
        match = _TRIAL.fullmatch(folder.name)
        if match:
            yield int(match[1]), folder


def part_name(name: str, generation: int, offset: int) -> str:
    """What the part of a journal is called that a driver has written from an offset on, by the journal's path."""
    return f"{name}.{generation:04d}.{offset:012d}" if generation or offset else name


def part_of(name: str) -> tuple[str, int, int] | None:
    """The journal that a file is a part of, the generation of the driver, and the offset; None if it is none."""
    path = PurePosixPath(name)
    match = _JOURNAL_PART.fullmatch(path.name)
    return match and (str(path.with_name(JOURNAL)), int(match[1] or 0), int(match[2] or 0))


def confirmation_name(trials: list[int], seeds: int) -> str:
    """The name of the experiment inside another one that trains some of its trials again."""
    return f"confirm-{'-'.join(map(str, trials))}-x{seeds}"


def is_of_workers(name: PurePath) -> bool:
    """Whether a worker writes a file, by its path in the experiment."""
    return not _OF_WORKERS.isdisjoint(name.parts)


def is_of_the_driver(name: PurePath) -> bool:
    """Whether the driver writes a file that others need: no lock, nothing half written, nothing of Ray's logs."""
    if _is_passing(name) or is_of_workers(name):
        return False
    return name.parts[0] != RAY or name.match(RAY_RECORDS)


def is_of_the_experiment(name: PurePath) -> bool:
    """Whether a file belongs to an experiment wherever that is: no lock, nothing half written, no log of Ray's."""
    return not _is_passing(name) and (RAY not in name.parts or name.match(RAY_RECORDS))


def _is_passing(name: PurePath) -> bool:
    """Whether a file is a lock or half written."""
    return any(part.startswith(".") for part in name.parts) or name.suffix == ".lock"


def only_grows(name: PurePath) -> bool:
    """Whether a file only ever gets longer, so that of two copies the longer one is the newer."""
    return _GROWS.fullmatch(name.name) is not None


def checkpoint_of(name: str) -> str | None:
    """The checkpoint that a file of a trial's folder belongs to, by its path there; None if to none."""
    match = _CHECKPOINT.fullmatch(name)
    return match[1] if match else None


def complete_checkpoint(name: str) -> str | None:
    """The checkpoint that is whole because a file of a trial's folder is there; None if the file says nothing."""
    found = checkpoint_of(name)
    return found if found and PurePath(name).name == STATE else None


def takes_part_in_predictions(name: str) -> bool:
    """Whether a file of a trial's, or of an exported model's, folder is needed to predict, by its path there."""
    return name.startswith(f"{BEST}/") or ("/" not in name and not only_grows(PurePath(name)))


__all__ = ["BEST", "CHECKPOINTS", "CONFIG", "METRICS", "STATE"]
