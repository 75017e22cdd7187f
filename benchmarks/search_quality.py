"""How many fusion epochs a search needs, on a surrogate of DeepMLF whose best setting is known; no training.

The real searcher and scheduler run in simulated time, four trials at once, against `surrogate.py`. Regret is how much
worse than the best possible MAE the weights of the incumbent are, without noise; the incumbent is the trial with the
best reported value, stopped early or not. Five arms see the same surrogates and spend the same fusion epochs:

- ``ours``: TPE and ASHA as a search has them by default, the published setting of MOSI evaluated first;
- ``ours_without_priors``: the same without that;
- ``stock``: Ray's own ``OptunaSearch`` with Ray's ASHA at the same rungs;
- ``random_asha``, ``random``: random settings with ASHA, and without.

Prints one JSON line: quartiles of the regret after 100, 300 and 1000 epochs, and of the epochs until it first is 5 %
(null: not within 1000).

    python -m benchmarks.search_quality [--seeds 40]

What was tried on the way to the defaults, and the figures it gave, are in ``README.md`` beside this file.
"""

import argparse
import heapq
import json
import logging
import math
import multiprocessing
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks import surrogate
from deepmlf.config import TrialConfig
from deepmlf.training.reports import FIDELITY
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.decide.samplers import make_sampler
from deepmlf.tune.decide.scheduler import make_scheduler
from deepmlf.tune.decide.searcher import OptunaSearcher
from deepmlf.tune.messages import SearchTerms, TrialFailed, TrialOrder
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.base import Base
from deepmlf.tune.space.bound import BoundSpace
from deepmlf.tune.space.load import SearchSpace
from deepmlf.tune.worker.wire import bare_config, order_of, result_of

ARMS = ("ours", "ours_without_priors", "stock", "random_asha", "random")
BUDGET, CHECKPOINTS, TARGET = 1000, (100, 300, 1000), 0.05
FIRST_SEED = 200  # the surrogate was calibrated, and the search's defaults chosen, on seeds below
CONCURRENT = 4
SETTINGS = SearchSettings(
    data="", space="surrogate", trials=BUDGET, epochs=surrogate.EPOCHS, concurrent=CONCURRENT, seed=0
)
OBJECTIVES = make_objectives(SETTINGS.objectives)
TERMS = SearchTerms(
    place="", experiment_id="", name="surrogate", objectives=(OBJECTIVES[0].name,), train="", threads=1, cache_gb=0.0,
    keep=1,
)  # fmt: skip


@dataclass(eq=False)
class Trial:
    """A simulated trial; the first two fields are what a scheduler looks at."""

    trial_id: str
    config: dict[str, Any]
    curve: surrogate.Curve
    epoch: int = 0


@dataclass
class Outcome:
    """Regret of the incumbent after each fusion epoch spent."""

    regrets: list[float] = field(default_factory=list)
    best: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Per trial that has not failed: its best reported value, and what its weights are worth."""

    def spend(self) -> None:
        """Count one epoch."""
        worth = min(self.best.values())[1] if self.best else math.inf
        self.regrets.append(worth / surrogate.BEST_MAE - 1)

    def first_below(self, regret: float) -> float:
        """Epochs until the incumbent's regret first was this low; infinite if it never was."""
        return next((epoch for epoch, value in enumerate(self.regrets, start=1) if value <= regret), math.inf)


class UncheckedOrders(Orders):
    """Orders of settings that need not fit a language model: the surrogate has none."""

    def again(self, number: int, overrides: dict[str, Any]) -> TrialOrder:
        """See `Orders.again`."""
        config = TrialConfig.from_overrides(overrides)
        return TrialOrder(number=number, config=config, overrides=overrides, terms=TERMS)


def make_arm(arm: str, seed: int) -> tuple[Searcher, TrialScheduler]:
    """The searcher and the scheduler of an arm."""
    study = optuna.create_study()
    scheduler = make_scheduler(
        "none" if arm == "random" else "asha",
        study,
        OBJECTIVES[0],
        epochs=surrogate.EPOCHS,
        grace_period=SETTINGS.first_rung,
        reduction_factor=SETTINGS.reduction_factor,
        seed=seed,
    )
    if arm == "stock":
        asha = ASHAScheduler(
            metric=OBJECTIVES[0].name,
            mode=OBJECTIVES[0].mode,
            time_attr=FIDELITY,
            max_t=surrogate.EPOCHS,
            grace_period=SETTINGS.first_rung,
            reduction_factor=SETTINGS.reduction_factor,
        )

        def space(trial: optuna.Trial) -> dict[str, Any]:
            return surrogate.space(trial, surrogate.LANGUAGE_MODEL)

        return OptunaSearch(space, metric=OBJECTIVES[0].name, mode=OBJECTIVES[0].mode, seed=seed), asha
    if arm == "ours":
        study.enqueue_trial(surrogate.PUBLISHED)
    name = SETTINGS.sampler if arm.startswith("ours") else "random"
    searched = SearchSpace("surrogate", surrogate.space, {}, [], "")
    searcher = OptunaSearcher(
        study,
        OBJECTIVES,
        lambda number: make_sampler(name, seed, number, trials=SETTINGS.trials, concurrent=CONCURRENT),
        UncheckedOrders(BoundSpace(searched, Base.of({}), surrogate.LANGUAGE_MODEL), TERMS),
        trials=SETTINGS.trials,
        unrecorded=[],
    )
    return searcher, scheduler


