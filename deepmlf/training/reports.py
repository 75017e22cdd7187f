"""What a trial reports after an epoch, and which of its epochs is the best."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from deepmlf.data.task import Direction
from deepmlf.errors import DamagedError, first_line
from deepmlf.seal import sealed, unsealed
from deepmlf.training.checkpoints.files import METRICS
from deepmlf.training.metrics import is_better

FIDELITY = "fusion_epoch"
"""Fusion epochs: what trials are compared at. Stages before fusion have none."""
VALID = "valid/"
"""Section of validation metrics."""
TRAINED_PARAMETERS = "model/trained_parameters"
EPOCH_SECONDS = "time/epoch_seconds"
LANGUAGE_LOSS, FROZEN_LANGUAGE_LOSS = "language/loss", "language/frozen_loss"
"""Next-token losses on the validation split: of the model, and of the language model by itself."""
MISSING_BLOCKS = "curriculum/missing_blocks"
"""MM blocks that have not joined yet; absent once all have."""
AV_REUSED = "curriculum/av_reused"
"""1 in the one report of a stage that was taken from the store instead of trained."""
BASELINE_SECONDS = "time/baselines_seconds"
"""What the language model's baselines took, beside the epoch's own seconds."""
LM_STATES, LM_STATES_AND_FEATURES = "language model", "language model, audio and vision"
TEXT_HEAD = "text head"
_BASELINE = "baseline/"
_BASELINES = {"language_model": LM_STATES, "language_model_av": LM_STATES_AND_FEATURES, "text_head": TEXT_HEAD}
"""Names of baselines by that which they have in a report, as in ``baseline/text_head/MAE``."""

Baselines = dict[str, dict[str, float]]
"""Metrics of each baseline by its name."""
_POSITION = ("stage", "epoch", FIDELITY, "finished")


@dataclass(frozen=True)
class EpochReport:
    """One epoch of a trial.

    >>> report = EpochReport({"stage": "fusion", "epoch": 6, "fusion_epoch": 1, "valid/MAE": 0.7, "train/loss": 1.2})
    >>> report.fidelity, report.valid
    (1, {'MAE': 0.7})
    """

    metrics: Mapping[str, Any]
    """Flat, as reported: where the trial stands, and measurements under ``section/name``."""

    @classmethod
    def among(cls, result: Mapping[str, Any]) -> "EpochReport | None":
        """What the trial itself has reported in a result to which others added; None if that is no epoch."""
        own = {name: value for name, value in result.items() if name in _POSITION or "/" in name}
        return cls(own) if "epoch" in own else None

    @property
    def stage(self) -> str:
        """Name of the curriculum's stage."""
        return str(self.metrics["stage"])

    @property
    def epoch(self) -> int:
        """Finished epochs of all stages."""
        return int(self.metrics["epoch"])

    @property
    def fidelity(self) -> int | None:
        """Finished fusion epochs; None in a stage before fusion."""
        return self.metrics.get(FIDELITY)

    @property
    def is_whole(self) -> bool:
        """Whether the whole model was in use, so that the epoch may be the trial's best one."""
        return self.fidelity is not None and not self.metrics.get(MISSING_BLOCKS)

    @property
    def is_last(self) -> bool:
        """Whether the trial ends with it, at full length or by its own patience."""
        return "finished" in self.metrics

    @property
    def valid(self) -> dict[str, float]:
        """Validation metrics by their short names; none before fusion."""
        return {name.removeprefix(VALID): value for name, value in self.metrics.items() if name.startswith(VALID)}

    @property
    def baselines(self) -> Baselines:
        """Validation metrics of simple models that the trial has beside its own."""
        found: Baselines = {}
        for name, value in self.metrics.items():
            if name.startswith(_BASELINE):
                reported, _, metric = name.removeprefix(_BASELINE).partition("/")
                found.setdefault(_BASELINES.get(reported, reported), {})[metric] = value
        return found

    def get(self, name: str, default: Any = None) -> Any:
        """A measurement by its whole name."""
        return self.metrics.get(name, default)

    def is_better(self, than: "EpochReport | None", metric: str, direction: Direction) -> bool:
        """Whether this epoch of the whole model beats another one, or is the first that has the metric.

        Args:
            than: The best epoch so far.
            metric: Whole name of the metric that decides, e.g. ``valid/MAE``.
            direction: The one in which it is better.
        """
        value = self.metrics.get(metric) if self.is_whole else None
        return value is not None and is_better(value, None if than is None else than.metrics[metric], direction)


