"""An experiment as analyses read it: one record per trial, taken from its table and its study."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import optuna
import pyarrow as pa
from optuna.trial import FrozenTrial, TrialState, create_trial

from deepmlf.analysis.distinct import repeats_of, settings_of
from deepmlf.analysis.results import results_of
from deepmlf.training.effective import EffectiveSetting
from deepmlf.training.reports import (
    EPOCH_SECONDS,
    FIDELITY,
    TEXT_HEAD,
    Baselines,
    EpochReport,
    baselines_among,
    best_epoch,
)
from deepmlf.tune.experiment.manifest import Manifest
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.experiment.study import PRIOR, RESTARTS, WARM_START, Excerpt
from deepmlf.tune.objective import Objective
from deepmlf.tune.settings import SearchSettings

LISTED_BEST, LISTED_LATEST = 200, 50
"""How many trials a page shows one by one: more would make it heavy, and nobody would read them."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial, as far as it got."""

    number: int
    state: str
    params: dict[str, Any]
    """What the search drew, in its order."""
    settings: dict[str, Any]
    """The whole configuration under dotted names; empty if none could be built."""
    curve: dict[int, float]
    """The first objective by fusion epoch."""
    value: float | None
    """The first objective in the best epoch, of trials that are complete or were stopped early."""
    best: dict[str, Any]
    """What the fusion epoch reported that has the best first objective; empty before the first one."""
    seconds: float | None
    seconds_per_epoch: float | None
    """Of a fusion epoch, mean."""
    seconds_per_utterance: float | None
    """Of training, mean over fusion epochs."""
    fail_reason: str | None
    restarts: list[str]
    setting: EffectiveSetting | None = None
    """What it trains; None if no configuration could be made of what was drawn."""
    repeats: int | None = None
    """The number of the trial that it repeats, with the same seed, too."""
    is_prior: bool = False
    """Whether its parameters were given rather than drawn."""
    seconds_before_fusion: float | None = None
    """Of its seconds, those of stages before fusion."""
    reports: tuple[EpochReport, ...] = ()
    """What it reported in each fusion epoch."""

    @property
    def epochs(self) -> int:
        """Fusion epochs spent."""
        return max(self.curve, default=0)

    @property
    def is_complete(self) -> bool:
        """Whether it was trained to its end: at full fidelity, or until its own patience ran out."""
        return self.state == TrialState.COMPLETE.name

    @property
    def drawn(self) -> dict[str, Any]:
        """What was drawn, with the value in use where the language model had no room for the one drawn."""
        return {name: self.settings.get(name, value) for name, value in self.params.items()}


