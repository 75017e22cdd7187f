"""Does a search's choice hold? Its best settings, trained again, compared on the test split."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from scipy.special import stdtrit

from deepmlf.analysis.distinct import ranked_settings
from deepmlf.errors import SearchError
from deepmlf.places import Place
from deepmlf.seal import sealed
from deepmlf.tables import Column, show_columns
from deepmlf.tune.experiment.layout import VERDICT
from deepmlf.tune.experiment.stored import StoredExperiment, open_experiment
from deepmlf.tune.objective import Objective
from deepmlf.tune.retrain import Measured, retrain

_CONFIDENCE = 0.95
_ROUNDING = 1e-12  # relative to the values: differences of sums may vary by as much


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

    Settings are ranked by the mean over their trials, those that were stopped early included, and each is trained to
    its end here; trials of one setting, whatever was drawn for them, count as one. The retrained trials are an
    experiment of their own inside the first one, ``confirm-`` with the numbers of the trials and how many seeds: what a
    kill left unfinished goes on when it is asked for again.

    >>> report = confirm("runs/first", top=2, seeds=2, quiet=True)
    >>> report["verdict"] in ("holds", "undecided", "fails"), len(report["settings"])
    (True, 2)

    Args:
        place: The experiment's folder or URI.
        top: Settings, best first by the search's own objective.
        seeds: Seeds of each, none of them one that the search trained anything with.
        concurrent: Trials at a time; None takes the search's number.
        address: Of the Ray cluster to run on; None takes the one that the search began on.
        quiet: Print nothing.

    Returns:
        ``verdict``: ``holds`` if the search's choice is better than each other setting, ``fails`` if another one is
        better than it, both beyond what seeds alone may do, or ``undecided``. ``settings``, the search's choice first:
        ``trial`` of the search, the fusion epoch that it was ``stopped_at``, or None, the ``seeds`` that finished,
        ``mean`` and ``std`` of each test metric, and of the others ``difference`` (the choice minus this one, paired by
        seed: ``mean`` and its interval ``low`` to ``high`` for each metric) and whether it ``is`` ``worse``, ``better``
        or ``undecided``. ``differences`` repeats the difference of the first of the others. ``asked``: seeds of each
        setting. ``baselines``: test metrics of simple models, see `deepmlf.training.baselines`; ``unbeaten``: those
        that the mean of the search's choice does not beat.

    Raises:
        SearchError: If two settings with two seeds are not asked for, the experiment has fewer than two settings that
            came to anything, the retraining stopped early, or too few retrained trials finished.
        DataError: If the test split lacks labels.
        DeepMLFError: If a retrained trial cannot be measured on the test split.
    """
    for asked, value in (("top", top), ("seeds", seeds)):
        if value < 2:
            raise SearchError(f"{asked}={value}: a comparison needs two at least")
    experiment = open_experiment(place)
    ranked = _comparable(experiment)
    console = Console(quiet=quiet)
    if len(ranked) < top:
        console.print(f"{len(ranked)} settings, all that came to anything, are compared", highlight=False)
    best = [trials[0] for trials in ranked[:top]]
    stopped = stopped_at(best)
    if stopped:
        console.print(stopped_line(stopped, experiment.manifest.settings.epochs), highlight=False, soft_wrap=True)
    retrained = retrain(experiment, best, seeds, concurrent=concurrent, address=address, quiet=quiet)
    report = compare(retrained.measured, experiment.objectives[0], seeds) | {"baselines": retrained.baselines}
    report["settings"] = [entry | {"stopped_at": stopped.get(entry["trial"])} for entry in report["settings"]]
    report["unbeaten"] = unbeaten(report, experiment.objectives[0])
    (retrained.experiment.folder / VERDICT).write_text(json.dumps(sealed(report), indent=2))
    retrained.experiment.place.publish(VERDICT)
    show_verdict(report, console)
    return report


def stopped_at(trials: Iterable[FrozenTrial]) -> dict[int, int]:
    """Those of some trials that were stopped early, by number, and the fusion epochs that they had reached."""
    return {t.number: max(t.intermediate_values, default=0) for t in trials if t.state == TrialState.PRUNED}


