"""How soon a search finds a good setting, on problems whose trials cost nothing: no training.

The real searcher and scheduler run in simulated time, four trials at once, until a budget of epochs is spent. Problems
are of two kinds:

- ``planted``: a stand-in for DeepMLF with 28 dimensions, a known best setting, curves that cross, noise and failures;
  one problem per seed, 1000 epochs, regret relative to the best possible MAE;
- ``lcbench``, ``xgboost``, ``taskset``: third parties' curves, where the shared folder has them; 32 full trainings,
  regret 0 at the best that is known and 1 at the median random setting.

Arms are searches as they are by default (``auto``), with another ``--sampler``, with the published setting first
(``published_first``) or a bad one (``bad_first``), and Ray's own ``OptunaSearch`` with Ray's own ASHA (``stock``;
``stock_rays_rungs`` has Ray's default rungs, too). Problem and seed are the same for all arms. Seeds below 1000 are for
choosing and are not to be published.

Each run is a line of ``--out``, and is not repeated if that has it. Prints one JSON line, of all runs that were asked
for: per kind quartiles of each arm, and ``auto`` against each other one.

    python -m benchmarks.search_quality --kinds planted,lcbench --arms auto,stock --seeds 20 --out runs.jsonl
"""

import argparse
import json
import logging
import multiprocessing
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna

from benchmarks.parts.paired import SHARES, TARGET, Run, compare, summarise
from benchmarks.parts.simulation import Arm, simulate
from benchmarks.problems import Problem, third_party
from benchmarks.problems.planted import PUBLISHED, Planted

FIRST_SEED = 1000
_BAD_OF = 100


def bad_setting(problem: Problem) -> dict[str, Any]:
    """The worst of 100 random settings that train to their end, as somebody might believe in it."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    drawn = []
    for number in range(_BAD_OF):
        trial = study.ask()
        curve = problem.curve(problem.space(trial), number)
        if curve.failed is None:
            drawn.append((curve.true[-1], number))
    params: dict[str, Any] = study.trials[max(drawn)[1]].params
    return params


ARMS = {
    "auto": Arm("auto"),
    "curves": Arm("curves"),
    "tpe": Arm("tpe"),
    "published_first": Arm("auto", priors=lambda problem: [PUBLISHED]),
    "bad_first": Arm("auto", priors=lambda problem: [bad_setting(problem)]),
    "random": Arm("random"),
    "stock": Arm("stock"),
    "stock_rays_rungs": Arm("stock", has_own_rungs=False),
}
KINDS: dict[str, Callable[[int], list[Problem]]] = {
    "planted": lambda seed: [Planted(seed)],
    "lcbench": lambda seed: [third_party.LCBench(task) for task in third_party.LCBENCH_TASKS],
    "xgboost": lambda seed: [third_party.XGBoost(task) for task in third_party.XGBOOST_TASKS],
    "taskset": lambda seed: [third_party.TaskSet(task) for task in third_party.TASKSET_TASKS],
}
FULL_TRAININGS = 32
BUDGETS = {"planted": 1000}
"""Epochs of a kind's searches, if not `FULL_TRAININGS`."""


def measure(job: tuple[str, str, int, Path, frozenset[str]]) -> None:
    """Run one arm on a kind's problems with one seed, and append a line for each that is not done."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    kind, arm, seed, out, done = job
    for problem in KINDS[kind](seed):
        if f"{arm} {problem.name} {seed}" in done:
            continue
        budget = BUDGETS.get(kind, FULL_TRAININGS * problem.epochs)
        begun = time.process_time()
        outcome = simulate(ARMS[arm], problem, seed, budget)
        row = {
            "kind": kind,
            "arm": arm,
            "problem": problem.name,
            "seed": seed,
            "regrets": [outcome.regrets[int(budget * share) - 1] for share in SHARES],
            "epochs_to_target": outcome.first_below(TARGET),
            "seconds_to_target": outcome.seconds_until(TARGET),
            "cpu_seconds": round(time.process_time() - begun, 2),
        }
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def read(out: Path, seeds: range) -> dict[tuple[str, str], list[Run]]:
    """Runs of these seeds that a file has, by kind and arm."""
    found: dict[tuple[str, str], list[Run]] = {}
    for row in map(json.loads, out.read_text().splitlines()):
        if row["seed"] in seeds:
            run = Run(
                row["problem"], row["seed"], tuple(row["regrets"]), row["epochs_to_target"], row["seconds_to_target"]
            )
            found.setdefault((row["kind"], row["arm"]), []).append(run)
    return found


def report(runs: dict[tuple[str, str], list[Run]], kinds: list[str], arms: list[str]) -> dict[str, Any]:
    """What is printed; of the third parties' kinds together, too."""
    measured: dict[str, Any] = {}
    groups = {kind: [kind] for kind in kinds}
    if len(third := [kind for kind in kinds if kind != "planted"]) > 1:
        groups["third parties"] = third
    for group, members in groups.items():
        found = {arm: [run for kind in members for run in runs.get((kind, arm), [])] for arm in arms}
        measured[group] = {"arms": {arm: summarise(rows) for arm, rows in found.items() if rows}}
        if found.get("auto"):
            measured[group]["auto_against"] = {
                arm: compare(found["auto"], rows) for arm, rows in found.items() if rows and arm != "auto"
            }
    return measured


def main() -> None:
    """Measure what is missing and print one JSON line."""
    parser = argparse.ArgumentParser(description="How soon searches find a good setting.")
    parser.add_argument("--kinds", default="planted", help=f"Some of {', '.join(KINDS)}.")
    parser.add_argument("--arms", default="auto,stock,random", help=f"Some of {', '.join(ARMS)}.")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    parser.add_argument("--out", type=Path, default=Path("search_quality.jsonl"), help="File of the runs.")
    asked = parser.parse_args()
    kinds, arms = asked.kinds.split(","), asked.arms.split(",")
    seeds = range(asked.first_seed, asked.first_seed + asked.seeds)
    rows = map(json.loads, asked.out.read_text().splitlines()) if asked.out.exists() else []
    done = frozenset(f"{row['arm']} {row['problem']} {row['seed']}" for row in rows)
    started = time.perf_counter()
    jobs = [(kind, arm, seed, asked.out, done) for seed in seeds for kind in kinds for arm in arms]
    with multiprocessing.Pool(os.cpu_count()) as pool:
        pool.map(measure, jobs, chunksize=1)
    print(
        json.dumps(
            {
                "benchmark": "search_quality",
                "seeds": [seeds.start, seeds.stop],
                "measured": report(read(asked.out, seeds), kinds, arms),
                "seconds": round(time.perf_counter() - started, 1),
            }
        )
    )


if __name__ == "__main__":
    main()