@dataclass(frozen=True, eq=False)
class Records:
    """An experiment's trials and what they were asked for."""

    manifest: Manifest
    objectives: tuple[Objective, ...]
    trials: list[TrialRecord]
    study: optuna.Study
    """Of it, to be read alone. Trials taken over from an earlier experiment are failed ones without values in it, so
    that plots leave them out and all others keep their numbers."""

    @property
    def settings(self) -> SearchSettings:
        """What the search was asked to do."""
        return self.manifest.settings

    @property
    def ranked(self) -> list[TrialRecord]:
        """Trials that came to something, stopped early or not, best first by the first objective."""
        values = [(trial.value, trial) for trial in self.trials if trial.value is not None]
        values.sort(key=lambda pair: pair[0], reverse=self.objectives[0].direction == "maximize")
        return [trial for _, trial in values]

    @property
    def complete(self) -> list[TrialRecord]:
        """The complete ones among them."""
        return [trial for trial in self.ranked if trial.is_complete]

    @property
    def counted(self) -> list[TrialRecord]:
        """The same, each training once."""
        return [trial for trial in self.complete if trial.repeats is None]

    @cached_property
    def params(self) -> list[str]:
        """Names of all that was drawn."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.params))

    @cached_property
    def listed(self) -> list[TrialRecord]:
        """The trials that a page has room for one by one, in their order: the best and the latest ones."""
        if len(self.trials) <= LISTED_BEST + LISTED_LATEST:
            return self.trials
        numbers = {trial.number for trial in self.ranked[:LISTED_BEST]}
        numbers |= {trial.number for trial in self.trials[-LISTED_LATEST:]}
        return [trial for trial in self.trials if trial.number in numbers]

    @property
    def listed_line(self) -> str:
        """What to say where only these are shown; nothing if they are all."""
        if len(self.listed) == len(self.trials):
            return ""
        return f"Of {len(self.trials)} trials, the {LISTED_BEST} best and the {LISTED_LATEST} latest. "


def load_records(experiment: StoredExperiment, table: pa.Table | None = None) -> Records:
    """The trials of an experiment.

    Args:
        experiment: The experiment.
        table: What `results_of` returned for it, if that is known.
    """
    stored = experiment.study
    frozen = stored.get_trials(deepcopy=False)
    rows: dict[int, list[dict[str, Any]]] = {}
    for row in (results_of(experiment) if table is None else table).to_pylist():
        rows.setdefault(row["trial"], []).append(row)
    study = Excerpt(
        optuna.create_study(directions=stored.directions),
        [
            _nothing(trial.number) if trial.state == TrialState.WAITING or WARM_START in trial.user_attrs else trial
            for trial in frozen
        ],
    )
    own = [frozen[number] for number in sorted(rows)]
    settings = settings_of(experiment, own)
    repeats = repeats_of(settings, own)
    trials = [
        replace(
            _record(rows[trial.number], trial, experiment.objectives[0]),
            setting=settings.get(trial.number),
            repeats=repeats.get(trial.number),
        )
        for trial in own
    ]
    return Records(experiment.manifest, experiment.objectives, trials, study)


def _nothing(number: int) -> FrozenTrial:
    """A trial that came to nothing, under a number."""
    trial = create_trial(state=TrialState.FAIL)
    trial.number = number
    return trial


def _record(rows: list[dict[str, Any]], trial: FrozenTrial, objective: Objective) -> TrialRecord:
    reports = [EpochReport(row) for row in rows if row[FIDELITY] is not None]
    best = best_epoch(reports, objective.name, objective.direction)
    last = rows[-1]
    settings = {name: _plain(value) for name, value in last.items() if "." in name and "/" not in name}
    rates = [report.get("speed/utterances_per_second") for report in reports]
    return TrialRecord(
        number=last["trial"],
        state=last["state"],
        params=trial.params,
        settings=settings if any(value is not None for value in settings.values()) else {},
        curve={row[FIDELITY]: row[objective.name] for row in rows if row[FIDELITY] is not None},
        value=_value(last, best, objective),
        best={} if best is None else dict(best.metrics),
        seconds=last["seconds"],
        seconds_before_fusion=last["seconds_before_fusion"],
        seconds_per_epoch=_mean([report.get(EPOCH_SECONDS) for report in reports]),
        seconds_per_utterance=_mean([1 / rate if rate else None for rate in rates]),
        fail_reason=last["fail_reason"],
        restarts=trial.user_attrs.get(RESTARTS, []),
        is_prior=bool(trial.user_attrs.get(PRIOR)),
        reports=tuple(reports),
    )


def _value(last: dict[str, Any], best: EpochReport | None, objective: Objective) -> float | None:
    if last["state"] == TrialState.PRUNED.name:  # releases up to 0.1 gave it its last value
        return last["objective"] if best is None else best.get(objective.name)
    return last["objective"] if last["state"] == TrialState.COMPLETE.name else None


def _plain(value: Any) -> Any:
    """A value of the table as the configuration has it: lists are JSON there."""
    return json.loads(value) if isinstance(value, str) and value.startswith("[") else value


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def baselines_of(experiment: StoredExperiment, ranked: Iterable[FrozenTrial]) -> dict[str, float]:
    """The first objective of each baseline that has it, by name.

    Of each language model those of its best trial count, which may use some of its layers alone; of text heads that of
    the best trial.

    Args:
        experiment: The experiment.
        ranked: Its trials, best first.
    """
    first, manifest = experiment.objectives[0], experiment.manifest
    found: Baselines = dict(manifest.baselines)
    text: Baselines = {}
    known: set[str] = set()
    for place, trial in enumerate(ranked):
        if len(known) == len(manifest.settings.all_lms):
            break
        lm = experiment.config_of(trial).model.language_model
        if lm in known:
            continue
        reports = experiment.reports_of(trial)
        of_trial = baselines_among(reports, first.name, first.direction)
        own = of_trial.pop(TEXT_HEAD, None)
        if place == 0 and own is not None:
            text = {TEXT_HEAD: own}
        if of_trial:
            known.add(lm)
            found |= {manifest.baseline_name(name, lm): metrics for name, metrics in of_trial.items()}
    return {name: metrics[first.short] for name, metrics in (found | text).items() if first.short in metrics}
