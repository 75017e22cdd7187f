"""Whole searches in simulated time: the real searcher and scheduler, four trials at once, on problems without training.

The incumbent is the trial with the best reported value, stopped early or not; regret is what its weights are worth.
"""

import heapq
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler, TrialScheduler
from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from benchmarks.problems import Curve, Problem
from deepmlf.config.trial import TrialConfig
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.training.reports import FIDELITY
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.decide.samplers import make_sampler, settled
from deepmlf.tune.decide.scheduler import scheduler_of
from deepmlf.tune.decide.searcher import OptunaSearcher
from deepmlf.tune.messages import SearchTerms, TrialFailed, TrialOrder
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.space.base import Base
from deepmlf.tune.space.bound import BoundSpace
from deepmlf.tune.space.load import SearchSpace
from deepmlf.tune.worker.wire import bare_config, order_of, result_of

CONCURRENT = 4
NO_LIMIT = 10_000  # of trials
OBJECTIVES = make_objectives(["valid/MAE"])
_LM = LanguageModelFacts(num_layers=24, width=2048)
TERMS = SearchTerms(
    place="", experiment_id="", name="problem", objectives=(OBJECTIVES[0].name,), train="", threads=1, cache_gb=0.0,
    keep=1,
)  # fmt: skip


@dataclass(eq=False)
class Trial:
    """A simulated trial; the first two fields are what a scheduler looks at."""

    trial_id: str
    config: dict[str, Any]
    curve: Curve
    epoch: int = 0


@dataclass
class Outcome:
    """Regret of the incumbent after each fusion epoch spent."""

    regrets: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    """When each of those epochs ended: stages before fusion take their time, too."""
    best: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Per trial that has not failed: its best reported value, and what its weights are worth."""

    def spend(self, regret: Callable[[float], float], now: float) -> None:
        """Count one epoch, which has just ended."""
        self.seconds.append(now)
        self.regrets.append(regret(min(self.best.values())[1]) if self.best else math.inf)

    def first_below(self, regret: float) -> float:
        """Epochs until the incumbent's regret first was this low; infinite if it never was."""
        return next((epoch for epoch, value in enumerate(self.regrets, start=1) if value <= regret), math.inf)

    def seconds_until(self, regret: float) -> float:
        """The same in seconds of the search."""
        epochs = self.first_below(regret)
        return self.seconds[int(epochs) - 1] if math.isfinite(epochs) else math.inf


class UncheckedOrders(Orders):
    """Orders of settings that need not fit a language model: a problem has none."""

    def __init__(self, space: BoundSpace, terms: SearchTerms) -> None:
        super().__init__(space, terms)
        self._had = set[str]()

    def is_new(self, overrides: Mapping[str, Any]) -> bool:
        """See `Orders.is_new`: here all that a space returns takes effect."""
        return repr(sorted(overrides.items())) not in self._had

    def again(self, number: int, overrides: dict[str, Any]) -> TrialOrder:
        """See `Orders.again`."""
        self._had.add(repr(sorted(overrides.items())))
        known = {name: value for name, value in overrides.items() if "." in name}
        return TrialOrder(number=number, config=TrialConfig.from_overrides(known), overrides=overrides, terms=TERMS)


@dataclass(frozen=True)
class Arm:
    """A way to search.

    Args:
        sampler: As ``--sampler``; ``stock`` is Ray's own ``OptunaSearch``, with Ray's own ASHA.
        scheduler: As ``--scheduler``.
        has_own_rungs: Whether ASHA has the rungs that a search has by default; of ``stock`` it may be Ray's defaults.
        priors: Settings to be evaluated first, of a problem.
    """

    sampler: str
    scheduler: str = "asha"
    has_own_rungs: bool = True
    priors: Callable[[Problem], list[dict[str, Any]]] = lambda problem: []

    def make(self, problem: Problem, seed: int) -> tuple[Searcher, TrialScheduler]:
        """The searcher and the scheduler."""
        settings = SearchSettings(
            data="", space="problem", trials=NO_LIMIT, epochs=problem.epochs, concurrent=CONCURRENT,
            sampler=settled(self.sampler, 1),
            scheduler=self.scheduler, seed=seed,
        )  # fmt: skip
        if self.sampler == "stock":
            return _stock(settings, problem, has_own_rungs=self.has_own_rungs)
        study = optuna.create_study()
        for prior in self.priors(problem):
            study.enqueue_trial(prior)
        space = SearchSpace("problem", lambda trial, lm: problem.space(trial), {}, [], "")
        return searching(settings, study, BoundSpace(space, Base.of({}), {"lm": _LM}))