def stopped_line(stopped: Mapping[int, int], full: int) -> str:
    """That the search stopped trials early, which are trained to their end here."""
    whom = ", ".join(f"trial {number} at fusion epoch {epochs}" for number, epochs in stopped.items())
    return f"the search stopped {whom} of {full}: all settings are trained to their end here"


def _comparable(experiment: StoredExperiment) -> list[list[FrozenTrial]]:
    """The settings of an experiment, best first, if there are enough to compare."""
    ranked = ranked_settings(experiment)
    if len(ranked) < 2:
        raise SearchError(
            f"{experiment.place}: has {len(ranked)} settings that came to anything; a comparison needs two at least"
        )
    return ranked


def compare(measured: Measured, objective: Objective, seeds: int | None = None) -> dict[str, Any]:
    """Compare settings measured with several seeds each.

    Each other setting is compared with the search's choice by Student's t on the differences at the same seeds, which
    neither unequal spreads nor what a seed does to all settings mislead. The intervals hold together (Bonferroni): if
    all settings are equal, one of them lies off zero in at most 5 % of comparisons. Seeds that did not finish may be a
    setting's bad ones, so that a setting is better than another one only if it finished all.

    Args:
        measured: Test metrics by setting, the search's choice first, and by seed.
        objective: Decides on the verdict.
        seeds: That each setting was to be trained with; None takes as many as any has finished.

    Returns:
        See `confirm`.

    Raises:
        SearchError: If the first setting shares two seeds with no other.
    """
    first, *others = measured
    compared = [other for other in others if len(measured[first].keys() & measured[other].keys()) > 1]
    if not compared:
        raise SearchError(f"fewer than two seeds finished for trial {first} and another; see the trials' error.txt")
    asked = seeds or max(map(len, measured.values()))
    names = list(next(iter(measured[first].values())))
    settings = [{"trial": first} | _summary(measured[first], names)]
    for other in others:
        entry = {"trial": other} | _summary(measured[other], names)
        if other in compared:
            pairs = {name: _paired(measured[first], measured[other], name, len(compared)) for name in names}
            finished = len(measured[first]) >= asked, len(measured[other]) >= asked
            entry |= {"difference": pairs, "is": _judged(pairs[objective.short], objective, *finished)}
        else:
            entry |= {"difference": None, "is": "undecided"}
        settings.append(entry)
    found = [entry["is"] for entry in settings[1:]]
    return {
        "settings": settings,
        "differences": settings[1 + others.index(compared[0])]["difference"],
        "verdict": "fails" if "better" in found else "holds" if set(found) == {"worse"} else "undecided",
        "objective": objective.short,
        "asked": asked,
    }


def unbeaten(report: dict[str, Any], objective: Objective) -> list[str]:
    """The baselines of a report that the mean of the search's choice does not beat."""
    reached = report["settings"][0]["mean"][objective.short]
    values = {name: metrics.get(objective.short) for name, metrics in report["baselines"].items()}
    return [name for name, value in values.items() if value is not None and not objective.is_better(reached, value)]


def unbeaten_line(report: dict[str, Any]) -> str | None:
    """What of the baselines the search's choice does not beat; None if it beats them all."""
    names = report.get("unbeaten")
    if not names:
        return None
    return f"the search's choice, trial {report['settings'][0]['trial']}, does not beat {'; '.join(names)} on test"


def verdict_line(report: dict[str, Any]) -> str:
    """What a report's verdict means."""
    if "asked" not in report:
        return (
            f"{report['objective']}: compared as an earlier release did, which took chance for a difference too often; "
            "the same `deepmlf confirm` again compares anew, and trains nothing that is trained"
        )
    choice, *others = report["settings"]
    decisive = {"holds": "worse", "fails": "better", "undecided": "undecided"}[report["verdict"]]
    which = [entry["trial"] for entry in others if entry["is"] == decisive]
    meaning = {
        "holds": "{choice}, is better on test than {others}, beyond what seeds alone may do",
        "fails": "{others} {are} better on test than {choice}, beyond what seeds alone may do",
        "undecided": "these seeds do not tell {choice}, from {others} on test",
    }[report["verdict"]].format(
        choice=f"the search's choice, trial {choice['trial']}",
        others=_spelled(which),
        are="is" if len(which) == 1 else "are",
    )
    short = [
        f"trial {entry['trial']} finished {len(entry['seeds'])} of {report['asked']} seeds"
        for entry in report["settings"]
        if len(entry["seeds"]) < report["asked"]
    ]
    missing = "".join(f"; {line}" for line in short)
    return f"{report['objective']}: {meaning} ({_CONFIDENCE:.0%} intervals that hold together){missing}"


