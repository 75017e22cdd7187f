"""Settings of an experiment, trained again with fresh seeds and measured on the test split."""

import itertools
import json
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial, TrialState

from deepmlf.config.trial import SEED_LIMIT, TrialConfig
from deepmlf.errors import SearchError
from deepmlf.training.baselines import baselines
from deepmlf.training.reports import TEXT_HEAD, Baselines
from deepmlf.tune.cluster.connect import connected
from deepmlf.tune.cluster.devices import device_with
from deepmlf.tune.cluster.map import map_on_cluster
from deepmlf.tune.cluster.node_files import config_here, serving
from deepmlf.tune.experiment.layout import confirmation_name
from deepmlf.tune.experiment.remote import check_writable, exists, open_trial
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment
from deepmlf.tune.experiment.study import OVERRIDES
from deepmlf.tune.material import Material, open_material
from deepmlf.tune.messages import Served
from deepmlf.tune.plan import SearchPlan, plan_resume, plan_search, with_devices
from deepmlf.tune.search import begin, run

if TYPE_CHECKING:  # it imports the model, which those who show a verdict do without
    from deepmlf.inference.evaluate import Evaluation

_TRIAL, _SEED = "confirmed_trial", "training.seed"

Measured = dict[int, dict[int, dict[str, float]]]
"""Test metrics by trial of the search, and by seed."""


@dataclass(frozen=True)
class Retrained:
    """What came of the training."""

    experiment: StoredExperiment
    """That of the retrained trials."""
    measured: Measured
    """Of those of them that finished."""
    baselines: Baselines
    """Test metrics of simple models, see `deepmlf.training.baselines`; of text heads, the mean over the seeds of the
    first setting."""


