"""An experiment that is there: opened once per command, and handed on."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import DamagedError, SearchError
from deepmlf.places import Place
from deepmlf.training.effective import EffectiveSetting, effective_setting
from deepmlf.training.reports import EpochReport, Seconds, read_reports, seconds_of
from deepmlf.tune.experiment.layout import JOURNAL, METRICS, TRIALS, trial_folder, trial_folders
from deepmlf.tune.experiment.manifest import Manifest, read_manifest
from deepmlf.tune.experiment.remote import refresh
from deepmlf.tune.experiment.study import OVERRIDES, open_study, own_trials
from deepmlf.tune.objective import Objective, make_objectives


@dataclass(frozen=True)
class StoredExperiment:
    """An experiment with its manifest read; its study is opened when it is first asked for."""

    place: Place
    manifest: Manifest
    study_url: str | None = None
    """URL of the study's database, with its password; None takes what the manifest and the environment say."""
    made_objectives: tuple[Objective, ...] | None = None
    """Those of an experiment that optimises the same, if they are there already."""

    @property
    def folder(self) -> Path:
        """Its folder on this machine."""
        return self.place.folder

    @cached_property
    def objectives(self) -> tuple[Objective, ...]:
        """What its search optimises, with directions."""
        return self.made_objectives or make_objectives(self.manifest.settings.objectives, self.manifest.own_metrics)

    @cached_property
    def study(self) -> optuna.Study:
        """Its study.

        Raises:
            SearchError: If there is none, it is damaged, or its database cannot be reached.
        """
        settings = self.manifest.settings
        study = open_study(self.folder, settings, self.study_url)
        if self.place.remote is None and settings.study_storage is None:  # others may lag: see `reconcile`
            self._require_end_of(study)
        return study

    def _require_end_of(self, study: optuna.Study) -> None:
        known, there = len(study.get_trials(deepcopy=False)), [number for number, _ in trial_folders(self.folder)]
        if any(number >= known for number in there):
            raise SearchError(
                f"{self.folder / JOURNAL}: has lost its end: it knows {known} trials, but {TRIALS}/ has number "
                f"{max(there)}; put back a copy of it, or take away the folders of trials that it does not know"
            )

    def with_manifest(self, manifest: Manifest) -> "StoredExperiment":
        """The same experiment with another manifest; what it optimises stays."""
        return replace(self, manifest=manifest, made_objectives=self.objectives)

    def trials(self) -> list[FrozenTrial]:
        """Its trials as they are now: asked for, and not taken over from an earlier experiment."""
        return [trial for trial in own_trials(self.study) if trial.state != TrialState.WAITING]

    def config_of(self, trial: FrozenTrial) -> TrialConfig:
        """The configuration of one of its trials, of which the space has made something."""
        return TrialConfig.from_overrides(self.manifest.base, json.loads(trial.user_attrs[OVERRIDES]))

    def setting_of(self, trial: FrozenTrial) -> EffectiveSetting | None:
        """What one of its trials trains; None if no configuration could be made of what was drawn."""
        if OVERRIDES not in trial.user_attrs:
            return None
        config = self.config_of(trial)
        return effective_setting(config, self.manifest.sizes_of(config.model.language_model).num_layers)

    def seconds_of(self, trials: Iterable[FrozenTrial]) -> Seconds:
        """What some of its trials have taken together, by what the driver has recorded."""
        return sum((seconds_of(self.reports_of(trial)) for trial in trials), Seconds())

    def reports_of(self, trial: FrozenTrial) -> list[EpochReport]:
        """The epochs of one of its trials, in their order; none where the trial's folder was taken away.

        Raises:
            DamagedError: If its file of metrics is damaged, or has fewer epochs than the study knows of a trial that
                has ended: what is written of an epoch goes there first.
        """
        folder = trial_folder(self.folder, trial.number)
        reports = read_reports(folder)
        last = max(trial.intermediate_values, default=0)
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and (folder / METRICS).is_file():
            recorded = max((report.fidelity or 0 for report in reports), default=0)
            if recorded < last:
                raise DamagedError(
                    f"{folder / METRICS}: has lost its end: it has {recorded} fusion epochs of {last}; put back a copy "
                    "of it, or take the trial's folder away to do without its epochs"
                )
        return reports

    def place_of_trial(self, number: int) -> Place:
        """Where one of its trials is."""
        return self.place / TRIALS / trial_folder(self.folder, number).name


def open_experiment(name: str | Path | Place, study_url: str | None = None) -> StoredExperiment:
    """Open an experiment; this machine's copy of one behind a URI is brought up to date.

    Args:
        name: Its path or URI, wherever it is by now.
        study_url: URL of the study's database, if its password is needed.

    Raises:
        SearchError: If there is none, it is damaged, or its file system cannot be reached.
    """
    place = Place.of(name)
    refresh(place)
    return StoredExperiment(place, read_manifest(place), study_url)
