"""Assembly of a search: study, searcher, scheduler, Ray; and its resume."""

import importlib.metadata
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import optuna
import ray
from filelock import FileLock, Timeout
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from pydantic import BaseModel, ConfigDict, Field
from ray import tune
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from deepmlf.config import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.errors import SearchError
from deepmlf.model import lm_store
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.callbacks import ExperimentRecorder
from deepmlf.tune.scheduler import ResumableASHA
from deepmlf.tune.searcher import OBJECTIVE, OptunaSearcher
from deepmlf.tune.space import check_setting, check_space, load_space
from deepmlf.tune.trainable import DEFAULT_TRAIN, run_trial


class SearchSettings(BaseModel):
    """What a search is asked to do; stored in its manifest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    space: str
    lm: str = "smollm2-135m"
    trials: int = Field(20, ge=1)
    epochs: int = Field(15, ge=1)
    concurrent: int = Field(1, ge=1)
    cpus_per_trial: float = Field(1.0, gt=0)
    gpus_per_trial: float = Field(0.0, ge=0)
    storage: str = "runs"
    name: str | None = None
    address: str | None = None
    seed: int = Field(0, ge=0)
    overrides: dict[str, Any] = {}
    scheduler: Literal["asha", "none"] = "asha"
    grace_period: int = Field(1, ge=1)
    reduction_factor: int = Field(3, ge=2)
    max_failures: int = Field(3, ge=0)
    train_function: str = DEFAULT_TRAIN
    quiet: bool = False


class SearchSummary(BaseModel):
    """How a search ended."""

    experiment: str
    best_trial: int | None
    metric: str
    value: float | None
    config: dict[str, Any]
    states: dict[str, int]
    seconds: float
    fusion_epochs_spent: int
    fusion_epochs_full: int
    interrupted: bool
    stop_reason: str | None


def open_study(experiment: Path) -> optuna.Study:
    """The Optuna study of an experiment.

    Raises:
        SearchError: If there is none.
    """
    path = experiment / "optuna.journal"
    if not path.is_file():
        raise SearchError(f"{experiment}: not an experiment (no optuna.journal there)")
    # The one study in the journal, whatever the folder is called by now.
    return optuna.load_study(study_name=None, storage=_storage(path))


def run_search(settings: SearchSettings) -> SearchSummary:
    """Start a search and run it to its end.

    Raises:
        SearchError: If the experiment exists already or cannot start.
        DeepMLFError: For data, language model, space or settings that cannot be used.
    """
    name = settings.name or datetime.now().strftime(f"{Path(settings.space).stem}-%Y%m%d-%H%M%S")
    experiment = Path(settings.storage).absolute() / name
    space = load_space(settings.space)
    dataset = Dataset.open(settings.data)
    settings = settings.model_copy(update={"name": name, "data": str(Path(settings.data).absolute())})
    lm, base = _language_model(settings, space.base), _base(settings, space.base)
    TrialConfig.from_overrides(base)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    check_space(space, settings.space, base, lm, settings.overrides, settings.seed)
    if (experiment / "search.json").exists():
        raise SearchError(f"{experiment}: exists; choose another --name, or run `deepmlf resume {experiment}`")
    experiment.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name=name, storage=_storage(experiment / "optuna.journal"), direction="minimize", load_if_exists=True
    )
    for prior in space.priors[: settings.trials]:
        study.enqueue_trial(prior, user_attrs={"prior": True}, skip_if_exists=True)
    manifest = {
        "settings": settings.model_dump(),
        "space_source": space.source.read_text(),
        "base": base,
        "language_model": asdict(lm),
        "data_fingerprint": dataset.info.fingerprint,
        "versions": {p: importlib.metadata.version(p) for p in ("torch", "transformers", "ray", "optuna", "pyarrow")},
        "git_commit": _git_commit(),
        "command": sys.argv,
        "started": datetime.now().isoformat(timespec="seconds"),
    }
    temporary = experiment / f".search.json.{os.getpid()}"
    temporary.write_text(json.dumps(manifest, indent=2))
    temporary.rename(experiment / "search.json")
    return _run(experiment)


def resume_search(experiment: Path) -> SearchSummary:
    """Go on with a search after a crash, a kill or Ctrl-C; finished trials stay, unfinished ones continue.

    Raises:
        SearchError: If the folder is no experiment, or a driver is still at it.
    """
    return _run(experiment.absolute())


def read_manifest(experiment: Path) -> dict[str, Any]:
    """The manifest of an experiment.

    Raises:
        SearchError: If there is none.
    """
    try:
        manifest: dict[str, Any] = json.loads((experiment / "search.json").read_text())
    except (OSError, ValueError):
        raise SearchError(f"{experiment}: not an experiment (no search.json there)") from None
    return manifest


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


def _run(experiment: Path) -> SearchSummary:
    manifest = read_manifest(experiment)
    try:
        with FileLock(experiment / ".lock", timeout=0):
            _repair_journal(experiment / "optuna.journal")
            return _run_locked(experiment, manifest)
    except Timeout:
        raise SearchError(f"{experiment}: another driver is running this search") from None


def _run_locked(experiment: Path, manifest: dict[str, Any]) -> SearchSummary:
    started = time.perf_counter()
    settings = SearchSettings.model_validate(manifest["settings"])
    if Dataset.open(settings.data).info.fingerprint != manifest["data_fingerprint"]:
        raise SearchError(f"{settings.data}: is not the dataset that {experiment.name} began with; start a new search")
    source = experiment / "space.py"
    source.write_text(manifest["space_source"])  # a resume uses the space that the search began with
    space, base, study = load_space(str(source)), manifest["base"], open_study(experiment)
    lm = LanguageModelFacts(**manifest["language_model"])

    def check(overrides: dict[str, Any]) -> None:
        check_setting(base, overrides, lm)

    ended = [t.number for t in study.get_trials(deepcopy=False) if t.state.is_finished()]
    unrecorded = sorted(set(ended) - set(ray_records(experiment)))
    searcher = OptunaSearcher(study, space, settings.trials, lm, settings.seed, check, unrecorded)
    interrupted = False
    samples = settings.trials - len(ended) + len(unrecorded)
    if samples > 0:
        _fit(experiment, settings, base, study, searcher, samples)
        finished = sum(t.state.is_finished() for t in study.get_trials(deepcopy=False))
        interrupted = finished < settings.trials and searcher.stop_reason is None
    summary = _summarise(experiment, settings, study, time.perf_counter() - started, interrupted, searcher.stop_reason)
    return summary


def _fit(
    experiment: Path,
    settings: SearchSettings,
    base: dict[str, Any],
    study: optuna.Study,
    searcher: OptunaSearcher,
    samples: int,
) -> None:
    """Run Ray Tune until the searcher has no more trials."""
    os.environ["TUNE_DISABLE_STRICT_METRIC_CHECKING"] = "1"  # stages before fusion report no objective
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # its tables print at any verbosity
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    own_cluster = not ray.is_initialized()
    if own_cluster:
        ray.init(
            address=settings.address,
            include_dashboard=None if settings.address else False,
            log_to_driver=False,
            logging_level="ERROR",
        )
    try:
        config = {
            "experiment": str(experiment),
            "base": base,
            "train": settings.train_function,
            "threads": max(1, int(settings.cpus_per_trial)),
        }
        resources = {"cpu": settings.cpus_per_trial, "gpu": settings.gpus_per_trial}
        tune.Tuner(
            tune.with_resources(run_trial, resources),
            param_space=config,
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=_scheduler(settings, study),
                num_samples=samples,
                max_concurrent_trials=settings.concurrent,
                reuse_actors=True,
                trial_dirname_creator=lambda trial: f"{trial.config['number']:04d}_{trial.trial_id}",
            ),
            run_config=tune.RunConfig(
                name="ray",
                storage_path=str(experiment),
                failure_config=tune.FailureConfig(max_failures=settings.max_failures),
                callbacks=[ExperimentRecorder(experiment, base, study, quiet=settings.quiet)],
                verbose=0,
            ),
        ).fit()
    finally:
        if own_cluster:
            ray.shutdown()


def _scheduler(settings: SearchSettings, study: optuna.Study) -> TrialScheduler:
    """ASHA on fusion epochs; on a resume its rungs are filled again from the study."""
    if settings.scheduler == "none":
        return FIFOScheduler()
    return ResumableASHA(study, settings.epochs, settings.grace_period, settings.reduction_factor)


def _summarise(
    experiment: Path,
    settings: SearchSettings,
    study: optuna.Study,
    seconds: float,
    interrupted: bool,
    stop_reason: str | None,
) -> SearchSummary:
    trials = study.get_trials(deepcopy=False)
    complete = [t for t in trials if t.state == TrialState.COMPLETE]
    best = min(complete, key=lambda t: float(t.value or 0.0), default=None)
    return SearchSummary(
        experiment=str(experiment),
        best_trial=best.number if best else None,
        metric=OBJECTIVE,
        value=best.value if best else None,
        config=json.loads(best.user_attrs["overrides"]) if best else {},
        states={state.name: sum(t.state == state for t in trials) for state in TrialState},
        seconds=round(seconds, 1),
        fusion_epochs_spent=sum(max(t.intermediate_values, default=0) for t in trials),
        fusion_epochs_full=settings.trials * settings.epochs,
        interrupted=interrupted,
        stop_reason=stop_reason,
    )


def _base(settings: SearchSettings, space_base: dict[str, Any]) -> dict[str, Any]:
    own = {"data.path": settings.data, "model.language_model": settings.lm, "training.epochs": settings.epochs}
    return (
        space_base
        | own
        | settings.overrides
        | {"training.seed": settings.overrides.get("training.seed", settings.seed)}
    )


def _language_model(settings: SearchSettings, space_base: dict[str, Any]) -> LanguageModelFacts:
    """Sizes of the language model in use, cut to ``model.lm_layers``."""
    kept = _base(settings, space_base).get("model.lm_layers")
    facts = lm_store.facts(settings.lm)
    return facts if kept is None else replace(facts, num_layers=min(int(kept), facts.num_layers))


def _repair_journal(path: Path) -> None:
    """Undo what a driver that died while writing left behind.

    A torn last line would swallow the next one and make the journal unreadable, and Optuna waits half a minute for a
    lock that nobody holds.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    content = path.read_bytes() if path.is_file() else b""
    if content and not content.endswith(b"\n"):
        os.truncate(path, content.rfind(b"\n") + 1)


def _git_commit() -> str | None:
    """The commit of the code, if it runs from a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _storage(path: Path) -> JournalStorage:
    return JournalStorage(JournalFileBackend(str(path)))
