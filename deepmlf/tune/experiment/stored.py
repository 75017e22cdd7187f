"""An experiment that is there: opened once per command, and handed on."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState

from deepmlf.config.trial import TrialConfig
from deepmlf.places import Place
from deepmlf.training.effective import EffectiveSetting, effective_setting
from deepmlf.training.reports import Seconds, read_reports, seconds_of
from deepmlf.tune.experiment.layout import TRIALS, trial_folder
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
            SearchError: If there is none, or its database cannot be reached.
        """
        return open_study(self.folder, self.manifest.settings, self.study_url)

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
        folders = (trial_folder(self.folder, trial.number) for trial in trials)
        return sum((seconds_of(read_reports(folder)) for folder in folders), Seconds())

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
