"""A search, all of it resolved and checked, once: for a new one, a resume and a confirmation alike."""

import math
import sys
from dataclasses import dataclass, field, replace
from typing import Any

from optuna.trial import FixedTrial, FrozenTrial

from deepmlf.config.recipe import recipe_line, recipe_settings
from deepmlf.data.dataset import DatasetInfo
from deepmlf.errors import SearchError
from deepmlf.model import lm_store
from deepmlf.places import Place
from deepmlf.training.baselines import baselines
from deepmlf.training.machine.device import slow_precision
from deepmlf.training.metrics import main_metric
from deepmlf.training.reports import VALID
from deepmlf.training.ulgm.checks import check_ulgm
from deepmlf.tune.changes import UNCHANGED, SearchChanges, changed_manifest
from deepmlf.tune.cluster.connect import can_grow
from deepmlf.tune.cluster.devices import check_asked, check_devices, device_with, settle_devices
from deepmlf.tune.decide.curve_sampler import fault_of
from deepmlf.tune.decide.samplers import check_sampler, grid_points, settled
from deepmlf.tune.decide.scheduler import check_scheduler
from deepmlf.tune.decide.warm_start import fitting_trials
from deepmlf.tune.experiment.manifest import Manifest
from deepmlf.tune.experiment.remote import check_resumable, exists
from deepmlf.tune.experiment.stored import StoredExperiment
from deepmlf.tune.experiment.study import without_password
from deepmlf.tune.material import Material, open_material
from deepmlf.tune.objective import check_objectives
from deepmlf.tune.settings import SearchSettings, experiment_name
from deepmlf.tune.space.around import settings_around
from deepmlf.tune.space.base import Base, check_given, make_base
from deepmlf.tune.space.bound import BoundSpace, check_ranges, check_space
from deepmlf.tune.space.load import SearchSpace, load_space, space_for, space_of


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
    """Parameters of the first trials of a new search, or of one that goes on with more points of its grid."""
    warm: list[FrozenTrial] = field(default_factory=list)
    """Of a new search: trials of an earlier experiment that its sampler learns from."""


def defaults_for(material: Material) -> dict[str, Any]:
    """Settings of a search that depend on the dataset, unless others are asked for."""
    info = material.dataset.info
    return {"space": space_for(info), "objectives": [VALID + main_metric(info.task)]}


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
    _check_first_rung(settings)
    check_given(settings.overrides)
    secret, settings = settings.study_storage, _resolved(settings)
    place = Place.of(settings.storage) / str(settings.name)
    source = load_space(settings.space)
    material = material or open_material(settings.data, *settings.all_lms)
    material.dataset.require_labels("train", "valid")
    info = material.dataset.info
    check_objectives(settings.objectives, info.name, info.task)
    base = _base(settings, source, info.name)
    check_asked(settings.gpus_per_trial, base.config.training.device)
    space = BoundSpace(source, base, material.facts, tuple(info.missing))
    drawn = check_space(space, settings.space, settings.overrides, settings.seed)
    labels = material.dataset.split("train").labels
    for config in drawn:
        check_ulgm(config.training, info.task, labels)
    settings = beyond_warmup(settings, max(config.training.warmup_of(settings.epochs) for config in drawn))
    _say_what_is_lost(settings, space)
    if exists(place):
        raise SearchError(f"{place}: exists; choose another --name, or run `deepmlf resume {place}`")
    queue, settings = _queue(settings, space)
    warm: list[FrozenTrial] = []
    if settings.warm_start is not None:
        warm, found = fitting_trials(
            Place.of(settings.warm_start), settings, space, info.fingerprint, material.first.fingerprint
        )
        say(settings, found)
    manifest = _manifest(settings, space, material, secret)
    return SearchPlan(StoredExperiment(place, manifest, secret), settings, info, space, queue, warm)


def _manifest(settings: SearchSettings, space: BoundSpace, material: Material, secret: str | None) -> Manifest:
    return Manifest.now(
        settings,
        space_source=space.space.source,
        base=space.base.overrides,
        language_model=space.lm,
        language_model_fingerprint=material.first.fingerprint,
        language_models=dict(material.language_models) if settings.more_lms else {},
        data_fingerprint=material.dataset.info.fingerprint,
        own_metrics=material.dataset.own_metrics,
        baselines=baselines(material.dataset),
        secret=secret,
    )


