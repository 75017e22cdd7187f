"""Schedulers by name, on fusion epochs, that survive the driver: a resume fills them again from the study.

The door to what is used of the insides of Ray's schedulers.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState
from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, MedianStoppingRule, TrialScheduler

from deepmlf.errors import SearchError
from deepmlf.training.reports import FIDELITY, EpochReport
from deepmlf.tune.decide.distinct import Twins, tells_apart
from deepmlf.tune.engines import require_insides
from deepmlf.tune.experiment.study import own_trials
from deepmlf.tune.names import SCHEDULERS
from deepmlf.tune.objective import Objective
from deepmlf.tune.settings import SearchSettings
from deepmlf.tune.worker.wire import RayTrial, bare_config, message_in, number_of

_STUDY = "study_"


def check_scheduler(name: str) -> None:
    """Refuse a scheduler that does not exist.

    Raises:
        SearchError: With the schedulers to choose from.
    """
    if name not in SCHEDULERS:
        raise SearchError(f"--scheduler {name}: no such scheduler; choose one of {', '.join(SCHEDULERS)}")


def make_scheduler(
    name: str,
    study: optuna.Study,
    objective: Objective,
    *,
    epochs: int,
    grace_period: int,
    reduction_factor: int,
    seed: int,
) -> TrialScheduler:
    """A scheduler that knows what the study's trials have reported.

    Args:
        name: One of `SCHEDULERS`.
        study: The study; trials taken over from an earlier experiment are not compared with.
        objective: What trials are compared by.
        epochs: Fusion epochs of full fidelity.
        grace_period: Fusion epochs before a trial may be stopped.
        reduction_factor: ASHA and Hyperband: one in so many goes on from a rung.
        seed: Hyperband: of the brackets that trials are put into.
    """
    grace_period = min(grace_period, epochs)
    if name == "median":
        return ResumableMedian(study, objective, epochs, grace_period)
    if name == "none":
        return FIFOScheduler()
    brackets = int(math.log(epochs / grace_period, reduction_factor)) + 1 if name == "hyperband" else 1
    return ResumableASHA(study, objective, epochs, grace_period, reduction_factor, brackets=brackets, seed=seed)


def scheduler_of(settings: SearchSettings, study: optuna.Study, objective: Objective) -> TrialScheduler:
    """The scheduler that a search's settings ask for; see `make_scheduler`."""
    return make_scheduler(
        settings.scheduler,
        study,
        objective,
        epochs=settings.epochs,
        grace_period=settings.first_rung,
        reduction_factor=settings.reduction_factor,
        seed=settings.seed,
    )


@dataclass(frozen=True)
class Rung:
    """A rung as it stands."""

    epochs: int
    """Fusion epochs at which trials are compared."""
    trials: int
    """Trials that have got there."""
    cutoff: float | None
    """What a trial's objective must not be worse than to go on; None before anyone got there."""
    bracket: int = 0
    trial_ids: tuple[str, ...] = ()
    """Of those trials, in the order in which they got there."""
    values: tuple[float, ...] = ()
    """What they had there, in the same order."""


def rungs_of(scheduler: TrialScheduler) -> list[Rung]:
    """The rungs of ASHA, or of Hyperband bracket by bracket, from the lowest up; none for other schedulers."""
    if not isinstance(scheduler, ResumableASHA):
        return []
    return [
        Rung(
            epochs,
            len(recorded),
            None if not recorded else float(scheduler._metric_op * bracket.cutoff(recorded)),
            index,
            tuple(recorded),
            tuple(float(scheduler._metric_op * value) for value in recorded.values()),
        )
        for index, bracket in enumerate(scheduler._brackets)
        for epochs, recorded in reversed(bracket._rungs)
    ]


def number_in_study(trial_id: str) -> int | None:
    """The study's number of a trial that had ended when the scheduler was made; None for any other."""
    return int(trial_id.removeprefix(_STUDY)) if trial_id.startswith(_STUDY) else None