def searching(
    settings: SearchSettings, study: optuna.Study, space: BoundSpace
) -> tuple[OptunaSearcher, TrialScheduler]:
    """The searcher and the scheduler that a search of these settings has."""
    scheduler = scheduler_of(settings, study, OBJECTIVES[0])
    orders = UncheckedOrders(space, TERMS)
    sampler = partial(
        make_sampler, settings.sampler, settings.seed, space=orders.sample, is_new=orders.is_new,
        epochs=settings.epochs, trials=settings.trials, concurrent=settings.concurrent,
    )  # fmt: skip
    searcher = OptunaSearcher(
        study, OBJECTIVES, sampler, orders, seed=settings.seed, trials=settings.trials, unrecorded=[]
    )
    return searcher, scheduler


def _stock(settings: SearchSettings, problem: Problem, *, has_own_rungs: bool) -> tuple[Searcher, TrialScheduler]:
    name, mode = OBJECTIVES[0].name, OBJECTIVES[0].mode
    rungs = {"grace_period": settings.first_rung, "reduction_factor": settings.reduction_factor}
    asha = ASHAScheduler(
        metric=name, mode=mode, time_attr=FIDELITY, max_t=problem.epochs, **(rungs if has_own_rungs else {})
    )
    return OptunaSearch(problem.space, metric=name, mode=mode, seed=settings.seed), asha


def simulate(arm: Arm, problem: Problem, seed: int, budget: int) -> Outcome:
    """Run one search, in the order of calls that Ray's controller keeps, until the budget of epochs is spent."""
    searcher, scheduler = arm.make(problem, seed)
    outcome = Outcome()
    events: list[tuple[float, int, Trial]] = []
    started = 0

    def start(now: float) -> None:
        nonlocal started
        suggested = searcher.suggest(f"trial{started}")
        assert isinstance(suggested, dict)
        is_ours = isinstance(searcher, OptunaSearcher)
        curve = problem.curve(order_of(suggested).overrides if is_ours else suggested, started)
        trial = Trial(f"trial{started}", suggested if is_ours else bare_config(started), curve)
        scheduler.on_trial_add(None, trial)
        heapq.heappush(events, (now + curve.startup_seconds + curve.epoch_seconds, started, trial))
        started += 1

    for _ in range(CONCURRENT):
        start(0.0)
    while len(outcome.regrets) < budget:
        now, number, trial = heapq.heappop(events)
        trial.epoch += 1
        if advance(trial, searcher, scheduler, outcome, problem.epochs):
            heapq.heappush(events, (now + trial.curve.epoch_seconds, number, trial))
        else:
            start(now)
        outcome.spend(problem.regret, now)
    return outcome


def advance(trial: Trial, searcher: Searcher, scheduler: TrialScheduler, outcome: Outcome, epochs: int) -> bool:
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
    if epoch == epochs:
        result["finished"] = "full"
    stopped = scheduler.on_trial_result(None, trial, result) == TrialScheduler.STOP
    if not stopped:
        searcher.on_trial_result(trial.trial_id, result)
    if stopped or epoch == epochs:
        scheduler.on_trial_complete(None, trial, result)
        searcher.on_trial_complete(trial.trial_id, result)
        return False
    return True
