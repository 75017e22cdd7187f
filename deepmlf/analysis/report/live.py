"""The report of an experiment, made anew when what it is made of has changed."""

import gzip
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmlf.analysis.records import load_records
from deepmlf.analysis.report.page import render
from deepmlf.analysis.results import results_of
from deepmlf.analysis.standing import standing_of
from deepmlf.errors import first_line
from deepmlf.places import Place
from deepmlf.tune.experiment.layout import CONFIRMATIONS, JOURNAL, MANIFEST, METRICS, TRIALS, VERDICT
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment

_SHARE = 0.2  # of the time that may go into pages: whoever searches on this machine needs the rest


@dataclass(frozen=True)
class LiveReport:
    """One state of the page."""

    version: str
    """Another one for each state, also across servers."""
    html: bytes
    gzipped: bytes


class LivePage:
    """The report of an experiment, finished, stopped or running, as it is now.

    Requests never wait for it: one thread looks for changes and renders, the others take what is there.

    Args:
        place: The experiment's folder or URI.
        study_storage: URL of the study's database, if its password is needed.
        every: Seconds between looks, at least; after a page that took long to make more.

    Raises:
        SearchError: If there is no experiment, or it cannot be read.
    """

    def __init__(self, place: str | Path | Place, study_storage: str | None = None, *, every: float = 5.0) -> None:
        self._place, self._study_storage, self.every = Place.of(place), study_storage, every
        self._started, self._count, self._pause = time.time_ns(), 0, every
        self.fault: str | None = None
        """Why the last look failed; None if it did not."""
        experiment = open_experiment(self._place, self._study_storage)
        self._made_from = sources_of(experiment)
        self.report = self._render(experiment)

    def refresh(self) -> bool:
        """Look for changes, and say whether there is a new page; after a fault the last page stays."""
        try:
            experiment = open_experiment(self._place, self._study_storage)
            made_from = sources_of(experiment)
            if is_new := made_from != self._made_from:
                self.report = self._render(experiment)
        except Exception as error:  # whatever it is, the thread that looks must look again
            self.fault = first_line(error)
            return False
        self._made_from, self.fault = made_from, None
        return is_new

    def keep(self, until: threading.Event) -> None:
        """Keep the page up to date until an event is set."""
        while not until.wait(self._pause):
            self.refresh()

    def _render(self, experiment: StoredExperiment) -> LiveReport:
        started = time.perf_counter()
        table = results_of(experiment)
        records = load_records(experiment, table)
        standing = standing_of(experiment, table, records)
        self._count += 1
        version = f"{self._started}-{self._count}"
        html = render(records, standing, live={"version": version, "seconds": self.every}).encode()
        gzipped = gzip.compress(html, compresslevel=1)
        self._pause = max(self.every, (time.perf_counter() - started) * (1 / _SHARE - 1))
        return LiveReport(version, html, gzipped)


def sources_of(experiment: StoredExperiment) -> object:
    """What tells one state of an experiment from another: sizes and times of what its report is made of.

    Of a study in a database the trials themselves.
    """
    folder = experiment.folder
    paths = [folder / MANIFEST, folder / JOURNAL, *folder.glob(f"{CONFIRMATIONS}/{VERDICT}")]
    paths += (folder / TRIALS).glob(f"*/{METRICS}")
    stats: dict[str, Any] = {}
    for path in paths:
        try:
            found = path.stat()
        except FileNotFoundError:
            continue
        stats[str(path)] = found.st_size, found.st_mtime_ns
    if not (folder / JOURNAL).exists():
        stats["study"] = [(t.number, t.state, len(t.intermediate_values)) for t in experiment.trials()]
    return stats
