"""Do report, importances and ``confirm`` claim differences where there are none, and find those that there are?

No training: the real searcher and scheduler run in simulated time against worlds that differ in what matters. In the
A/A worlds nothing does: all trials learn alike, and differ by chance alone. Searches are

- ``search``: 40 trials with TPE and ASHA, in the planted problem's 28 dimensions;
- ``random``: 40 random settings, none of them stopped;
- ``grid``: the grids over depth, tokens and curriculum, three seeds each.

A claim of the report is a value that it calls worse than another one on any of its three questions; one of importances
is that they are shown; one of ``confirm`` is ``holds`` or ``fails``, with three settings and five seeds each.

What is there to be found is stated in standard deviations of what chance does to one training:

- grids in which one value is better than all others, by so much;
- random searches in which one setting matters, by the share of the variance that it explains;
- confirmations of a choice that is better than the two others, by so much.

Prints one JSON line.

    python -m benchmarks.aa_check [--searches 50]
"""

import argparse
import heapq
import json
import logging
import math
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.search import Searcher

from benchmarks.parts.simulation import CONCURRENT, OBJECTIVES, Outcome, Trial, advance, searching
from benchmarks.problems import Curve, planted
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.report.answers import QUESTIONS, Question, answer
from deepmlf.analysis.report.study_figures import importances
from deepmlf.analysis.verdict import compare
from deepmlf.training.reports import FIDELITY, EpochReport
from deepmlf.tune.decide.samplers import grid_points
from deepmlf.tune.experiment.manifest import Manifest
from deepmlf.tune.objective import best_first
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.base import Base
from deepmlf.tune.space.bound import BoundSpace
from deepmlf.tune.space.load import SearchSpace, load_space
from deepmlf.tune.worker.wire import order_of

TRIALS = 40
MAE, DEVIATION = 0.7, 0.01
"""What every training comes to where nothing matters, and what chance adds to it."""
GRID_EFFECTS = (2.0, 4.0, 6.0, 8.0)
SHARES, COMPLETE = (0.3, 0.6, 0.9), (10, 20, 40)
CONFIRM_EFFECTS, SEEDS = (1.0, 2.0, 3.0, 4.0), (3, 5, 10)

Effect = Callable[[dict[str, Any]], float]
"""What a setting adds to the MAE, in deviations."""


def no_effect(setting: dict[str, Any]) -> float:
    """Nothing matters."""
    return 0.0


@dataclass(frozen=True)
class OneValue:
    """One value of a setting is better than all others, which are alike."""

    name: str
    value: Any
    size: float

    def __call__(self, setting: dict[str, Any]) -> float:
        return 0.0 if setting[self.name] == self.value else self.size


@dataclass(frozen=True)
class OneSetting:
    """One setting matters, evenly over its range; chance explains the rest of the variance."""

    share: float

    def __call__(self, setting: dict[str, Any]) -> float:
        place = (setting["model.num_fusion_tokens"] - 13) / math.sqrt(48)  # of 2, 4, …, 24: mean and deviation
        return place * math.sqrt(self.share / (1 - self.share))


def curve_of(setting: dict[str, Any], number: int, seed: int, effect: Effect) -> Curve:
    """What a trial reports: a curve that is the same but for effect and chance, which is mostly of the whole trial."""
    generator = np.random.default_rng((seed, number))
    epochs = np.arange(1, planted.EPOCHS + 1)
    level = MAE + DEVIATION * (effect(setting) + generator.normal())
    observed = level + 0.6 * np.exp(-epochs / 3) + 0.2 * DEVIATION * generator.normal(size=len(epochs))
    return Curve(observed.tolist(), np.minimum.accumulate(observed).tolist(), None, 1.0, 0.0)


def searched(sampler: str, scheduler: str, seed: int, effect: Effect, trials: int = TRIALS) -> Records:
    """A whole search in simulated time."""
    settings = SearchSettings(
        data="",
        space="surrogate",
        trials=trials,
        epochs=planted.EPOCHS,
        sampler=sampler,
        scheduler=scheduler,
        concurrent=CONCURRENT,
        seed=seed,
    )
    study = optuna.create_study()
    space = BoundSpace(SearchSpace("planted", planted.space, {}, [], ""), Base.of({}), {"lm": planted.LANGUAGE_MODEL})
    searcher, rungs = searching(settings, study, space)
    running: list[tuple[float, int, Trial]] = []

    def start(now: float, number: int) -> None:
        suggested = searcher.suggest(f"trial{number}")
        if not isinstance(suggested, dict):
            assert suggested == Searcher.FINISHED
            return
        curve = curve_of(order_of(suggested).overrides, number, seed, effect)
        trial = Trial(f"trial{number}", suggested, curve)
        rungs.on_trial_add(None, trial)
        heapq.heappush(running, (now + 1, number, trial))

    for started in range(CONCURRENT):
        start(0.0, started)
    started, outcome = CONCURRENT, Outcome()
    while running:
        now, number, trial = heapq.heappop(running)
        trial.epoch += 1
        if advance(trial, searcher, rungs, outcome, settings.epochs):
            heapq.heappush(running, (now + 1, number, trial))
        else:
            start(now, started)
            started += 1
    return records_of(study, settings)