def _spelled(trials: list[int]) -> str:
    """Some trials in a sentence."""
    *most, last = map(str, trials)
    return f"trials {', '.join(most)} and {last}" if most else f"trial {last}"


def _summary(by_seed: dict[int, dict[str, float]], names: list[str]) -> dict[str, Any]:
    """The seeds that a setting finished, and its metrics' means and deviations over them; None for too few."""
    values = {name: [metrics[name] for metrics in by_seed.values()] for name in names}
    return {
        "seeds": sorted(by_seed),
        "mean": {name: float(np.mean(found)) if found else None for name, found in values.items()},
        "std": {name: float(np.std(found, ddof=1)) if len(found) > 1 else None for name, found in values.items()},
    }


def _paired(
    first: dict[int, dict[str, float]], second: dict[int, dict[str, float]], name: str, comparisons: int
) -> dict[str, float | None]:
    """Mean of first minus second over the seeds that both have, and its interval among so many that hold together.

    It has none where all differences are the same: of a metric that takes few values they may be by chance.
    """
    shared = sorted(first.keys() & second.keys())
    deltas = np.array([first[seed][name] - second[seed][name] for seed in shared])
    mean = float(deltas.mean())
    size = max(abs(by_seed[seed][name]) for by_seed in (first, second) for seed in shared)
    if np.ptp(deltas) <= _ROUNDING * size:
        return {"mean": mean, "low": None, "high": None}
    outside = (1 - _CONFIDENCE) / 2 / comparisons
    half = float(stdtrit(len(deltas) - 1, 1 - outside) * deltas.std(ddof=1)) / len(deltas) ** 0.5
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _judged(pair: dict[str, float | None], objective: Objective, is_whole: bool, other_is_whole: bool) -> str:
    """Whether the second of a pair is ``worse`` or ``better`` than the first; whoever is better finished all seeds."""
    low, high = pair["low"], pair["high"]
    if low is None or high is None or low <= 0 <= high:
        return "undecided"
    is_worse = (high < 0) == (objective.direction == "minimize")
    if not (is_whole if is_worse else other_is_whole):
        return "undecided"
    return "worse" if is_worse else "better"


def show_verdict(report: dict[str, Any], console: Console) -> None:
    """Print what `compare` returned."""
    choice, *others = report["settings"]
    names = list(report["differences"])
    metrics = Column("metric", names)
    settings = [
        Column(
            f"trial {one['trial']}, {_counted(len(one['seeds']), 'seed')}",
            [f"{_number(one['mean'][name])} ± {_number(one['std'][name])}" for name in names],
        )
        for one in report["settings"]
    ]
    show_columns(console, metrics, settings, "Test metrics, mean ± standard deviation over seeds")
    pairs = [
        Column(
            f"trial {choice['trial']} minus {one['trial']}",
            [f"{pair['mean']:+.4f} [{_number(pair['low'], '+')}, {_number(pair['high'], '+')}]"
             for pair in one["difference"].values()],
        )
        for one in others
        if one["difference"] is not None
    ]  # fmt: skip
    show_columns(console, metrics, pairs, "Differences, paired by seed")
    simple = [
        Column(name, [_number(of.get(metric)) for metric in names]) for name, of in report.get("baselines", {}).items()
    ]
    show_columns(console, metrics, simple, "Baselines on test")
    console.print(verdict_line(report), highlight=False, soft_wrap=True)
    if (line := unbeaten_line(report)) is not None:
        console.print(line, highlight=False, soft_wrap=True)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4f}"