def plan_resume(
    experiment: StoredExperiment,
    *,
    address: str | None = None,
    time_budget: float | None = None,
    verbose: bool = False,
    material: Material | None = None,
    changes: SearchChanges = UNCHANGED,
) -> SearchPlan:
    """Plan to go on with a search. Nothing is written.

    Args:
        experiment: Its experiment.
        address: Of the Ray cluster to go on with; None takes the one that the search began on.
        time_budget: Seconds for this driver; None takes the budget that the search began with.
        verbose: Show what Ray and the workers print.
        material: Its dataset and language model, if they are open already.
        changes: What is to be other than it was, from now on.

    Raises:
        SearchError: If the experiment cannot be written, a change cannot be, or dataset or language model are others
            than those that the search began with.
        DeepMLFError: If one of them cannot be used.
    """
    check_resumable(experiment.place)
    manifest = changed_manifest(experiment, changes)
    kept, experiment = manifest.settings, experiment.with_manifest(manifest)
    settings = kept.model_copy(
        update={
            "address": address or kept.address,
            "time_budget": time_budget or kept.time_budget,
            "verbose": verbose,
        }
    )
    material = material or open_material(settings.data, *settings.all_lms)
    name = experiment.folder.name
    if material.dataset.info.fingerprint != manifest.data_fingerprint:
        raise SearchError(f"{settings.data}: is not the dataset that {name} began with; start a new search")
    own = material.dataset.own_metrics
    if manifest.own_metrics_fingerprint != (own and own.fingerprint):
        raise SearchError(f"{settings.data}: has other metrics of your own than {name} began with; start a new search")
    source = space_of(manifest.space_source, settings.space)
    missing = tuple(material.dataset.info.missing)
    space = BoundSpace(source, Base.of(manifest.base), material.facts, missing)
    _check_language_models(manifest, material, space, name)
    if manifest.language_model_fingerprint is None:
        say(settings, f"{name}: does not say which weights {settings.lm} had, so it goes on with those of now")
    plan = SearchPlan(experiment, settings, material.dataset.info, space)
    return _with_more_points(plan) if changes.trials is not None and settings.sampler == "grid" else plan


def _with_more_points(plan: SearchPlan) -> SearchPlan:
    """The plan of a grid that goes on with other trials, with as many as it has points."""
    queue, settings = _queue(plan.settings, plan.space)
    manifest = plan.experiment.manifest
    kept = manifest.settings.model_copy(update={"trials": settings.trials})
    experiment = plan.experiment.with_manifest(manifest.model_copy(update={"settings": kept}))
    return replace(plan, experiment=experiment, settings=settings, queue=queue)


def _check_language_models(manifest: Manifest, material: Material, space: BoundSpace, name: str) -> None:
    """Refuse other language models than those that the search of a name began with."""
    first, begun = manifest.settings.lm, manifest.fingerprints
    for lm, found in zip(manifest.settings.all_lms, material.language_models.values(), strict=True):
        is_same = begun.get(lm) in (None, found.fingerprint)
        if not is_same or (lm == first and space.lm != manifest.language_model):
            raise SearchError(f"{lm}: is not the language model that {name} began with; start a new search")


def with_devices(plan: SearchPlan) -> SearchPlan:
    """The plan of a new search with what its trials hold of the connected cluster, in its manifest as well.

    Raises:
        SearchError: If a trial never has room there, or GPUs were asked for that torch cannot use.
    """
    settings = plan.settings
    training = plan.space.base.config.training
    devices = settle_devices(
        settings.gpus_per_trial,
        training.device,
        cpus=settings.cpus_per_trial,
        concurrent=settings.concurrent,
        may_grow=can_grow(settings.address),
    )
    slow = slow_precision(training.precision, device_with(devices.gpus, training.device))
    for line in filter(None, (devices.line, slow)):
        say(settings, line)
    settings = settings.model_copy(update={"gpus_per_trial": devices.gpus})
    manifest = plan.experiment.manifest.model_copy(update={"settings": settings})
    return replace(plan, settings=settings, experiment=plan.experiment.with_manifest(manifest))


def check_cluster(plan: SearchPlan) -> None:
    """Refuse a cluster on which trials never have room or cannot use their GPUs; say so if they wait for nodes.

    Raises:
        SearchError: With what is missing, or what the GPU's driver says.
    """
    settings = plan.settings
    missing = check_devices(
        settings.gpus_per_trial or 0.0,
        plan.space.base.config.training.device,
        cpus=settings.cpus_per_trial,
        may_grow=can_grow(settings.address),
    )
    if missing is not None:
        say(settings, f"{missing}; trials wait until the cluster has grown")