def simulate(arm: str, seed: int, budget: int = BUDGET) -> Outcome:
    """Run one search, in the order of calls that Ray's controller keeps, until the budget is spent."""
    searcher, scheduler = make_arm(arm, seed)
    world, outcome = surrogate.Surrogate(seed), Outcome()
    events: list[tuple[float, int, Trial]] = []
    started = 0

    def start(now: float) -> None:
        nonlocal started
        suggested = searcher.suggest(f"trial{started}")
        assert isinstance(suggested, dict)
        is_ours = isinstance(searcher, OptunaSearcher)
        curve = world.curve(order_of(suggested).overrides if is_ours else suggested, started)
        trial = Trial(f"trial{started}", suggested if is_ours else bare_config(started), curve)
        scheduler.on_trial_add(None, trial)
        heapq.heappush(events, (now + curve.startup_seconds + curve.epoch_seconds, started, trial))
        started += 1

    for _ in range(CONCURRENT):
        start(0.0)
    while len(outcome.regrets) < budget:
        now, number, trial = heapq.heappop(events)
        trial.epoch += 1
        if advance(trial, searcher, scheduler, outcome):
            heapq.heappush(events, (now + trial.curve.epoch_seconds, number, trial))
        else:
            start(now)
        outcome.spend()
    return outcome


def advance(trial: Trial, searcher: Searcher, scheduler: TrialScheduler, outcome: Outcome) -> bool:
    """One epoch of a trial; whether it goes on."""
    curve, epoch = trial.curve, trial.epoch
    if epoch > len(curve.observed):
        outcome.best.pop(trial.trial_id, None)
        if isinstance(searcher, OptunaSearcher):
            searcher.on_trial_complete(trial.trial_id, result_of(TrialFailed(str(curve.failed))))
        else:
            searcher.on_trial_complete(trial.trial_id, error=True)
        scheduler.on_trial_remove(None, trial)
        return False
    outcome.best[trial.trial_id] = min(curve.observed[:epoch]), curve.true[epoch - 1]
    result = {
        "training_iteration": epoch,
        "epoch": epoch,
        FIDELITY: epoch,
        OBJECTIVES[0].name: curve.observed[epoch - 1],
    }
    if epoch == surrogate.EPOCHS:
        result["finished"] = "full"
    stopped = scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
    if not stopped:
        searcher.on_trial_result(trial.trial_id, result)
    if stopped or epoch == surrogate.EPOCHS:
        scheduler.on_trial_complete(None, trial, result)
        searcher.on_trial_complete(trial.trial_id, result)
        return False
    return True


def _measure(job: tuple[str, int]) -> tuple[str, list[float], float]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    logging.disable(logging.WARNING)
    arm, seed = job
    outcome = simulate(arm, seed)
    return arm, [outcome.regrets[epochs - 1] for epochs in CHECKPOINTS], outcome.first_below(TARGET)


def _quartiles(values: list[float]) -> list[float | None]:
    found = np.percentile(values, (25, 50, 75), method="nearest")
    return [round(float(value), 4) if math.isfinite(value) else None for value in found]


def main() -> None:
    """Measure all arms and print one JSON line."""
    parser = argparse.ArgumentParser(description="Regret of searches on a surrogate of DeepMLF.")
    parser.add_argument("--seeds", type=int, default=40)
    seeds = parser.parse_args().seeds
    started = time.perf_counter()
    jobs = [(arm, seed) for seed in range(FIRST_SEED, FIRST_SEED + seeds) for arm in ARMS]
    with multiprocessing.Pool(2) as pool:
        measured = pool.map(_measure, jobs, chunksize=1)
    arms: dict[str, dict[str, list[float | None]]] = {}
    for arm in ARMS:
        rows = [(regrets, epochs) for name, regrets, epochs in measured if name == arm]
        arms[arm] = {
            f"regret_{epochs}": _quartiles([regrets[index] for regrets, _ in rows])
            for index, epochs in enumerate(CHECKPOINTS)
        }
        arms[arm]["epochs_to_5_percent"] = _quartiles([epochs for _, epochs in rows])
    seconds = round(time.perf_counter() - started, 1)
    print(json.dumps({"benchmark": "search_quality", "seeds": seeds, "arms": arms, "seconds": seconds}))


if __name__ == "__main__":
    main()
