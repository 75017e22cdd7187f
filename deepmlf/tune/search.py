"""Assembly of a search: study, searcher, scheduler, Ray; and its resume."""

import json
import logging
import os
import shutil
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState
from pydantic import BaseModel
from ray import tune
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from deepmlf.data.dataset import Dataset
from deepmlf.errors import SearchError
from deepmlf.model import lm_store
from deepmlf.places import RemoteFolder, absolute, is_remote, join, local_copy
from deepmlf.tune.cluster.connect import can_grow, check_room, connected, credentials_stay, signal_handlers_stay
from deepmlf.tune.cluster.node_files import serving
from deepmlf.tune.decide.samplers import check_sampler, grid_points, make_sampler
from deepmlf.tune.decide.scheduler import FIDELITY, check_scheduler, make_scheduler, rungs_of
from deepmlf.tune.decide.searcher import OVERRIDES, OptunaSearcher
from deepmlf.tune.decide.warm_start import add_trials, fitting_trials
from deepmlf.tune.driver.faults import FaultWatch, deaths_are_survived
from deepmlf.tune.driver.recorder import ExperimentRecorder, Stop, read_metrics
from deepmlf.tune.driver.screen import Progress
from deepmlf.tune.experiment.lease import Lease
from deepmlf.tune.experiment.remote import MANIFEST, Uploader, check_writable, open_experiment, pull
from deepmlf.tune.experiment.study import create_study, open_study, own_trials, repair_journal, without_password
from deepmlf.tune.objective import best_first, check_objectives, make_objectives, pareto_front
from deepmlf.tune.settings import SearchSettings, experiment_name, read_manifest, write_manifest
from deepmlf.tune.space.base import check_given, make_base
from deepmlf.tune.space.columns import write_columns
from deepmlf.tune.space.load import check_setting, check_space, lm_in_use, load_space
from deepmlf.tune.worker.trainable import NO_SPACE, TrialWorker, is_out_of_space


class SearchSummary(BaseModel):
    """How a search ended."""

    experiment: str
    best_trial: int | None
    """The best trial by the first objective."""
    metric: str
    value: float | None
    front: list[int]
    """Trials that no other one beats: one for one objective, the Pareto front for two."""
    config: dict[str, Any]
    states: dict[str, int]
    seconds: float
    fusion_epochs_spent: int
    fusion_epochs_full: int
    interrupted: bool
    out_of_time: bool
    """Whether the time budget interrupted it."""
    stop_reason: str | None


def run_search(settings: SearchSettings) -> SearchSummary:
    """Start a search and run it to its end.

    Raises:
        SearchError: If the experiment exists already or cannot start.
        DeepMLFError: For data, language model, space or settings that cannot be used.
    """
    name = experiment_name(settings)
    if is_remote(settings.storage):
        place = join(settings.storage, name)
        experiment = local_copy(place)
    else:
        experiment = Path(settings.storage).absolute() / name
        place = str(experiment)
    check_sampler(settings.sampler, len(settings.objectives), has_warm_start=settings.warm_start is not None)
    check_scheduler(settings.scheduler)
    check_given(settings.overrides)
    space = load_space(settings.space)
    dataset = Dataset.open(settings.data)
    dataset.require_labels("train", "valid")
    check_objectives(settings.objectives, dataset.info.name)
    objectives = make_objectives(settings.objectives)
    url = settings.study_storage
    settings = settings.model_copy(
        update={
            "name": name,
            "data": absolute(settings.data),
            "lm": lm_store.absolute(settings.lm),
            "study_storage": url and without_password(url),
        }
    )
    if len(objectives) > 1 and settings.scheduler != "none":
        _say(settings, "two objectives have no single order, so no trial is stopped early")
        settings = settings.model_copy(update={"scheduler": "none"})
    own = {
        "data.path": settings.data,
        "model.language_model": settings.lm,
        "training.epochs": settings.epochs,
        "training.select_by": objectives[0].short,
    }
    base = make_base(settings.space, space.base, own, settings.overrides, settings.seed)
    whole_lm = lm_store.facts(settings.lm)
    lm = lm_in_use(base, whole_lm)
    check_space(space, settings.space, base, whole_lm, settings.overrides, settings.seed)
    if _exists(place):
        raise SearchError(f"{place}: exists; choose another --name, or run `deepmlf resume {place}`")
    queue = space.priors[: settings.trials]
    if settings.sampler == "grid":
        wanted = settings.trials if "trials" in settings.model_fields_set else None
        queue, is_cut = grid_points(space, lm, wanted, settings.seed)
        if is_cut:
            _say(settings, f"the grid has more than {len(queue)} points; leave out --trials to take all")
        settings = settings.model_copy(update={"trials": len(queue)})
    warm: list[FrozenTrial] = []
    if settings.warm_start is not None:
        earlier = absolute(settings.warm_start)
        settings = settings.model_copy(update={"warm_start": earlier})
        warm = fitting_trials(earlier, settings, space, lm, dataset.info.fingerprint)
        _say(settings, f"{len(warm)} trials of {earlier} guide the sampler")
    facts = {
        "space_source": space.source.read_text(),
        "base": base,
        "language_model": asdict(lm),
        "data_fingerprint": dataset.info.fingerprint,
    }
    with connected(settings.address, verbose=settings.verbose):
        may_grow = can_grow(settings.address)
        missing = check_room(settings.cpus_per_trial, settings.gpus_per_trial, may_grow=may_grow)
        if missing is not None:
            _say(settings, f"{missing}; trials wait until the cluster has grown")
        study = create_study(experiment, name, url, objectives)
        experiment.mkdir(parents=True, exist_ok=True)
        add_trials(study, warm)
        for params in queue:
            study.enqueue_trial(params, user_attrs={"prior": settings.sampler != "grid"}, skip_if_exists=True)
        write_manifest(experiment, settings, facts, secret=url)
        return _run(place, experiment, url, settings)


