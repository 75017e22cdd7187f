"""The record of one trial: its epochs as JSON lines and as TensorBoard events, and its best epoch so far.

Kept by ``deepmlf train`` for its own trial, and by a search's driver for each of its trials.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from deepmlf.config.trial import TrialConfig
from deepmlf.data.task import Direction
from deepmlf.events.dashboard import best_over
from deepmlf.events.note import trial_note
from deepmlf.events.writer import TrialWriter, counts_all_epochs, step_of
from deepmlf.files import drop_torn_line
from deepmlf.training.checkpoints.files import METRICS
from deepmlf.training.curriculum import Underway, epoch_words, underway
from deepmlf.training.reports import VALID, EpochReport, best_epoch, line_of, read_reports


class TrialRecorder:
    """Records a trial as it reports, across restarts of who records.

    Args:
        folder: The trial's, made if missing.
        config: The trial.
        select_by: Whole name of the metric that picks the best epoch, e.g. ``valid/MAE``.
        direction: The one in which it is better.
        also_shown: Whole names of what is shown of the best epoch beside its validation metrics.
    """

    def __init__(
        self,
        folder: Path,
        config: TrialConfig,
        select_by: str,
        direction: Direction,
        also_shown: Collection[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        drop_torn_line(folder / METRICS)
        self.folder = folder
        self.reports = read_reports(folder)
        self._config, self._select_by, self._also_shown = config, select_by, also_shown
        self._direction = direction
        self._best = best_epoch(self.reports, select_by, direction)
        self._writer = self._open_writer()

    @property
    def best(self) -> dict[str, float]:
        """What is shown of the best epoch, by short names; empty before the first fusion epoch."""
        return {} if self._best is None else self._shown(self._best)

    @property
    def underway(self) -> Underway:
        """Where the trial stands."""
        return underway(self._config, self.reports)

    @property
    def last_epoch(self) -> str:
        """What people call the epoch that was reported last."""
        return epoch_words(self._config, self.reports)

    def start(self, shown: Mapping[str, Any], overrides: Mapping[str, Any]) -> None:
        """Show the trial in TensorBoard before it reports; a restart adds nothing.

        Args:
            shown: Its row in the HParams tab, by dotted names.
            overrides: What it takes to train it alone.
        """
        self._writer.start(shown, trial_note(self._config, overrides))

    def add(self, report: EpochReport) -> bool:
        """Record one epoch; False if it is known already (a resumed trial reports its last epoch again)."""
        if self.reports and report.epoch <= self.reports[-1].epoch:
            return False
        self.reports.append(report)
        with (self.folder / METRICS).open("a") as file:
            file.write(line_of(report.metrics))
            file.flush()
            os.fsync(file.fileno())  # before the study ends the trial: it must not know of more epochs
        if report.is_better(self._best, self._select_by, self._direction):
            self._best = report
        self._writer.write(report, self.best)
        return True

    def close(self, state: str) -> None:
        """End the trial in TensorBoard; its state is COMPLETE, PRUNED or FAIL."""
        if self._best is None:
            self._writer.close(state, {})
            return
        value = self._best.metrics[self._select_by]
        over = best_over(self._config, self._select_by.rpartition("/")[2])
        self._writer.close(state, self._best.metrics, {tag: (step, value) for tag, step in over.items()})

    def _open_writer(self) -> TrialWriter:
        if not self.reports:
            return TrialWriter(self.folder)
        is_earlier, last = counts_all_epochs(self.folder), self.reports[-1]
        # What an earlier writer wrote after the last recorded epoch is hidden, so that curves stay one line.
        writer = TrialWriter(self.folder, 1 if is_earlier else step_of(last) + 1)
        best: EpochReport | None = None
        for report in self.reports:
            best = report if report.is_better(best, self._select_by, self._direction) else best
            # That hides the later epochs of stages before fusion, too, which have steps of their own.
            if is_earlier or (report.fidelity is None and step_of(report) > step_of(last)):
                writer.write(report, {} if best is None else self._shown(best))
        return writer

    def _shown(self, report: EpochReport) -> dict[str, float]:
        return {
            name.rpartition("/")[2]: value
            for name, value in report.metrics.items()
            if name.startswith(VALID) or name in self._also_shown
        }
