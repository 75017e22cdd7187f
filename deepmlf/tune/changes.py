"""What a resume changes of its search for good: more trials, more at a time, other resources, data at another place."""

from typing import Any

from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict, Field

from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.cluster.devices import check_asked
from deepmlf.tune.experiment.manifest import Manifest, read_manifest, write_manifest
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.experiment.study import PRIOR, own_trials
from deepmlf.tune.space.base import Base


class SearchChanges(BaseModel):
    """What is to be other than it was; None leaves it as it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    trials: int | None = Field(None, ge=1)
    """Trials the search is to end with."""
    epochs: int | None = Field(None, ge=1)
    """None but the search's own are accepted."""
    concurrent: int | None = Field(None, ge=1)
    cpus_per_trial: float | None = Field(None, gt=0)
    gpus_per_trial: float | None = Field(None, ge=0)
    data: str | None = None
    """Where the dataset is now; it must be the same one."""


UNCHANGED = SearchChanges()


def changed_manifest(experiment: StoredExperiment, changes: SearchChanges) -> Manifest:
    """The manifest of a search that goes on with changes; its own if nothing changes. Nothing is written.

    Raises:
        SearchError: If a change cannot be.
    """
    manifest = experiment.manifest
    now, wanted = manifest.settings, changes.model_dump(exclude_none=True)
    if "data" in wanted:
        wanted["data"] = str(Place.of(wanted["data"]))
    wanted = {name: value for name, value in wanted.items() if value != getattr(now, name)}
    if "epochs" in wanted:
        raise SearchError(
            f"--epochs {wanted['epochs']}: the learning rates of its trials were scheduled over {now.epochs} epochs, "
            "and rungs and leaderboard compare them by that; search anew with "
            f"--epochs {wanted['epochs']} --warm-start {experiment.place}, which learns from them"
        )
    if "gpus_per_trial" in wanted:
        check_asked(wanted["gpus_per_trial"], Base.of(manifest.base).config.training.device)
    if not wanted:
        return manifest
    base: dict[str, Any] = manifest.base | ({"data.path": wanted["data"]} if "data" in wanted else {})
    return manifest.changed(wanted, base, experiment.study_url)


def write_changes(experiment: StoredExperiment, queue: list[dict[str, Any]]) -> None:
    """Write what a plan changes of an experiment, whose only driver this is.

    Args:
        experiment: With the manifest as planned.
        queue: Parameters of trials to come, those that it has left out.

    Raises:
        SearchError: If it has begun more trials than it is to end with, or another driver has changed it meanwhile.
    """
    manifest, written = experiment.manifest, read_manifest(experiment.place)
    if (written.settings, written.changes) == (manifest.settings, manifest.changes):
        return
    if written.changes != manifest.changes[:-1]:
        raise SearchError(f"{experiment.place}: another driver has changed this search meanwhile; ask again")
    study = experiment.study
    begun = sum(trial.state != TrialState.WAITING for trial in own_trials(study))
    if manifest.settings.trials < begun:
        raise SearchError(
            f"--trials {manifest.settings.trials}: it has begun {begun} already; ask for as many at least"
        )
    for params in queue:
        study.enqueue_trial(params, user_attrs={PRIOR: False}, skip_if_exists=True)
    write_manifest(experiment.folder, manifest)