class _StandIn:
    """A trial of an earlier driver."""

    def __init__(self, number: int) -> None:
        self.trial_id = f"{_STUDY}{number}"
        self.config = bare_config(number)


class _Resumable(FIFOScheduler):
    """What the study knows of earlier drivers' trials enters the scheduler again.

    Finished trials enter at once, unfinished ones when they are handed out again: without their past, their next, later
    value would be taken for that of the lowest rung.

    A trial that ends early by its own patience is worth its best value for good, so it stands with that wherever it
    would have been compared later.
    """

    def _refill(self, study: optuna.Study, objective: Objective, epochs: int) -> None:
        # Not the study: Ray pickles schedulers into its records, and a study may know a password.
        self._objective, self._epochs = objective, epochs
        self._reported: dict[str, dict[int, float]] = {}  # of trials that run
        self._unfinished: dict[int, dict[int, float]] = {}
        for trial in own_trials(study):
            if not trial.state.is_finished():
                self._unfinished[trial.number] = dict(trial.intermediate_values)
            elif trial.intermediate_values:
                stand_in = _StandIn(trial.number)
                self._enter(stand_in)
                self._replay(stand_in, trial.intermediate_values)
                if trial.state == TrialState.COMPLETE:
                    self._carry(stand_in, trial.intermediate_values)
        self._reported.clear()  # what has ended needs no more of it

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Enter a trial, with its past if a dead driver had begun it."""
        self._enter(trial)
        self._replay(trial, self._unfinished.pop(number_of(trial.config), {}))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a trial as Ray does."""
        self._note(trial, result)
        return str(super().on_trial_result(tune_controller, trial, result))

    def _note(self, trial: RayTrial, result: Mapping[str, Any]) -> None:
        if FIDELITY in result and self._objective.name in result:
            self._reported.setdefault(trial.trial_id, {})[result[FIDELITY]] = result[self._objective.name]

    def _enter(self, trial: RayTrial) -> None:
        super().on_trial_add(None, trial)

    def _replay(self, trial: RayTrial, values: Mapping[int, float]) -> None:
        # Decisions are discarded: they were taken, and obeyed, when the values came in.
        for step, value in sorted(values.items()):
            self.on_trial_result(None, trial, {FIDELITY: step, self._objective.name: value})

    def _carry(self, trial: RayTrial, values: Mapping[int, float]) -> None:
        """Let a trial that ended by itself keep its best value to the end."""
        best = self._objective.best(values.values())
        self._replay(trial, dict.fromkeys(range(max(values) + 1, self._epochs + 1), best))

    def _carry_if_ended(self, trial: RayTrial, result: Mapping[str, Any]) -> None:
        message = message_in(result)
        self._note(trial, result)
        reported = dict(self._reported.get(trial.trial_id, {}))
        if isinstance(message, EpochReport) and message.is_last and reported:
            self._carry(trial, reported)
        self._reported.pop(trial.trial_id, None)