def resume_search(
    place: str | Path,
    *,
    address: str | None = None,
    study_storage: str | None = None,
    time_budget: float | None = None,
    verbose: bool = False,
) -> SearchSummary:
    """Go on with a search after a crash, a kill or Ctrl-C; finished trials stay, unfinished ones continue.

    Args:
        place: The experiment's folder or URI, wherever it is by now.
        address: Of the Ray cluster to go on with; None takes the one that the search began on.
        study_storage: URL of the study's database, if its password is needed.
        time_budget: Seconds for this driver; None takes the budget that the search began with.
        verbose: Show what Ray and the workers print.

    Raises:
        SearchError: If the folder is no experiment, its study cannot be reached, or a driver is still at it.
    """
    experiment = open_experiment(place)
    began = SearchSettings.model_validate(read_manifest(experiment)["settings"])
    settings = began.model_copy(
        update={
            "address": address or began.address,
            "time_budget": time_budget or began.time_budget,
            "verbose": verbose,
        }
    )
    return _run(str(place) if is_remote(place) else str(experiment), experiment, study_storage, settings)


def _catch_up(place: str, experiment: Path, study: optuna.Study) -> None:
    """Bring study and trials' files together where another machine's last upload was cut short.

    The files may be ahead. What they know of unfinished trials enters the study; trials that it does not know at all
    will be asked for again, maybe with other settings, so nothing may stay of them.
    """
    first = make_objectives(read_manifest(experiment)["settings"]["objectives"])[0]
    trials = study.get_trials(deepcopy=False)
    for folder in (experiment / "trials").glob("[0-9]*_*"):
        number = int(folder.name.partition("_")[0])
        if number >= len(trials) or trials[number].state == TrialState.WAITING:
            shutil.rmtree(folder)
            RemoteFolder(join(place, "trials")).delete(folder.name)
        elif trials[number].state == TrialState.RUNNING:
            for metrics in read_metrics(folder):
                step = metrics.get(FIDELITY)
                if step is not None and step not in trials[number].intermediate_values and first.name in metrics:
                    study._storage.set_trial_intermediate_value(trials[number]._trial_id, step, metrics[first.name])


def ray_records(experiment: Path) -> Counter[int]:
    """Ray's own records, those of all drivers together: how often each trial number is down as ended."""
    ended: Counter[int] = Counter()
    for path in (experiment / "ray").glob("experiment_state-*.json"):
        try:
            dumped = json.loads(path.read_text())["trial_data"]
        except (ValueError, KeyError):
            continue  # torn by a kill: what it held counts as not recorded
        for trial in (json.loads(data) for data, _ in dumped):
            ended[trial["config"]["number"]] += trial["status"] in ("TERMINATED", "ERROR")
    return +ended


def _exists(place: str) -> bool:
    """Whether an experiment is there already; what is left in the copy of a remote one that is not, is removed."""
    if not is_remote(place):
        return (Path(place) / MANIFEST).exists()
    check_writable(place)
    if MANIFEST in RemoteFolder(place).sizes():
        return True
    shutil.rmtree(local_copy(place), ignore_errors=True)
    return False


def _run(place: str, experiment: Path, url: str | None, settings: SearchSettings) -> SearchSummary:
    """Run the search at `place`, whose folder on this machine is `experiment`."""
    manifest = read_manifest(experiment)
    try:
        with FileLock(experiment / ".lock", timeout=0):
            if not is_remote(place):
                repair_journal(experiment)
                return _run_locked(place, experiment, manifest, settings, open_study(experiment, url))
            remote = RemoteFolder(place)
            with Lease(remote, quiet=settings.quiet) as lease:
                pull(remote, experiment)  # another driver may have gone on until now
                repair_journal(experiment)
                study = open_study(experiment, url)
                _catch_up(place, experiment, study)
                with Uploader(experiment, remote, lease):
                    return _run_locked(place, experiment, manifest, settings, study, lease)
    except Timeout:
        raise SearchError(f"{experiment}: another driver is running this search") from None


