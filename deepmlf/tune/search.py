"""Running a planned search: study, searcher, scheduler and Ray put together, with one driver at a time."""

import contextlib
import logging
import os
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from ray import tune
from ray.tune.schedulers import TrialScheduler
from rich.console import Console

from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.changes import UNCHANGED, SearchChanges, write_changes
from deepmlf.tune.cluster.connect import connected
from deepmlf.tune.cluster.devices import device_with
from deepmlf.tune.cluster.node_files import serving
from deepmlf.tune.cluster.ray_patches import adjusted_ray
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.decide.samplers import GUIDED, make_sampler
from deepmlf.tune.decide.scheduler import rungs_of, scheduler_of
from deepmlf.tune.decide.searcher import OptunaSearcher
from deepmlf.tune.decide.warm_start import add_trials
from deepmlf.tune.driver.faults import FaultWatch
from deepmlf.tune.driver.ray_records import ended_in_ray
from deepmlf.tune.driver.recorder import ExperimentRecorder
from deepmlf.tune.driver.screen import SearchScreen
from deepmlf.tune.driver.stop import Stop
from deepmlf.tune.experiment.alone import alone_at
from deepmlf.tune.experiment.layout import RAY, SPACE, TRIALS
from deepmlf.tune.experiment.manifest import write_manifest
from deepmlf.tune.experiment.stop_request import StopRequest
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.experiment.study import (
    PRIOR,
    check_insides,
    create_study,
    name_objectives,
    own_trials,
)
from deepmlf.tune.messages import SearchTerms, Served
from deepmlf.tune.plan import SearchPlan, check_cluster, plan_resume, plan_search, say, with_devices
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.columns import write_columns
from deepmlf.tune.summary import SearchSummary, summarise
from deepmlf.tune.worker.trainable import NO_SPACE, TrialWorker, is_out_of_space
from deepmlf.tune.worker.wire import folder_in_ray


def run_search(settings: SearchSettings) -> SearchSummary:
    """Start a search and run it to its end.

    Raises:
        SearchError: If the experiment exists already or cannot start.
        DeepMLFError: For data, language model, space or settings that cannot be used.
    """
    return begin(plan_search(settings))


def resume_search(
    place: str | Path | Place,
    *,
    address: str | None = None,
    study_storage: str | None = None,
    time_budget: float | None = None,
    verbose: bool = False,
    changes: SearchChanges = UNCHANGED,
) -> SearchSummary:
    """Go on with a search after a crash, a kill or Ctrl-C; finished trials stay, unfinished ones continue.

    Args:
        place: The experiment's folder or URI, wherever it is by now.
        address: Of the Ray cluster to go on with; None takes the one that the search began on.
        study_storage: URL of the study's database, if its password is needed.
        time_budget: Seconds for this driver; None takes the budget that the search began with.
        verbose: Show what Ray and the workers print.
        changes: What is to be other than it was, from now on.

    Raises:
        SearchError: If the folder is no experiment, a driver is still at it, its study cannot be reached, or a change
            cannot be.
    """
    experiment = open_experiment(place, study_storage)
    return run(plan_resume(experiment, address=address, time_budget=time_budget, verbose=verbose, changes=changes))


def begin(plan: SearchPlan) -> SearchSummary:
    """Write a new search's study and manifest, and run it to its end.

    Raises:
        SearchError: If the cluster has no room for a trial, or the study cannot be made.
    """
    with connected(plan.settings.address, verbose=plan.settings.verbose):
        plan = with_devices(plan)
        settings, experiment = plan.settings, plan.experiment
        study = create_study(experiment.folder, str(settings.name), experiment.study_url, experiment.objectives)
        experiment.folder.mkdir(parents=True, exist_ok=True)
        add_trials(study, plan.warm)
        for params in plan.queue:
            study.enqueue_trial(params, user_attrs={PRIOR: settings.sampler != "grid"}, skip_if_exists=True)
        write_manifest(experiment.folder, experiment.manifest)
        return run(plan)


def run(plan: SearchPlan) -> SearchSummary:
    """Run a search that has begun to its end, or until something stops it.

    Raises:
        SearchError: If another driver is at it, or its storage fails for good.
    """
    started = time.perf_counter()
    check_insides()
    with alone_at(plan.experiment, quiet=plan.settings.quiet) as lease:
        write_changes(plan.experiment, plan.queue)
        stop = Stop(plan.settings.time_budget, lease, StopRequest(plan.experiment.place))
        searcher = _train(plan, stop)
        is_exhausted = searcher is not None and searcher.is_exhausted
        if is_exhausted:
            say(plan.settings, "the space is exhausted: 2,000 draws found no setting that no trial has")
        return summarise(
            plan,
            seconds=time.perf_counter() - started,
            out_of_time=stop.out_of_time,
            stop_reason=(searcher and searcher.stop_reason) or stop.reason,
            is_exhausted=is_exhausted,
        )


