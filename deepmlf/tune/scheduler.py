"""ASHA on fusion epochs, whose rungs survive the driver: a resume fills them again from the study."""

from types import SimpleNamespace
from typing import Any

import optuna
from ray.tune.schedulers import ASHAScheduler

from deepmlf.tune.searcher import OBJECTIVE

FIDELITY = "fusion_epoch"


class ResumableASHA(ASHAScheduler):
    """ASHA that knows what the study's trials have reported already.

    Args:
        study: Its finished trials enter the rungs at once, its unfinished ones when they are handed out again: without
            their past, their next, later value would be taken for that of the lowest rung.
        epochs: Fusion epochs of full fidelity.
        grace_period: Fusion epochs before a trial may be stopped.
        reduction_factor: One in so many goes on from a rung.
    """

    def __init__(self, study: optuna.Study, epochs: int, grace_period: int, reduction_factor: int) -> None:
        super().__init__(
            metric=OBJECTIVE,
            mode="min",
            time_attr=FIDELITY,
            max_t=epochs,
            grace_period=min(grace_period, epochs),
            reduction_factor=reduction_factor,
        )
        self._unfinished: dict[int, dict[int, float]] = {}
        for trial in study.get_trials(deepcopy=False):
            if not trial.state.is_finished():
                self._unfinished[trial.number] = dict(trial.intermediate_values)
            elif trial.intermediate_values:
                stand_in = SimpleNamespace(trial_id=f"study_{trial.number}")
                super().on_trial_add(None, stand_in)
                self._replay(stand_in, trial.intermediate_values)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Enter a trial, with its past if a dead driver had begun it."""
        super().on_trial_add(tune_controller, trial)
        self._replay(trial, self._unfinished.pop(trial.config["number"], {}))

    def _replay(self, trial: Any, values: dict[int, float]) -> None:
        # Decisions are discarded: they were taken, and obeyed, when the values came in.
        for step, value in sorted(values.items()):
            self.on_trial_result(None, trial, {FIDELITY: step, OBJECTIVE: value})
