"""The searcher: Optuna asks and is told honestly, with a state for every ending.

The study is the single source of truth of a search. Ray holds nothing that a resume would need: trials that a dead
driver left RUNNING are handed out again under their own number, and go on from their newest checkpoint.
"""

import json
import math
import threading
from collections.abc import Callable
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState
from ray.tune.search import Searcher

from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.decide.scheduler import FIDELITY
from deepmlf.tune.experiment.study import get_trial, own_trials
from deepmlf.tune.objective import Objective, values_of
from deepmlf.tune.space.load import SearchSpace
from deepmlf.tune.worker.trainable import ONLY_RECORD

OVERRIDES = "overrides"
FAIL_REASON = "fail_reason"
BEST_VALUES = "best_values"
_FIRST_FAILURES = 3

Check = Callable[[dict[str, Any]], None]


class OptunaSearcher(Searcher):
    """Hands trials of an Optuna study to Ray Tune and tells it how they end.

    Args:
        study: The study; created or loaded by the caller.
        space: Where settings come from.
        objectives: What is optimised; the first one picks a trial's best epoch.
        sampler: The sampler for a trial, from its number.
        trials: Trials the search is to end with, failed ones included.
        lm: Sizes of the language model in use.
        check: Raises DeepMLFError for a setting that cannot be trained; such a trial is FAIL at once.
        unrecorded: Finished trials that a killed driver's Ray had not yet written down; they pass through Ray again,
            without training, so that its records are whole.
    """

    def __init__(
        self,
        study: optuna.Study,
        space: SearchSpace,
        objectives: tuple[Objective, ...],
        sampler: Callable[[int], BaseSampler],
        *,
        trials: int,
        lm: LanguageModelFacts,
        check: Check,
        unrecorded: list[int],
    ) -> None:
        super().__init__(metric=objectives[0].name, mode=objectives[0].mode)
        self._study, self._space, self._objectives, self._sampler = study, space, objectives, sampler
        self._trials, self._lm, self._check = trials, lm, check
        self._lock = threading.Lock()
        self._numbers: dict[str, int] = {}  # Ray's trial id → Optuna's number
        earlier = own_trials(study)
        self._unfinished = [t for t in earlier if t.state == TrialState.RUNNING]
        # What failed before may have been mended since: a resume is stopped by failures of its own only.
        self._failed_before = {t.number for t in earlier if t.state == TrialState.FAIL}
        self._unrecorded = list(unrecorded)
        self.stop_reason: str | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> "OptunaSearcher":
        # Ray copies its tune config; a study and its storage must stay one.
        return self

    def __reduce__(self) -> tuple[type[object], tuple[()]]:
        # Ray pickles its tune config for a restore that this project never does: a resume reads the study.
        return object, ()

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's number and overrides, FINISHED, or None as long as it is open whether to go on."""
        with self._lock:
            while True:
                if self._unrecorded:
                    self._numbers[trial_id] = self._unrecorded.pop()
                    return {"number": self._numbers[trial_id], OVERRIDES: {}, ONLY_RECORD: True}
                if self._unfinished:
                    trial = self._unfinished.pop(0)
                    overrides = trial.user_attrs.get(OVERRIDES)
                    if overrides is None:  # killed between ask and the note of what was asked
                        self._study.sampler = self._sampler(trial.number)
                        suggested = self._begin(trial_id, optuna.Trial(self._study, trial._trial_id))
                        if suggested is None:
                            continue
                        return suggested
                    self._numbers[trial_id] = trial.number
                    return {"number": trial.number, OVERRIDES: json.loads(overrides)}
                trials = own_trials(self._study)
                failed = self._first_failures(trials)
                if failed and any(t.state == TrialState.RUNNING for t in trials):
                    return None  # before fusion a trial is silent: it may be the first to come to anything
                if failed:
                    reason = failed[-1].user_attrs.get(FAIL_REASON)
                    self.stop_reason = f"the first {len(failed)} trials all failed: {reason}"
                asked = sum(t.state != TrialState.WAITING for t in trials)
                if failed or asked >= self._trials:
                    return str(Searcher.FINISHED)
                suggested = self._ask(trial_id)
                if suggested is not None:
                    return suggested

    def _ask(self, trial_id: str) -> dict[str, Any] | None:
        # Priors that wait in the study have their number, but have not been asked for yet.
        trials = self._study.get_trials(deepcopy=False)
        self._study.sampler = self._sampler(sum(t.state != TrialState.WAITING for t in trials))
        return self._begin(trial_id, self._study.ask())

    def _begin(self, trial_id: str, trial: optuna.Trial) -> dict[str, Any] | None:
        """Draw a trial's setting and note it; None if it cannot be trained, which is a FAIL."""
        try:
            overrides = self._space.sample(trial, self._lm)
            self._check(overrides)
            trial.set_user_attr(OVERRIDES, json.dumps(overrides))
        except Exception as error:  # a user's space may raise anything
            self._fail(trial.number, f"{type(error).__name__}: {error}")
            return None
        self._numbers[trial_id] = trial.number
        return {"number": trial.number, OVERRIDES: overrides}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Report a fusion epoch's objective at its fidelity, once; a non-finite one fails the trial."""
        step, values = result.get(FIDELITY), values_of(self._objectives, result)
        if step is None or values is None:
            return
        frozen = self._frozen(self._numbers[trial_id])
        if frozen.state != TrialState.RUNNING or step in frozen.intermediate_values:
            return
        for objective, value in zip(self._objectives, values, strict=True):
            if not math.isfinite(value):
                self._fail(frozen.number, f"{objective.name} became {value} in fusion epoch {step}")
                return
        first, earlier = self._objectives[0], frozen.intermediate_values.values()
        if len(values) > 1 and first.is_better(values[0], first.best(earlier) if earlier else None):
            self._study._storage.set_trial_user_attr(frozen._trial_id, BEST_VALUES, values)
        # Trial.report refuses several objectives; the first one's curve is worth keeping all the same.
        self._study._storage.set_trial_intermediate_value(frozen._trial_id, step, values[0])

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the ending: COMPLETE, PRUNED by the scheduler, or FAIL with its reason. Never told twice."""
        number = self._numbers[trial_id]
        if result is not None:
            self.on_trial_result(trial_id, result)
        frozen = self._frozen(number)
        if frozen.state.is_finished():
            return
        failed = (result or {}).get("failed")
        if failed or error:
            self._fail(number, failed or "the worker died too often; see error.txt")
        elif not frozen.intermediate_values:
            self._fail(number, "ended without a fusion epoch")
        elif (result or {}).get("finished"):
            # The best epoch's weights are kept, so its values are the trial's.
            best = self._objectives[0].best(frozen.intermediate_values.values())
            self._study.tell(number, frozen.user_attrs.get(BEST_VALUES, best))
        else:
            self._study.tell(number, state=TrialState.PRUNED)

    def _fail(self, number: int, reason: str) -> None:
        self._study._storage.set_trial_user_attr(self._frozen(number)._trial_id, FAIL_REASON, reason)
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
