"""Does a search's choice hold? Its best settings, trained again, compared on the test split."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.tune.experiment.layout import VERDICT
from deepmlf.tune.experiment.stored import open_experiment
from deepmlf.tune.objective import Objective, best_first
from deepmlf.tune.retrain import Measured, retrain

_CONFIDENCE = 0.95


def confirm(
    place: str | Path | Place,
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

    >>> report = confirm("runs/first", top=2, seeds=2, quiet=True)
    >>> report["verdict"] in ("holds", "undecided", "fails"), len(report["settings"])
    (True, 2)

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
    best = best_first(experiment.trials(), experiment.objectives)[:top]
    if len(best) < 2:
        raise SearchError(f"{experiment.place}: has {len(best)} complete trials; a comparison needs two at least")
    retrained, measured = retrain(experiment, best, seeds, concurrent=concurrent, address=address, quiet=quiet)
    report = compare(measured, experiment.objectives[0])
    (retrained.folder / VERDICT).write_text(json.dumps(report, indent=2))
    retrained.place.publish(VERDICT)
    show_verdict(report, Console(quiet=quiet))
    return report


def compare(measured: Measured, objective: Objective) -> dict[str, Any]:
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


def show_verdict(report: dict[str, Any], console: Console) -> None:
    """Print what `compare` returned."""
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
