"""A search, all of it resolved and checked, once: for a new one, a resume and a confirmation alike."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial

from deepmlf.data.dataset import Dataset, DatasetInfo
from deepmlf.errors import SearchError
from deepmlf.model import lm_store
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.places import Place
from deepmlf.tune.decide.samplers import check_sampler, grid_points
from deepmlf.tune.decide.scheduler import check_scheduler
from deepmlf.tune.decide.warm_start import fitting_trials
from deepmlf.tune.experiment.manifest import Manifest
from deepmlf.tune.experiment.remote import exists
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.experiment.study import without_password
from deepmlf.tune.objective import check_objectives
from deepmlf.tune.settings import SearchSettings, experiment_name
from deepmlf.tune.space.base import Base, check_given, make_base
from deepmlf.tune.space.bound import BoundSpace, check_space
from deepmlf.tune.space.load import load_space, space_of


@dataclass(frozen=True)
class Material:
    """What a search works on, opened."""

    dataset: Dataset
    language_model: LanguageModelFacts
    """Sizes of the whole of it."""
    language_model_fingerprint: str
    """Of its weights and configuration."""


def open_material(data: str, lm: str) -> Material:
    """Open dataset and language model.

    Raises:
        DataError: If the dataset cannot be used.
        LanguageModelError: If the language model is not on this machine.
    """
    return Material(Dataset.open(data), lm_store.facts(lm), lm_store.fingerprint(lm))


def get_material(data: str, lm: str, progress: Callable[[str], None] = lambda step: None) -> Material:
    """Open dataset and language model, and fetch the latter if it is not on this machine.

    Args:
        data: Folder or URI of an imported dataset.
        lm: What ``deepmlf lm get`` takes.
        progress: Called with one line before each slow step.

    Raises:
        DataError: If the dataset cannot be used.
        LanguageModelError: If the language model can be neither found, fetched nor converted.
    """
    dataset = Dataset.open(data)
    lm_store.get(lm, progress=progress)
    return Material(dataset, lm_store.facts(lm), lm_store.fingerprint(lm))


@dataclass(frozen=True)
class SearchPlan:
    """A search that can be run: nothing of it is opened or checked again until it has ended."""

    experiment: StoredExperiment
    """Where it is, or will be, with its manifest."""
    settings: SearchSettings
    """What this driver is to do: as in the manifest, but for what a resume may change."""
    dataset: DatasetInfo
    space: BoundSpace
    queue: list[dict[str, Any]] = field(default_factory=list)
    """Of a new search: parameters of its first trials."""
    warm: list[FrozenTrial] = field(default_factory=list)
    """Of a new search: trials of an earlier experiment that its sampler learns from."""


def plan_search(settings: SearchSettings, material: Material | None = None) -> SearchPlan:
    """Plan a new search. Nothing is written.

    Args:
        settings: What is asked.
        material: Its dataset and language model, if they are open already.

    Raises:
        SearchError: If the experiment exists already, or what was asked cannot be.
        DeepMLFError: For data, language model, space or settings that cannot be used.
    """
    check_sampler(settings.sampler, len(settings.objectives), has_warm_start=settings.warm_start is not None)
    check_scheduler(settings.scheduler)
    check_given(settings.overrides)
    secret, settings = settings.study_storage, _resolved(settings)
    place = Place.of(settings.storage) / str(settings.name)
    source = load_space(settings.space)
    material = material or open_material(settings.data, settings.lm)
    material.dataset.require_labels("train", "valid")
    info = material.dataset.info
    check_objectives(settings.objectives, info.name)
    base = make_base(settings.space, source.base, _own(settings), settings.overrides, settings.seed)
    space = BoundSpace(source, base, material.language_model)
    check_space(space, settings.space, settings.overrides, settings.seed)
    if exists(place):
        raise SearchError(f"{place}: exists; choose another --name, or run `deepmlf resume {place}`")
    queue, settings = _queue(settings, space)
    warm: list[FrozenTrial] = []
    if settings.warm_start is not None:
        warm = fitting_trials(
            Place.of(settings.warm_start), settings, space, info.fingerprint, material.language_model_fingerprint
        )
        say(settings, f"{len(warm)} trials of {settings.warm_start} guide the sampler")
    manifest = Manifest.now(
        settings,
        space_source=source.source,
        base=base.overrides,
        language_model=space.lm,
        language_model_fingerprint=material.language_model_fingerprint,
        data_fingerprint=info.fingerprint,
        secret=secret,
    )
    return SearchPlan(StoredExperiment(place, manifest, secret), settings, info, space, queue, warm)


def plan_resume(
    experiment: StoredExperiment,
    *,
    address: str | None = None,
    time_budget: float | None = None,
    verbose: bool = False,
    material: Material | None = None,
) -> SearchPlan:
    """Plan to go on with a search.

    Args:
        experiment: Its experiment.
        address: Of the Ray cluster to go on with; None takes the one that the search began on.
        time_budget: Seconds for this driver; None takes the budget that the search began with.
        verbose: Show what Ray and the workers print.
        material: Its dataset and language model, if they are open already.

    Raises:
        SearchError: If dataset or language model are others than those that the search began with.
        DeepMLFError: If one of them cannot be used.
    """
    manifest, began = experiment.manifest, experiment.manifest.settings
    settings = began.model_copy(
        update={
            "address": address or began.address,
            "time_budget": time_budget or began.time_budget,
            "verbose": verbose,
        }
    )
    material = material or open_material(settings.data, settings.lm)
    name = experiment.folder.name
    if material.dataset.info.fingerprint != manifest.data_fingerprint:
        raise SearchError(f"{settings.data}: is not the dataset that {name} began with; start a new search")
    source = space_of(manifest.space_source, settings.space)
    space = BoundSpace(source, Base.of(manifest.base), material.language_model)
    known = manifest.language_model_fingerprint
    if space.lm != manifest.language_model or known not in (None, material.language_model_fingerprint):
        raise SearchError(f"{settings.lm}: is not the language model that {name} began with; start a new search")
    if known is None:
        say(settings, f"{name}: does not say which weights {settings.lm} had, so it goes on with those of now")
    return SearchPlan(experiment, settings, material.dataset.info, space)


def _resolved(settings: SearchSettings) -> SearchSettings:
    """The same settings in a form that holds in any folder and holds no secret."""
    changes: dict[str, Any] = {
        "name": experiment_name(settings),
        "data": str(Place.of(settings.data)),
        "lm": lm_store.absolute(settings.lm),
        "study_storage": settings.study_storage and without_password(settings.study_storage),
        "warm_start": settings.warm_start and str(Place.of(settings.warm_start)),
    }
    if len(settings.objectives) > 1 and settings.scheduler != "none":
        say(settings, "two objectives have no single order, so no trial is stopped early")
        changes["scheduler"] = "none"
    return settings.model_copy(update=changes)


def _own(settings: SearchSettings) -> dict[str, Any]:
    """Settings of every trial that are the search's own."""
    return {
        "data.path": settings.data,
        "model.language_model": settings.lm,
        "training.epochs": settings.epochs,
        "training.select_by": settings.objectives[0].rpartition("/")[2],
    }


def _queue(settings: SearchSettings, space: BoundSpace) -> tuple[list[dict[str, Any]], SearchSettings]:
    """Parameters of a new search's first trials, and the settings with as many trials as a grid has points."""
    if settings.sampler != "grid":
        return space.priors[: settings.trials], settings
    wanted = settings.trials if "trials" in settings.model_fields_set else None
    queue, is_cut = grid_points(space, wanted, settings.seed)
    if is_cut:
        say(settings, f"the grid has more than {len(queue)} points; leave out --trials to take all")
    return queue, settings.model_copy(update={"trials": len(queue)})


def say(settings: SearchSettings, line: str) -> None:
    """A line for people, on standard error."""
    if not settings.quiet:
        print(f"deepmlf: {line}", file=sys.stderr)
