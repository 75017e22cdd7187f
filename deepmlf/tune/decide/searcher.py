"""The searcher: Optuna asks and is told honestly, with a state for every ending.

The study is the single source of truth of a search. Ray holds nothing that a resume would need: trials that a dead
driver left RUNNING are handed out again under their own number, and go on from their newest checkpoint.
"""

import json
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from deepmlf.training.curriculum import whole_model_from
from deepmlf.training.reports import EpochReport
from deepmlf.tune.decide.distinct import DistinctSampler, spare_setting
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.decide.stages import SHARE
from deepmlf.tune.experiment.layout import ERROR
from deepmlf.tune.experiment.notes import describe
from deepmlf.tune.experiment.study import (
    BEST_VALUES,
    FAIL_REASON,
    OVERRIDES,
    begun_trial,
    end_early,
    get_trial,
    note,
    own_trials,
    record_epoch,
)
from deepmlf.tune.messages import SearchHalted, TrialFailed, TrialOrder
from deepmlf.tune.objective import Objective
from deepmlf.tune.worker.wire import config_of, message_in

_FIRST_FAILURES = 3


class OptunaSearcher(Searcher):
    """Hands trials of an Optuna study to Ray Tune and tells it how they end.

    Args:
        study: The study; created or loaded by the caller.
        objectives: What is optimised; the first one picks a trial's best epoch.
        sampler: The sampler for a trial, from its number.
        orders: Draws settings and checks them; a trial for which that fails is FAIL at once. What one trial trains is
            drawn for no other, unless it was given.
        seed: Seed of the search.
        shares_stages: Whether most trials take over an audiovisual stage that is trained, rather than train their own.
        trials: Trials the search is to end with, failed ones included.
        unrecorded: Finished trials that a killed driver's Ray had not yet written down; they pass through Ray again,
            without training, so that its records are whole.
    """

    def __init__(
        self,
        study: optuna.Study,
        objectives: tuple[Objective, ...],
        sampler: Callable[[int], BaseSampler],
        orders: Orders,
        *,
        seed: int,
        shares_stages: bool = False,
        trials: int,
        unrecorded: list[int],
    ) -> None:
        super().__init__(metric=objectives[0].name, mode=objectives[0].mode)
        self._study, self._objectives, self._sampler, self._orders = study, objectives, sampler, orders
        self._seed, self._shares_stages, self._trials = seed, shares_stages, trials
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}  # Ray's trial id → Optuna's number
        self._whole_from: dict[int, int] = {}  # trial → its first fusion epoch with the whole model
        earlier = own_trials(study)
        for trial in earlier:
            if trial.state.is_finished() and OVERRIDES in trial.user_attrs:
                orders.know(trial.number, json.loads(trial.user_attrs[OVERRIDES]))
        self._unfinished = [t for t in earlier if t.state == TrialState.RUNNING]
        # What failed before may have been mended since: a resume is stopped by failures of its own only.
        self._failed_before = {t.number for t in earlier if t.state == TrialState.FAIL}
        self._unrecorded = list(unrecorded)
        self.stop_reason: str | None = None
        self.is_exhausted = False
        """Whether it ended because the space has no setting that no trial has."""

    def __deepcopy__(self, memo: dict[int, Any]) -> "OptunaSearcher":
        # Ray copies its tune config; a study and its storage must stay one.
        return self

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray pickles its tune config for a restore that this project never does: a resume reads the study.
        return object, ()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial, as Ray carries it; FINISHED; or None as long as it is open whether to go on."""
        with self._lock:
            while True:
                if self._unrecorded:
                    order: TrialOrder | None = self._orders.record_only(self._unrecorded.pop())
                elif self._unfinished:
                    order = self._hand_out_again(self._unfinished.pop(0))
                else:
                    trials = own_trials(self._study)
                    failed = self._first_failures(trials)
                    if failed and any(t.state == TrialState.RUNNING for t in trials):
                        return None  # before fusion a trial is silent: it may be the first to come to anything
                    if failed:
                        reason = failed[-1].user_attrs.get(FAIL_REASON)
                        self.stop_reason = f"the first {len(failed)} trials all failed: {reason}"
                    if failed or sum(t.state != TrialState.WAITING for t in trials) >= self._trials:
                        return str(Searcher.FINISHED)
                    sampler = self._next_sampler()
                    if sampler is None:
                        self.is_exhausted = True
                        return str(Searcher.FINISHED)
                    self._study.sampler = sampler
                    order = self._draw(self._study.ask())
                if order is not None:
                    self._numbers[trial_id] = order.number
                    self._whole_from[order.number] = whole_model_from(order.config)
                    return config_of(order)

    def _hand_out_again(self, trial: FrozenTrial) -> TrialOrder | None:
        """The order of a trial that a dead driver left behind; None if it cannot be trained, which is a FAIL."""
        overrides = trial.user_attrs.get(OVERRIDES)
        if overrides is None:  # killed between ask and the note of what was asked
            self._study.sampler = self._distinct(trial.number, self._spare(trial.number))
            return self._draw(begun_trial(self._study, trial.number))
        return self._made(trial.number, lambda: self._orders.again(trial.number, json.loads(overrides)))

    def _next_sampler(self) -> BaseSampler | None:
        """The sampler of the next trial; None if nothing new is left to draw."""
        trials = self._study.get_trials(deepcopy=False)
        # Priors that wait in the study have their number, but have not been asked for yet.
        number = sum(t.state != TrialState.WAITING for t in trials)
        if number < len(trials):
            return self._distinct(number, None)
        spare = self._spare(number)
        return None if spare is None else self._distinct(number, spare)

    def _spare(self, number: int) -> dict[str, Any] | None:
        return spare_setting(self._orders.sample, self._orders.is_new, number, self._seed)

    def _distinct(self, number: int, spare: dict[str, Any] | None) -> BaseSampler:
        orders, chance = self._orders, np.random.default_rng((self._seed, number)).random()
        share = orders.stage_to_share if self._shares_stages and chance < SHARE else None
        return DistinctSampler(self._sampler(number), orders.sample, orders.is_new, spare or {}, share)

    def _draw(self, trial: optuna.Trial) -> TrialOrder | None:
        """Draw a trial's setting and note it; None if it cannot be trained, which is a FAIL."""

        def draw() -> TrialOrder:
            order = self._orders.draw(trial)
            trial.set_user_attr(OVERRIDES, json.dumps(order.overrides))
            return order

        return self._made(trial.number, draw)

    def _made(self, number: int, make: Callable[[], TrialOrder]) -> TrialOrder | None:
        try:
            order = make()
        except Exception as error:  # a user's space may raise anything
            self._fail(number, f"{type(error).__name__}: {error}")
            return None
        describe(self._study, number)
        return order

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report a fusion epoch's objective at its fidelity, once; a non-finite one fails the trial."""
        message = message_in(result)
        if isinstance(message, EpochReport):
            self._record(self._numbers[trial_id], message)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the ending: COMPLETE, PRUNED by the scheduler, or FAIL with its reason. Never told twice."""
        number, message = self._numbers[trial_id], message_in(result)
        if isinstance(message, EpochReport):
            self._record(number, message)
        frozen = self._frozen(number)
        if frozen.state.is_finished() or isinstance(message, SearchHalted):
            return  # what a halted search leaves unfinished, a resume goes on with
        if isinstance(message, TrialFailed):
            self._fail(number, message.reason)
        elif error:
            self._fail(number, f"the worker died too often; see {ERROR}")
        elif not frozen.intermediate_values:
            self._fail(number, "ended without a fusion epoch")
        elif isinstance(message, EpochReport) and message.is_last:
            self._study.tell(number, self._best_values(frozen))
        else:
            end_early(self._study, number, self._best_values(frozen))

    def _best_values(self, trial: FrozenTrial) -> list[float] | None:
        """A trial's values are its best epoch's, whose weights are kept; None if the whole model was never in use."""
        if len(self._objectives) > 1:
            return trial.user_attrs.get(BEST_VALUES)
        first = self._whole_from[trial.number]
        whole = [value for step, value in trial.intermediate_values.items() if step >= first]
        return [self._objectives[0].best(whole)] if whole else None

    def _record(self, number: int, report: EpochReport) -> None:
        reason = record_epoch(self._study, self._objectives, number, report)
        if reason is not None:
            self._fail(number, reason)

    def _fail(self, number: int, reason: str) -> None:
        note(self._study, number, FAIL_REASON, reason)
        describe(self._study, number)
        self._study.tell(number, state=TrialState.FAIL)

    def _first_failures(self, trials: list[FrozenTrial]) -> list[FrozenTrial]:
        """This driver's failed trials, if they are enough to blame a common fault; none once any trial has learned."""
        # A trial that diverges ends before the good ones do; the fault is a common one only if nothing came of any.
        failed = [t for t in trials if t.state == TrialState.FAIL and t.number not in self._failed_before]
        return [] if len(failed) < _FIRST_FAILURES or any(t.intermediate_values for t in trials) else failed

    def _frozen(self, number: int) -> FrozenTrial:
        return get_trial(self._study, number)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to save: the study is on disk already."""
        with open(checkpoint_path, "w") as file:
            file.write("{}")

    def restore(self, checkpoint_path: str) -> None:
        """Nothing to restore: the study is on disk already."""
