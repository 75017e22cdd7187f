"""Being the only one at an experiment: its driver, or who copies it."""

import contextlib
import shutil
from collections.abc import Iterator

from filelock import FileLock, Timeout
from optuna.trial import TrialState

from deepmlf.errors import SearchError
from deepmlf.training.reports import read_reports
from deepmlf.tune.experiment.layout import LOCK, TRIALS, trial_folders
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.remote import pull
from deepmlf.tune.experiment.stop_request import StopRequest
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.experiment.study import record_epoch, repair_journal
from deepmlf.tune.experiment.uploader import Uploader


@contextlib.contextmanager
def alone_at(experiment: StoredExperiment, *, quiet: bool) -> Iterator[Lease | None]:
    """Be the only one at an experiment, with study and files as the last driver left them.

    Yields the lease of one on remote storage, to which changes are sent until the end. Wishes to stop that were meant
    for an earlier driver are withdrawn at the start, those for this one at the end.

    Raises:
        SearchError: If another driver is at it.
    """
    folder, remote, request = experiment.folder, experiment.place.remote, StopRequest(experiment.place)
    try:
        with FileLock(folder / LOCK, timeout=0):
            if remote is None:
                with request.withdrawn():
                    repair_journal(folder)
                    yield None
                return
            with Lease(remote, quiet=quiet) as lease, request.withdrawn():
                pull(remote, folder)  # another driver may have gone on until now
                repair_journal(folder)
                uploader = Uploader(folder, remote, lease)
                uploader.compare()
                reconcile(experiment)
                with uploader:
                    yield lease
    except Timeout:
        raise SearchError(f"{folder}: another driver is running this search") from None


def reconcile(experiment: StoredExperiment) -> None:
    """Bring study and trials' files together where another machine's last upload was cut short.

    The files may be ahead. What they know of unfinished trials enters the study; trials that it does not know at all
    will be asked for again, maybe with other settings, so nothing may stay of them.
    """
    study, remote = experiment.study, experiment.place.remote
    trials = study.get_trials(deepcopy=False)
    for number, folder in list(trial_folders(experiment.folder)):
        if number >= len(trials) or trials[number].state == TrialState.WAITING:
            shutil.rmtree(folder)
            if remote is not None:
                remote.delete(f"{TRIALS}/{folder.name}")
        elif trials[number].state == TrialState.RUNNING:
            for report in read_reports(folder):
                record_epoch(study, experiment.objectives, number, report)