def _resolved(settings: SearchSettings) -> SearchSettings:
    """The same settings in a form that holds in any folder and holds no secret."""
    changes: dict[str, Any] = {
        "name": experiment_name(settings),
        "sampler": settled(settings.sampler, len(settings.objectives)),
        "data": str(Place.of(settings.data)),
        "lm": lm_store.absolute(settings.lm),
        "more_lms": [lm_store.absolute(lm) for lm in settings.more_lms],
        "study_storage": settings.study_storage and without_password(settings.study_storage),
        "warm_start": settings.warm_start and str(Place.of(settings.warm_start)),
    }
    if len(settings.objectives) > 1 and settings.scheduler != "none":
        say(settings, "two objectives have no single order, so no trial is stopped early")
        changes["scheduler"] = "none"
    return settings.model_copy(update=changes)


def _check_first_rung(settings: SearchSettings) -> None:
    if settings.grace_period is None:
        return
    if settings.scheduler == "none":
        raise SearchError(f"--first-rung {settings.grace_period}: --scheduler none stops no trial")
    if settings.grace_period > settings.epochs:
        raise SearchError(f"--first-rung {settings.grace_period}: is later than the last of {settings.epochs} epochs")


def beyond_warmup(settings: SearchSettings, warmup: float) -> SearchSettings:
    """The same settings with a first rung that lies beyond the warm-up: within it, a value says little of the end.

    Args:
        settings: Of the search.
        warmup: Epochs of the longest one that the space draws.

    Raises:
        SearchError: If another first rung was asked for.
    """
    lowest = math.floor(warmup) + 1
    if settings.grace_period is not None and settings.grace_period < lowest:
        raise SearchError(
            f"--first-rung {settings.grace_period}: lies within the warm-up of {warmup:g} epochs; "
            f"take at least {lowest}, or shorten training.warmup_epochs"
        )
    return settings.model_copy(update={"grace_period": max(lowest, settings.first_rung)})


def _base(settings: SearchSettings, source: SearchSpace, dataset: str) -> Base:
    """What all trials of a new search on a dataset of this name have in common."""
    recipe = recipe_settings(settings.recipe, dataset)
    if settings.recipe is not None:
        say(settings, recipe_line(settings.recipe, dataset))
    fixed = source.base
    if settings.around is not None:
        fixed, line = settings_around(settings.around)
        say(settings, line)
    return make_base(settings.space, fixed, _own(settings), settings.overrides, settings.seed, recipe)


def _own(settings: SearchSettings) -> dict[str, Any]:
    """Settings of every trial that are the search's own."""
    return {
        "data.path": settings.data,
        "model.language_model": settings.lm,
        "training.epochs": settings.epochs,
        "training.select_by": settings.objectives[0].rpartition("/")[2],
    }


def _say_what_is_lost(settings: SearchSettings, space: BoundSpace) -> None:
    """Tell what a space keeps samplers from learning.

    Raises:
        SearchError: If it is not one that Optuna can search.
    """
    if settings.sampler in ("mixed", "curves") and (fault := fault_of(space.sample, settings.seed)):
        say(
            settings,
            f"--space {settings.space}: {fault}: it draws for Optuna's own trials alone, so that --sampler "
            f"{settings.sampler} cannot weigh settings and draws at random in its place; "
            "ask the trial for parameters and its number alone, or take --sampler tpe",
        )
    for parameter in check_ranges(space, settings.space, settings.seed):
        say(settings, f"{parameter}: its range depends on another draw, so samplers learn little of it")


def _queue(settings: SearchSettings, space: BoundSpace) -> tuple[list[dict[str, Any]], SearchSettings]:
    """Parameters of a new search's first trials, and the settings with as many trials as a grid has points."""
    if settings.sampler != "grid":
        return _distinct(space)[: settings.trials] if settings.priors else [], settings
    wanted = settings.trials if "trials" in settings.model_fields_set else None
    queue, is_cut = grid_points(space, wanted, settings.seed)
    if is_cut:
        say(settings, f"the grid has more than {len(queue)} points; leave out --trials to take all")
    if settings.scheduler != "none":
        say(
            settings,
            f"--scheduler {settings.scheduler} stops the worse trials of a grid early, so that means over the others "
            "flatter their settings; to compare settings say --scheduler none",
        )
    return queue, settings.model_copy(update={"trials": len(queue)})


def _distinct(space: BoundSpace) -> list[dict[str, Any]]:
    """A space's priors, without those that would train the same as an earlier one."""
    distinct: dict[Any, dict[str, Any]] = {}
    for index, prior in enumerate(space.priors):
        try:
            trains: Any = space.effective(space.config_of(space.sample(FixedTrial(prior))))
        except Exception:  # it leaves something open
            trains = index
        distinct.setdefault(trains, prior)
    return list(distinct.values())


def say(settings: SearchSettings, line: str) -> None:
    """A line for people, on standard error."""
    if not settings.quiet:
        print(f"deepmlf: {line}", file=sys.stderr)