def best_epoch(reports: Iterable[EpochReport], metric: str, direction: Direction) -> EpochReport | None:
    """The first of a trial's epochs of the whole model that no other one beats; None if none has the metric.

    Args:
        reports: In their order.
        metric: Whole name of the metric that decides.
        direction: The one in which it is better.
    """
    best: EpochReport | None = None
    for report in reports:
        if report.is_better(best, metric, direction):
            best = report
    return best


def baseline_metrics(baselines: Baselines) -> dict[str, float]:
    """Simple models' metrics as a report has them: `EpochReport.baselines` gives them back."""
    reported = {name: of for of, name in _BASELINES.items()}
    return {
        f"{_BASELINE}{reported[name]}/{metric}": value
        for name, metrics in baselines.items()
        for metric, value in metrics.items()
    }


def baselines_among(reports: Sequence[EpochReport], metric: str, direction: Direction) -> Baselines:
    """The baselines of a trial: the text head's of its best epoch, others of whichever epoch has them.

    Args:
        reports: The trial's, in their order.
        metric: Whole name of the metric by which the best epoch is picked.
        direction: The one in which it is better.
    """
    found: Baselines = {}
    for report in reports:
        found |= report.baselines
    found.pop(TEXT_HEAD, None)
    best = best_epoch(reports, metric, direction)
    of_best = {} if best is None else best.baselines
    return found | ({TEXT_HEAD: of_best[TEXT_HEAD]} if TEXT_HEAD in of_best else {})


@dataclass(frozen=True)
class Seconds:
    """What trials have taken."""

    total: float = 0.0
    before_fusion: float = 0.0
    """Of it, in stages before fusion, which no fidelity counts."""

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.total + other.total, self.before_fusion + other.before_fusion)


def seconds_spent(reports: Iterable[EpochReport]) -> list[float | None]:
    """The seconds that a trial had taken by the end of each of its epochs; None from one that was not timed on."""
    # A stage that was taken from the store is reported once, without measurements.
    spent = (report.get(EPOCH_SECONDS, 0.0 if report.get(AV_REUSED) else None) for report in reports)
    return list(accumulate(spent, lambda total, more: None if total is None or more is None else total + more))


def seconds_of(reports: Sequence[EpochReport]) -> Seconds:
    """What a trial has taken; nothing from an epoch on that was not timed."""
    spent = [seconds for seconds in seconds_spent(reports) if seconds is not None]
    before = [seconds for seconds, report in zip(spent, reports, strict=False) if report.fidelity is None]
    return Seconds(max(spent, default=0.0), max(before, default=0.0))


def read_reports(folder: Path) -> list[EpochReport]:
    """The recorded epochs of a trial, in order; a last line torn by a kill is left out.

    Raises:
        DamagedError: If another line is not as it was written.
    """
    reports = {report.epoch: report for report in map(EpochReport, read_lines(folder / METRICS))}
    return [reports[epoch] for epoch in sorted(reports)]


def line_of(metrics: Mapping[str, Any]) -> str:
    """What an epoch reported as a line of a file that `read_lines` reads."""
    return json.dumps(sealed(metrics)) + "\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """What epochs reported, from a file of lines; a last one torn by a kill is left out, and no file has none.

    Raises:
        DamagedError: If another line is not as it was written.
    """
    content = path.read_bytes() if path.is_file() else b""
    read: list[dict[str, Any]] = []
    for number, line in enumerate(content[: content.rfind(b"\n") + 1].splitlines(), 1):
        try:
            metrics = unsealed(json.loads(line))
            int(metrics["epoch"])
        except (ValueError, TypeError, KeyError) as error:
            raise DamagedError(
                f"{path}: line {number} is damaged ({type(error).__name__}: {first_line(error)}); put back a copy of "
                "the file, or take the line out to do without that epoch"
            ) from None
        read.append(metrics)
    return read
