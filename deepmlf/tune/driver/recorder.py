"""What a search's driver writes of its trials, and shows."""

from collections import Counter
from pathlib import Path
from typing import Any

import optuna

from deepmlf.events.recorder import TrialRecorder
from deepmlf.training.reports import EpochReport, Seconds, seconds_of
from deepmlf.tune.driver.callback import DriverCallback
from deepmlf.tune.driver.screen import Best, RunningTrial, SearchScreen
from deepmlf.tune.experiment.layout import ERROR, TRIALS, trial_name
from deepmlf.tune.experiment.study import FAIL_REASON, get_trial, own_trials
from deepmlf.tune.messages import TrialOrder, TrialWaits
from deepmlf.tune.objective import Objective, best_first
from deepmlf.tune.space.columns import shown_settings
from deepmlf.tune.worker.wire import message_in, order_of


class ExperimentRecorder(DriverCallback):
    """Writes each trial's metrics and TensorBoard events from its start, and shows how the search goes.

    Args:
        experiment: The experiment's folder.
        base: Overrides common to all trials.
        study: To read the states that trials ended with.
        objectives: What is shown, and by whose first one the best epoch is picked.
        screen: Shows it.
        ended: What trials took that earlier drivers have ended.
    """

    def __init__(
        self,
        experiment: Path,
        base: dict[str, Any],
        study: optuna.Study,
        objectives: tuple[Objective, ...],
        screen: SearchScreen,
        ended: Seconds,
    ) -> None:
        self._experiment, self._base, self._study, self._objectives = experiment, base, study, objectives
        self._screen, self._ended = screen, ended
        self._records: dict[int, TrialRecorder] = {}
        self._running: dict[int, TrialRecorder] = {}
        self._awaited: dict[int, str] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        order = order_of(trial.config)
        self._awaited.pop(order.number, None)
        if not order.only_record:
            self._running[order.number] = self._record(order)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        order, message = order_of(trial.config), message_in(result)
        self._awaited.pop(order.number, None)
        if isinstance(message, TrialWaits):
            if message.awaited is not None:
                self._awaited[order.number] = message.awaited
                self._screen.waits(order.number, message.awaited)
        elif not order.only_record and isinstance(message, EpochReport):
            record = self._record(order)
            if record.add(message):
                self._screen.epoch(order.number, record.last_epoch, message)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._close(order_of(trial.config))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        order = order_of(trial.config)
        if not order.only_record:
            path = self._record(order).folder / ERROR
            if not path.exists():  # a killed worker could not write its own
                path.write_text(str(trial.get_error()))
        self._close(order)

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        if self._screen.is_due:
            self._draw()

    def on_experiment_end(self, trials: list[Any], **info: Any) -> None:
        self._draw()
        self._screen.close()

    def _record(self, order: TrialOrder) -> TrialRecorder:
        if order.number not in self._records:
            folder = self._experiment / TRIALS / trial_name(order.number, order.terms.name)
            first, names = self._objectives[0], [objective.name for objective in self._objectives]
            record = TrialRecorder(folder, order.config, first.name, first.direction, also_shown=names)
            record.start(shown_settings(order.config, order.overrides), self._base | order.overrides)
            self._records[order.number] = record
        return self._records[order.number]

    def _close(self, order: TrialOrder) -> None:
        if order.only_record:
            return
        frozen = get_trial(self._study, order.number)
        record = self._record(order)
        record.close(frozen.state.name)
        self._ended += seconds_of(record.reports)
        self._running.pop(order.number, None)
        self._awaited.pop(order.number, None)
        del self._records[order.number]  # all metrics of thousands of trials would fill the driver's memory
        states, best = self._standing()
        self._screen.ended(order.number, frozen.state.name, frozen.user_attrs.get(FAIL_REASON), states, best)

    def _draw(self) -> None:
        running = [
            RunningTrial(
                number,
                record.reports,
                record.best,
                record.underway,
                get_trial(self._study, number).params,
                self._awaited.get(number),
            )
            for number, record in sorted(self._running.items())
        ]
        self._screen.draw(running, *self._standing(), self._ended)

    def _standing(self) -> tuple[Counter[str], Best | None]:
        trials = own_trials(self._study)
        ranked = best_first(trials, self._objectives)
        best = Best(ranked[0].number, ranked[0].values[0], ranked[0].params) if ranked else None
        return Counter(trial.state.name for trial in trials), best