class ResumableASHA(_Resumable, ASHAScheduler):
    """ASHA; with several brackets, asynchronous Hyperband.

    Whether a trial stops at a rung is Ray's own decision, taken in ``ASHAScheduler.on_trial_result``: it does if its
    value is worse than the rung's cutoff. Here are the brackets, and what a resume knows again; and a trial that trains
    what another one trains, see `distinct`, stops as soon as that shows.

    Args:
        study: The study.
        objective: What trials are compared by.
        epochs: Fusion epochs of full fidelity.
        grace_period: Fusion epochs before a trial may be stopped.
        reduction_factor: One in so many goes on from a rung.
        brackets: Each one's lowest rung is `reduction_factor` times as high as that of the one before.
        seed: With the trial's number it decides on the bracket.
    """

    def __init__(
        self,
        study: optuna.Study,
        objective: Objective,
        epochs: int,
        grace_period: int,
        reduction_factor: int,
        *,
        brackets: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__(
            metric=objective.name,
            mode=objective.mode,
            time_attr=FIDELITY,
            max_t=epochs,
            grace_period=grace_period,
            reduction_factor=reduction_factor,
            brackets=brackets,
        )
        require_insides("ray", [(self, "_brackets"), (self, "_trial_info"), (self, "_metric_op"), (self, "_metric")])
        require_insides("ray", [(self._brackets[0], "_rungs"), (self._brackets[0], "cutoff")])
        self._seed, self._twins = seed, Twins() if tells_apart(objective.name) else None
        self._refill(study, objective, epochs)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a trial: at a rung as Ray does, and on one that is another's twin."""
        action = super().on_trial_result(tune_controller, trial, result)
        is_twin = self._is_twin(number_of(trial.config), self._reported.get(trial.trial_id, {}))
        return str(TrialScheduler.STOP) if is_twin else action

    def _is_twin(self, number: int, curve: Mapping[int, float]) -> bool:
        return self._twins is not None and self._twins.has_another(number, curve)

    def _refill(self, study: optuna.Study, objective: Objective, epochs: int) -> None:
        # Of twins the one that ran on goes on, not the one that was stopped for it: that has the shorter curve.
        unfinished = [trial for trial in own_trials(study) if not trial.state.is_finished()]
        for trial in sorted(unfinished, key=lambda trial: -len(trial.intermediate_values)):
            self._is_twin(trial.number, trial.intermediate_values)
        super()._refill(study, objective, epochs)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Enter what a trial came to into the rungs that it did not reach."""
        self._carry_if_ended(trial, result)
        super().on_trial_complete(tune_controller, trial, result)

    def _enter(self, trial: RayTrial) -> None:
        # As Ray does it, a bracket is the likelier the more rungs it has, but Ray draws from the global generator.
        sizes = np.array([len(bracket._rungs) for bracket in self._brackets])
        weights = np.exp(sizes - sizes.max())
        generator = np.random.default_rng((self._seed, number_of(trial.config)))
        chosen = generator.choice(len(self._brackets), p=weights / weights.sum())
        self._trial_info[trial.trial_id] = self._brackets[chosen]


class ResumableMedian(_Resumable, MedianStoppingRule):
    """The median stopping rule: a trial ends whose best value is worse than the median of the others' means so far.

    Args:
        study: The study.
        objective: What trials are compared by.
        epochs: Fusion epochs of full fidelity.
        grace_period: Fusion epochs before a trial may be stopped.
    """

    def __init__(self, study: optuna.Study, objective: Objective, epochs: int, grace_period: int) -> None:
        super().__init__(metric=objective.name, mode=objective.mode, time_attr=FIDELITY, grace_period=grace_period)
        require_insides("ray", [(self, "_results"), (MedianStoppingRule, "_on_insufficient_samples")])
        self._refill(study, objective, epochs)

    def _replay(self, trial: RayTrial, values: Mapping[int, float]) -> None:
        # Ray's rule decides on what it takes in, and takes in no more of a trial that it has stopped. But the past
        # comes trial by trial, so that it would stop others than it did.
        if values:
            past = [{FIDELITY: step, self._metric: values[step]} for step in sorted(values)]
            self._results[trial].extend(past)
            for result in past:
                self._note(trial, result)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decide on a trial; an epoch reported again, as a resumed trial does, counts once."""
        known = self._results[trial][-1][FIDELITY] if trial in self._results else 0
        if result.get(FIDELITY, 0) <= known:
            return TrialScheduler.CONTINUE
        return super().on_trial_result(tune_controller, trial, result)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """The last epoch came in as a result already."""
        self._carry_if_ended(trial, result)

    def _on_insufficient_samples(self, tune_controller: Any, trial: Any, time: float) -> str:
        # Ray would pause the trial for others to start, but a pause here costs a restart.
        return TrialScheduler.CONTINUE