def retrain(
    experiment: StoredExperiment,
    best: list[FrozenTrial],
    seeds: int,
    *,
    concurrent: int | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> Retrained:
    """Train trials of an experiment again, each with the same fresh seeds, and measure them on the test split.

    The retrained trials are an experiment of their own inside the first one: what a kill left unfinished goes on when
    it is asked for again.

    Args:
        experiment: The search's experiment.
        best: Its trials to train again, one of each setting.
        seeds: Seeds of each, none of them one that the search trained anything with.
        concurrent: Trials at a time; None takes the search's number.
        address: Of the Ray cluster to run on; None takes the one that the search began on.
        quiet: Print nothing.

    Raises:
        SearchError: If the experiment cannot be written, or the retraining stopped early.
        DataError: If the test split lacks labels.
        DeepMLFError: If a retrained trial cannot be measured on the test split.
    """
    check_writable(experiment.place, "")
    settings = experiment.manifest.settings
    address = address or settings.address
    material = open_material(settings.data, *settings.all_lms)
    material.dataset.require_labels("test")
    place = experiment.place / confirmation_name([trial.number for trial in best], seeds)
    with connected(address):
        if exists(place, ""):
            begun = replace(open_experiment(place), made_objectives=experiment.objectives)
            plan = plan_resume(begun, address=address, material=material)
            summary = run(plan)
        else:
            asked = {"name": place.folder.name, "address": address, "concurrent": concurrent or settings.concurrent}
            plan = with_devices(_plan(experiment, best, seeds, material, asked | {"quiet": quiet}))
            summary = begin(plan)
        if reason := summary.stop_reason:
            raise SearchError(f"{place}: the retraining stopped ({reason}); ask for the same again to go on")
        if summary.interrupted or summary.out_of_time:
            raise SearchError(f"{place}: stopped; ask for the same again to go on")
        evaluated = _measure(plan, best)
        measured = {trial: {seed: one.metrics for seed, one in seeds.items()} for trial, seeds in evaluated.items()}
        beside = baselines(material.dataset, "test") | _beside(experiment, best, evaluated)
        return Retrained(plan.experiment, measured, beside)


def _plan(
    experiment: StoredExperiment, best: list[FrozenTrial], seeds: int, material: Material, asked: dict[str, Any]
) -> SearchPlan:
    """A search that trains each of the trials once with each seed, and is otherwise as the experiment's."""
    settings, base = experiment.manifest.settings, experiment.manifest.base
    with tempfile.TemporaryDirectory() as scratch:
        space = Path(scratch) / "confirm.py"
        space.write_text(_space_source(experiment, best, seeds))
        changes = {
            "space": str(space),
            "storage": str(experiment.place),
            "trials": len(best) * seeds,
            "sampler": "grid",
            "scheduler": "none",
            "grace_period": None,
            # An earlier version let a search name a GPU without asking Ray for one.
            "gpus_per_trial": settings.gpus_per_trial or (None if base.get("training.device") == "cuda" else 0.0),
            "recipe": None,  # it is in the base, as it was when the search began
            "overrides": {key: value for key, value in settings.overrides.items() if key != _SEED},
            "study_storage": None,
            "warm_start": None,
            "around": None,  # the base has it
            "time_budget": None,
        }
        plan = plan_search(settings.model_copy(update=changes | asked), material)
    return replace(plan, experiment=replace(plan.experiment, made_objectives=experiment.objectives))


def _measure(plan: SearchPlan, best: list[FrozenTrial]) -> "dict[int, dict[int, Evaluation]]":
    finished = [trial for trial in plan.experiment.trials() if trial.state == TrialState.COMPLETE]
    config, gpus = plan.space.base.config, plan.settings.gpus_per_trial or 0.0
    device = device_with(gpus, config.training.device)
    with serving(config.data.path, plan.settings.all_lms, plan.settings.address) as served:
        evaluations = map_on_cluster(
            partial(_evaluate, served, device),
            [
                (plan.experiment.config_of(trial), str(plan.experiment.place_of_trial(trial.number)))
                for trial in finished
            ],
            "measuring on test",
            cpus=plan.settings.cpus_per_trial,
            gpus=gpus,
        )
    evaluated: dict[int, dict[int, Evaluation]] = {trial.number: {} for trial in best}
    for trial, evaluation in zip(finished, evaluations, strict=True):
        evaluated[trial.params[_TRIAL]][trial.params[_SEED]] = evaluation
    return evaluated


def _beside(
    experiment: StoredExperiment, best: list[FrozenTrial], evaluated: "dict[int, dict[int, Evaluation]]"
) -> Baselines:
    """What the settings' language models reach by themselves, and the text heads of the first setting."""
    found: Baselines = {}
    for trial in best:
        lm = experiment.config_of(trial).model.language_model
        for evaluation in evaluated[trial.number].values():
            for name, metrics in evaluation.of_language_model.items():
                found.setdefault(experiment.manifest.baseline_name(name, lm), metrics)
    said = [one.of_trial[TEXT_HEAD] for one in evaluated[best[0].number].values() if TEXT_HEAD in one.of_trial]
    if said:
        known = set[str].intersection(*(set(metrics) for metrics in said))
        found[TEXT_HEAD] = {name: fmean(metrics[name] for metrics in said) for name in said[0] if name in known}
    return found


def _evaluate(served: Served, device: str, retrained: tuple[TrialConfig, str]) -> "Evaluation":
    from deepmlf.inference.evaluate import evaluate_beside

    config, trial = retrained
    placed = config_here(config, served)
    if placed is config:
        return evaluate_beside(open_trial(trial), device=device)
    model, data = placed.model.language_model, placed.data.path
    return evaluate_beside(open_trial(trial), language_model=model, trained_on=data, device=device)


def fresh_seeds(seen: set[int], wanted: int) -> range:
    """Seeds in a row that are none of those seen: the next ones, or the first ones where those would be too great."""
    following = max(seen) + 1
    starts = itertools.chain([following] if following + wanted <= SEED_LIMIT else [], itertools.count())
    return next(range(start, start + wanted) for start in starts if seen.isdisjoint(range(start, start + wanted)))


def _space_source(experiment: StoredExperiment, best: list[FrozenTrial], seeds: int) -> str:
    overrides = {trial.number: json.loads(trial.user_attrs[OVERRIDES]) for trial in best}
    # Not one that the search has seen, were it with another trial of the same setting: it chose by them.
    seen = {setting.seed for setting in map(experiment.setting_of, experiment.trials()) if setting is not None}
    fresh = fresh_seeds(seen, seeds)
    return (
        '"""The best settings of an experiment, each with several seeds."""\n\n'
        f"BASE = {experiment.manifest.base!r}\n"
        f"SETTINGS = {overrides!r}\n\n\n"
        "def space(trial):\n"
        f"    number = trial.suggest_categorical({_TRIAL!r}, list(SETTINGS))\n"
        f"    seed = trial.suggest_int({_SEED!r}, {fresh[0]}, {fresh[-1]})\n"
        f"    return SETTINGS[number] | {{{_SEED!r}: seed}}\n"
    )
