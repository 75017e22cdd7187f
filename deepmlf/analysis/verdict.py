"""Does a search's choice hold? Its best settings, trained again with fresh seeds and measured on the test split."""

import json
import math
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from scipy import stats

from deepmlf.analysis.results import place_of_trial
from deepmlf.data.dataset import Dataset
from deepmlf.errors import SearchError
from deepmlf.inference.evaluate import evaluate_trial
from deepmlf.places import RemoteFolder, is_remote, join
from deepmlf.tune.cluster.connect import connected, map_on_cluster
from deepmlf.tune.cluster.node_files import DATA, LANGUAGE_MODEL, overrides_here, serving
from deepmlf.tune.decide.searcher import OVERRIDES
from deepmlf.tune.experiment.remote import MANIFEST, open_experiment, open_trial
from deepmlf.tune.experiment.study import open_study, own_trials
from deepmlf.tune.objective import Objective, best_first, make_objectives
from deepmlf.tune.search import resume_search, run_search
from deepmlf.tune.settings import SearchSettings, read_manifest

_TRIAL, _SEED = "confirmed_trial", "training.seed"
_CONFIDENCE = 0.95


def confirm(
    place: str | Path,
    *,
    top: int = 3,
    seeds: int = 5,
    concurrent: int | None = None,
    address: str | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Train an experiment's best settings again and compare them on the test split.

    The retrained trials are an experiment of their own inside the first one, ``confirm-`` with the numbers of the
    trials and how many seeds: what a kill left unfinished goes on when it is asked for again.

    Args:
        place: The experiment's folder or URI.
        top: Settings, best first by the search's own objective.
        seeds: Seeds of each, none of them one that the search trained any of them with.
        concurrent: Trials at a time; None takes the search's number.
        address: Of the Ray cluster to run on; None takes the one that the search began on.
        quiet: Print nothing.

    Returns:
        ``settings`` (one entry per setting: ``trial`` of the search, ``seeds``, and ``mean`` and ``std`` of each test
        metric), ``differences`` (the search's choice minus its runner-up, paired by seed: ``mean`` and its 95 %
        interval ``low`` to ``high`` for each metric) and ``verdict`` (``holds``, ``undecided`` or ``fails``).

    Raises:
        SearchError: If the experiment has fewer than two complete trials, the retraining stopped early, or too few
            retrained trials finished.
        DataError: If the test split lacks labels.
        DeepMLFError: If a retrained trial cannot be measured on the test split.
    """
    experiment = open_experiment(place)
    storage = str(place) if is_remote(place) else str(experiment)
    manifest = read_manifest(experiment)
    settings = SearchSettings.model_validate(manifest["settings"])
    settings = settings.model_copy(update={"address": address or settings.address, "quiet": quiet})
    objective = make_objectives(settings.objectives)[0]
    best = best_first(own_trials(open_study(experiment)), (objective,))[:top]
    if len(best) < 2:
        raise SearchError(f"{storage}: has {len(best)} complete trials; a comparison needs two at least")
    Dataset.open(settings.data).require_labels("test")
    name = f"confirm-{'-'.join(str(trial.number) for trial in best)}-x{seeds}"
    folder = experiment / name
    confirmation = join(storage, name) if is_remote(storage) else str(folder)
    with connected(settings.address):
        if (folder / MANIFEST).exists():
            summary = resume_search(confirmation, address=settings.address)
        else:
            with tempfile.TemporaryDirectory() as scratch:
                space = Path(scratch) / "confirm.py"
                space.write_text(_space_source(manifest["base"], best, seeds))
                trials = len(best) * seeds
                summary = run_search(_confirm_settings(settings, storage, name, space, trials, concurrent))
        if summary.stop_reason:
            reason = summary.stop_reason
            raise SearchError(f"{confirmation}: the retraining stopped ({reason}); ask for the same again to go on")
        if summary.interrupted or summary.out_of_time:
            raise SearchError(f"{confirmation}: stopped; ask for the same again to go on")
        folder = open_experiment(confirmation)
        retrained = [t for t in own_trials(open_study(folder)) if t.state == TrialState.COMPLETE]
        folders = [place_of_trial(confirmation, folder, trial.number) for trial in retrained]
        with serving(manifest["base"], settings.address) as served:
            metrics = map_on_cluster(
                partial(_test_metrics, manifest["base"], served),
                folders,
                "measuring on test",
                cpus=settings.cpus_per_trial,
                gpus=settings.gpus_per_trial,
            )
    measured: dict[int, dict[int, dict[str, float]]] = {trial.number: {} for trial in best}
    for trial, values in zip(retrained, metrics, strict=True):
        measured[trial.params[_TRIAL]][trial.params[_SEED]] = values
    report = compare(measured, objective)
    (folder / "confirm.json").write_text(json.dumps(report, indent=2))
    if is_remote(confirmation):
        RemoteFolder(confirmation).upload((folder / "confirm.json").read_bytes(), "confirm.json")
    _print(report, Console(quiet=quiet))
    return report


def compare(measured: dict[int, dict[int, dict[str, float]]], objective: Objective) -> dict[str, Any]:
    """Compare settings measured with several seeds each.

    Args:
        measured: Test metrics by setting, the search's choice first, and by seed.
        objective: Decides on the verdict.

    Returns:
        See `confirm`.

    Raises:
        SearchError: If the first setting shares two seeds with no other; one that does not is left out.
    """
    first, *others = measured
    rivals = [other for other in others if len(measured[first].keys() & measured[other].keys()) > 1]
    if not rivals:
        raise SearchError(f"fewer than two seeds finished for trial {first} and another; see the trials' error.txt")
    names = list(next(iter(measured[first].values())))
    settings = [
        {
            "trial": number,
            "seeds": sorted(by_seed),
            "mean": {name: float(np.mean([m[name] for m in by_seed.values()])) for name in names},
            "std": {name: float(np.std([m[name] for m in by_seed.values()], ddof=1)) for name in names},
        }
        for number, by_seed in ((number, measured[number]) for number in [first, *rivals])
    ]
    differences = {name: _paired(measured[first], measured[rivals[0]], name) for name in names}
    worse = [_paired(measured[first], measured[rival], objective.short) for rival in rivals]
    sign = 1 if objective.direction == "minimize" else -1  # so that above zero means that the rival is better
    edges = [sorted((sign * pair["low"], sign * pair["high"])) for pair in worse]
    beaten = [sign * pair["mean"] > 0 for pair in worse]
    verdict = "fails" if any(low > 0 for low, _ in edges) else "undecided" if any(beaten) else "holds"
    return {"settings": settings, "differences": differences, "verdict": verdict, "objective": objective.short}


def verdict_line(report: dict[str, Any]) -> str:
    """What a report's verdict means."""
    first = report["settings"][0]["trial"]
    meaning = {
        "holds": f"the search's choice, trial {first}, is the best on test, too",
        "undecided": f"another setting is better than trial {first} on test, but within what seeds alone may do",
        "fails": f"another setting is better than trial {first} on test, beyond what seeds alone may do",
    }[report["verdict"]]
    return f"{report['objective']}: {meaning} ({_CONFIDENCE:.0%} intervals)"


def _paired(first: dict[int, dict[str, float]], second: dict[int, dict[str, float]], name: str) -> dict[str, float]:
    """Mean of first minus second over the seeds that both have, and the interval of Student's t."""
    shared = sorted(first.keys() & second.keys())
    deltas = np.array([first[seed][name] - second[seed][name] for seed in shared])
    mean, error = float(deltas.mean()), float(stats.sem(deltas))
    half = 0.0 if math.isclose(error, 0.0) else float(stats.t.ppf((1 + _CONFIDENCE) / 2, len(deltas) - 1)) * error
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _test_metrics(base: dict[str, Any], served: dict[str, Any], trial: str) -> dict[str, float]:
    here = overrides_here(base, served)
    return evaluate_trial(open_trial(trial), language_model=here.get(LANGUAGE_MODEL), trained_on=here.get(DATA))


def _space_source(base: dict[str, Any], best: list[FrozenTrial], seeds: int) -> str:
    overrides = {trial.number: json.loads(trial.user_attrs[OVERRIDES]) for trial in best}
    seed = max((base | chosen)[_SEED] for chosen in overrides.values())
    return (
        '"""The best settings of an experiment, each with several seeds."""\n\n'
        f"BASE = {base!r}\n"
        f"SETTINGS = {overrides!r}\n\n\n"
        "def space(trial):\n"
        f"    number = trial.suggest_categorical({_TRIAL!r}, list(SETTINGS))\n"
        f"    seed = trial.suggest_int({_SEED!r}, {seed + 1}, {seed + seeds})\n"
        f"    return SETTINGS[number] | {{{_SEED!r}: seed}}\n"
    )


def _confirm_settings(
    settings: SearchSettings, storage: str, name: str, space: Path, trials: int, concurrent: int | None
) -> SearchSettings:
    overrides = {key: value for key, value in settings.overrides.items() if key != _SEED}
    return settings.model_copy(
        update={
            "space": str(space),
            "storage": storage,
            "name": name,
            "trials": trials,
            "concurrent": concurrent or settings.concurrent,
            "sampler": "grid",
            "scheduler": "none",
            "overrides": overrides,
            "study_storage": None,
            "warm_start": None,
            "time_budget": None,
        }
    )


def _print(report: dict[str, Any], console: Console) -> None:
    names = list(report["differences"])
    table = Table("trial", "seeds", *names, title="Test metrics, mean ± standard deviation over seeds")
    for setting in report["settings"]:
        cells = [f"{setting['mean'][name]:.4f} ± {setting['std'][name]:.4f}" for name in names]
        table.add_row(str(setting["trial"]), str(len(setting["seeds"])), *cells)
    first, second = (setting["trial"] for setting in report["settings"][:2])
    pairs = [f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]" for d in report["differences"].values()]
    table.add_row(f"{first} - {second}", "paired", *pairs)
    console.print(table)
    console.print(verdict_line(report), highlight=False)