def _train(plan: SearchPlan, stop: Stop) -> OptunaSearcher | None:
    """Train all trials that are left; the searcher that drew them, if any were."""
    experiment, settings, study = plan.experiment, plan.settings, plan.experiment.study
    folder, objectives = experiment.folder, experiment.objectives
    (folder / SPACE).write_text(experiment.manifest.space_source)
    write_columns(folder / TRIALS, plan.space, objectives, plan.dataset.task)
    name_objectives(study, objectives)  # one begun by an earlier release has no names
    finished = [trial for trial in own_trials(study) if trial.state.is_finished()]
    ended = [trial.number for trial in finished]
    unrecorded = sorted(set(ended) - set(ended_in_ray(folder)))
    samples = settings.trials - len(ended) + len(unrecorded)
    if samples <= 0:
        return None
    scheduler = scheduler_of(settings, study, objectives[0])
    screen = SearchScreen(
        Console(file=sys.stderr, quiet=settings.quiet),
        folder.name,
        objectives,
        trials=settings.trials,
        ended=len(ended),
        rungs=lambda: rungs_of(scheduler),
    )
    spent = experiment.seconds_of(finished)
    recorder = ExperimentRecorder(folder, plan.space.base.overrides, study, objectives, screen, spent)
    with _ray(plan) as served:
        searcher = _searcher(plan, Orders(plan.space, _terms(plan, served)), unrecorded)
        watch = FaultWatch(study, settings.trial_timeout)
        stop.on_interrupt = screen.stopping
        try:
            _tuner(plan, searcher, scheduler, [watch, recorder, stop], samples).fit()
        except KeyboardInterrupt:  # the second Ctrl-C
            screen.say("stopped now")
        finally:
            screen.close()
    return searcher


def _searcher(plan: SearchPlan, orders: Orders, unrecorded: list[int]) -> OptunaSearcher:
    settings = plan.settings
    sampler = partial(
        make_sampler, settings.sampler, settings.seed, space=orders.sample, is_new=orders.is_new,
        epochs=settings.epochs, trials=plan.experiment.manifest.began.trials, concurrent=settings.concurrent,
    )  # fmt: skip
    return OptunaSearcher(
        plan.experiment.study, plan.experiment.objectives, sampler, orders,
        seed=settings.seed, shares_stages=settings.sampler in GUIDED, trials=settings.trials, unrecorded=unrecorded,
    )  # fmt: skip


def _terms(plan: SearchPlan, served: Served) -> SearchTerms:
    settings, experiment = plan.settings, plan.experiment
    return SearchTerms(
        place=str(experiment.place),
        experiment_id=experiment.manifest.id,
        name=str(settings.name),
        objectives=tuple(settings.objectives),
        train=settings.train_function,
        threads=max(1, int(settings.cpus_per_trial)),
        device=device_with(settings.gpus_per_trial or 0.0, "auto"),
        cache_gb=settings.cache_gb,
        keep=settings.keep,
        language_models=experiment.manifest.fingerprints,
        served=served,
    )


@contextlib.contextmanager
def _ray(plan: SearchPlan) -> Iterator[Served]:
    """Ray as a search needs it: connected, quiet, adjusted, and with the driver's folders served to other nodes.

    Raises:
        SearchError: If the driver's disk is full.
    """
    settings = plan.settings
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # stages before fusion report no objective
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables print at any verbosity
    logging.getLogger("ray.tune").setLevel(logging.INFO if settings.verbose else logging.ERROR)
    try:
        with (
            connected(settings.address, verbose=settings.verbose),
            serving(settings.data, settings.all_lms, settings.address) as served,
            adjusted_ray(),
        ):
            check_cluster(plan)
            yield served
    except Exception as error:  # Ray wraps what the driver's own files raised into the text of its error
        if is_out_of_space(error):
            raise SearchError(f"{NO_SPACE}; free some, then `deepmlf resume {plan.experiment.place}`") from error
        raise


def _tuner(
    plan: SearchPlan, searcher: OptunaSearcher, scheduler: TrialScheduler, callbacks: list[tune.Callback], samples: int
) -> tune.Tuner:
    settings = plan.settings
    resources = {"cpu": settings.cpus_per_trial, "gpu": settings.gpus_per_trial or 0.0}
    return tune.Tuner(
        tune.with_resources(TrialWorker, resources),
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=samples,
            max_concurrent_trials=settings.concurrent,
            reuse_actors=True,
            trial_dirname_creator=folder_in_ray,
        ),
        run_config=tune.RunConfig(
            name=RAY,
            storage_path=str(plan.experiment.folder),
            failure_config=tune.FailureConfig(max_failures=settings.max_failures),
            callbacks=callbacks,
            verbose=0,
        ),
    )