def _run_locked(
    place: str,
    experiment: Path,
    manifest: dict[str, Any],
    settings: SearchSettings,
    study: optuna.Study,
    lease: Lease | None = None,
) -> SearchSummary:
    started = time.perf_counter()
    dataset = Dataset.open(settings.data).info
    if dataset.fingerprint != manifest["data_fingerprint"]:
        raise SearchError(f"{settings.data}: is not the dataset that {experiment.name} began with; start a new search")
    whole_lm = lm_store.facts(settings.lm)
    source = experiment / "space.py"
    source.write_text(manifest["space_source"])  # a resume uses the space that the search began with
    space, base = load_space(str(source)), manifest["base"]
    objectives = make_objectives(settings.objectives)
    lm = lm_in_use(base, whole_lm)
    if asdict(lm) != manifest["language_model"]:
        raise SearchError(
            f"{settings.lm}: is not the language model that {experiment.name} began with; start a new search"
        )

    def check(overrides: dict[str, Any]) -> None:
        check_setting(base, overrides, whole_lm)

    def sampler(number: int) -> optuna.samplers.BaseSampler:
        return make_sampler(
            settings.sampler, settings.seed, number, trials=settings.trials, concurrent=settings.concurrent
        )

    ended = [t.number for t in own_trials(study) if t.state.is_finished()]
    unrecorded = sorted(set(ended) - set(ray_records(experiment)))
    searcher = OptunaSearcher(
        study,
        space,
        objectives,
        sampler,
        trials=settings.trials,
        lm=lm,
        check=check,
        unrecorded=unrecorded,
    )
    write_columns(experiment / "trials", space, base, lm, objectives, dataset.name)
    stop = Stop(settings.time_budget, lease)
    samples = settings.trials - len(ended) + len(unrecorded)
    if samples > 0:
        scheduler = make_scheduler(
            settings.scheduler,
            study,
            objectives[0],
            epochs=settings.epochs,
            grace_period=settings.first_rung,
            reduction_factor=settings.reduction_factor,
            seed=settings.seed,
        )
        progress = Progress(
            Console(file=sys.stderr, quiet=settings.quiet),
            experiment.name,
            objectives,
            trials=settings.trials,
            ended=len(ended),
            rungs=lambda: rungs_of(scheduler),
        )
        recorder = ExperimentRecorder(experiment, base, study, objectives, progress)
        where = {"experiment": place, "id": manifest["id"], "name": settings.name, "base": base}
        watch = FaultWatch(study, settings.trial_timeout)
        _fit(experiment, settings, where, searcher, scheduler, [watch, recorder, stop], samples)
    trials = own_trials(study)
    reason = searcher.stop_reason or stop.reason
    ranked = best_first(trials, objectives)
    best = ranked[0] if ranked else None
    return SearchSummary(
        experiment=place,
        best_trial=best.number if best else None,
        metric=objectives[0].name,
        value=best.values[0] if best else None,
        front=pareto_front(ranked, objectives),
        config=json.loads(best.user_attrs[OVERRIDES]) if best else {},
        states={state.name: sum(t.state == state for t in trials) for state in TrialState},
        seconds=round(time.perf_counter() - started, 1),
        fusion_epochs_spent=sum(max(t.intermediate_values, default=0) for t in trials),
        fusion_epochs_full=settings.trials * settings.epochs,
        interrupted=sum(t.state.is_finished() for t in trials) < settings.trials and reason is None,
        out_of_time=stop.out_of_time,
        stop_reason=reason,
    )


def _fit(
    experiment: Path,
    settings: SearchSettings,
    where: dict[str, Any],
    searcher: OptunaSearcher,
    scheduler: TrialScheduler,
    callbacks: list[tune.Callback],
    samples: int,
) -> None:
    """Run Ray Tune until the searcher has no more trials, or a callback ends it."""
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # stages before fusion report no objective
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables print at any verbosity
    logging.getLogger("ray.tune").setLevel(logging.INFO if settings.verbose else logging.ERROR)
    config = where | {
        "objectives": settings.objectives,
        "train": settings.train_function,
        "threads": max(1, int(settings.cpus_per_trial)),
        "cache_gb": settings.cache_gb,
        "keep": settings.keep,
    }
    resources = {"cpu": settings.cpus_per_trial, "gpu": settings.gpus_per_trial}
    try:
        with (
            connected(settings.address, verbose=settings.verbose),
            serving(where["base"], settings.address) as served,
            credentials_stay(),
            signal_handlers_stay(),
            deaths_are_survived(),
        ):
            tune.Tuner(
                tune.with_resources(TrialWorker, resources),
                param_space=config | {"served": served},
                tune_config=tune.TuneConfig(
                    search_alg=searcher,
                    scheduler=scheduler,
                    num_samples=samples,
                    max_concurrent_trials=settings.concurrent,
                    reuse_actors=True,
                    trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}_{trial.trial_id}",
                ),
                run_config=tune.RunConfig(
                    name="ray",
                    storage_path=str(experiment),
                    failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                    callbacks=callbacks,
                    verbose=0,
                ),
            ).fit()
    except Exception as error:  # Ray wraps what the driver's own files raised into the text of its error
        if is_out_of_space(error):
            raise SearchError(f"{NO_SPACE}; free some, then `deepmlf resume {where['experiment']}`") from error
        raise


def _say(settings: SearchSettings, line: str) -> None:
    if not settings.quiet:
        print(f"deepmlf: {line}", file=sys.stderr)