def gridded(question: Question, seed: int, effect: Effect) -> Records:
    """The grid of one of the paper's questions, every point trained to its end."""
    settings = SearchSettings(data="", space=question.space, sampler="grid", scheduler="none", seed=seed)
    space = BoundSpace(load_space(question.space), Base.of({}), {"lm": planted.LANGUAGE_MODEL})
    study = optuna.create_study()
    for point in grid_points(space, None, seed)[0]:
        study.enqueue_trial(point)
        trial = study.ask()
        study.tell(trial, min(curve_of(space.sample(trial), trial.number, seed, effect).observed))
    return records_of(study, settings)


def records_of(study: optuna.Study, settings: SearchSettings) -> Records:
    """What an analysis sees of a study."""
    trials = [
        TrialRecord(
            trial.number, trial.state.name, trial.params, dict(trial.params), trial.intermediate_values,
            trial.value if trial.state == TrialState.COMPLETE else None, {}, None, None, None, None, [],
            reports=tuple(EpochReport({FIDELITY: k, "valid/MAE": v}) for k, v in trial.intermediate_values.items()),
        )
        for trial in study.get_trials()
    ]  # fmt: skip
    manifest = Manifest.now(
        settings, space_source="", base={}, language_model=planted.LANGUAGE_MODEL, data_fingerprint="", secret=None
    )
    return Records(manifest, OBJECTIVES, trials, study)


def confirmed(effects: list[float], seeds: int, generator: np.random.Generator) -> str:
    """The verdict on settings of these effects, the choice first; half of what chance does is the seed's."""
    common = generator.normal(size=seeds)
    measured = {
        number: {
            seed: {"MAE": MAE + DEVIATION * (effect + math.sqrt(0.5) * (common[seed] + generator.normal()))}
            for seed in range(seeds)
        }
        for number, effect in enumerate(effects)
    }
    return str(compare(measured, OBJECTIVES[0], seeds)["verdict"])


def report_claims(records: Records) -> bool:
    """Whether the report calls a value worse than another one."""
    return any(answer(question, records).worse for question in QUESTIONS)


def named(records: Records) -> str | None:
    """The setting that importances put first, where they are shown."""
    _, shares = importances(records, 0)
    share = next((share for share in shares.values() if share), {})
    return max(share, key=share.__getitem__) if share else None


def _a_a(seed: int) -> dict[str, bool]:
    """One search of each kind in a world where nothing matters: what is claimed of it."""
    _hush()
    generator = np.random.default_rng((1, seed))
    found: dict[str, bool] = {}
    searches = {
        "search": searched("tpe", "asha", seed, no_effect),
        "random": searched("random", "none", seed, no_effect),
        "stopped random": searched("random", "asha", seed, no_effect),
    }
    for name, records in searches.items():
        found[f"{name}: report"] = report_claims(records)
        found[f"{name}: importances"] = named(records) is not None
        top = best_first(records.study.get_trials(), OBJECTIVES)[:3]
        found[f"{name}: confirm"] = confirmed([0.0] * len(top), 5, generator) != "undecided"
    grids = [gridded(question, seed, no_effect) for question in QUESTIONS]
    found["grid: report"] = any(map(report_claims, grids[:1]))
    found["grid: importances"] = named(grids[0]) is not None
    found["three grids: report"] = any(map(report_claims, grids))
    return found


def _power(seed: int) -> dict[str, bool | None]:
    """What is found of differences that are there; None where nothing is said."""
    _hush()
    generator = np.random.default_rng((2, seed))
    found: dict[str, bool | None] = {}
    for size in GRID_EFFECTS:
        for question, ours, other in zip(QUESTIONS, (5, 12, "av_first"), (1, 2, "joint"), strict=True):
            for value, verdict in ((ours, "agrees"), (other, "contradicts")):
                records = gridded(question, seed, OneValue(question.setting, value, size))
                found[f"{question.space} {size:g}: {verdict}"] = answer(question, records).verdict == verdict
    for share in SHARES:
        for trials in COMPLETE:
            first = named(searched("random", "none", seed, OneSetting(share), trials))
            found[f"importances {trials} {share:g}"] = None if first is None else first == "model.num_fusion_tokens"
    first = named(searched("tpe", "asha", seed, OneSetting(SHARES[-1])))
    found[f"importances search {SHARES[-1]:g}"] = None if first is None else first == "model.num_fusion_tokens"
    for size in CONFIRM_EFFECTS:
        for seeds in SEEDS:
            found[f"confirm holds {seeds} {size:g}"] = confirmed([0.0, size, size], seeds, generator) == "holds"
            found[f"confirm fails {seeds} {size:g}"] = confirmed([size, 0.0, size], seeds, generator) == "fails"
    return found


def _hush() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)


def main() -> None:
    """Measure and print one JSON line."""
    parser = argparse.ArgumentParser(description="Claims where nothing matters, and where something does.")
    parser.add_argument("--searches", type=int, default=50)
    parser.add_argument("--first-seed", type=int, default=0)
    options = parser.parse_args()
    started = time.perf_counter()
    seeds = range(options.first_seed, options.first_seed + options.searches)
    with multiprocessing.Pool(2) as pool:
        claims, power = pool.map(_a_a, seeds, chunksize=1), pool.map(_power, seeds, chunksize=1)
    said = {name: [row[name] for row in power if row[name] is not None] for name in power[0]}
    print(
        json.dumps(
            {
                "benchmark": "aa_check",
                "searches": len(claims),
                "claims": {name: sum(row[name] for row in claims) for name in claims[0]},
                "power": {name: {"said": len(rows), "right": sum(rows)} for name, rows in said.items()},
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
