"""Trials that train the same: how it shows, and what follows from it."""

import math
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import BaseTrial, TrialState
from ray.tune.schedulers import TrialScheduler

from deepmlf.tune.decide.curve_sampler import CurveSampler
from deepmlf.tune.decide.distinct import beginning, no_effect_within
from deepmlf.tune.decide.scheduler import make_scheduler
from deepmlf.tune.objective import make_objectives
from tests.tune.parts import RayTrial

EPOCHS = 9


def asha(study: optuna.Study, objective: str = "valid/MAE") -> Any:
    rungs = {"epochs": EPOCHS, "grace_period": 3, "reduction_factor": 3, "seed": 0}
    return make_scheduler("asha", study, make_objectives([objective])[0], **rungs)


def decisions(scheduler: Any, number: int, values: list[float], objective: str = "valid/MAE") -> list[str]:
    trial = RayTrial.of(number)
    scheduler.on_trial_add(None, trial)
    reported = [{"fusion_epoch": step, objective: value} for step, value in enumerate(values, start=1)]
    return [scheduler.on_trial_result(None, trial, result) for result in reported]


def told(study: optuna.Study, values: list[float], state: TrialState | None) -> None:
    trial = study.ask()
    for step, value in enumerate(values, start=1):
        trial.report(value, step)
    if state is not None:
        study.tell(trial, min(values) if state == TrialState.COMPLETE else None, state=state)


GO, STOP = TrialScheduler.CONTINUE, TrialScheduler.STOP


def test_a_trial_stops_as_soon_as_it_shows_that_another_trains_the_same() -> None:
    scheduler = asha(optuna.create_study())
    assert decisions(scheduler, 0, [0.9, 0.8]) == [GO, GO]
    assert decisions(scheduler, 1, [0.9, 0.8]) == [GO, STOP]
    assert decisions(scheduler, 2, [0.9, 0.8 + 1e-12]) == [GO, GO]


def test_an_accuracy_that_is_the_same_says_nothing() -> None:
    scheduler = asha(optuna.create_study(), "valid/Has0_acc_2")
    for number in range(3):
        assert decisions(scheduler, number, [0.7, 0.75], "valid/Has0_acc_2") == [GO, GO]


def test_after_a_resume_a_trial_of_before_is_known() -> None:
    study = optuna.create_study()
    told(study, [0.9, 0.8, 0.7], TrialState.COMPLETE)
    assert decisions(asha(study), 1, [0.9, 0.8]) == [GO, STOP]


def test_after_a_resume_the_twin_that_ran_on_goes_on() -> None:
    study = optuna.create_study()
    told(study, [0.9, 0.8], TrialState.PRUNED)  # for the next one, whose third epoch came before its end
    told(study, [0.9, 0.8, 0.7], None)
    scheduler, resumed = asha(study), RayTrial.of(1)
    scheduler.on_trial_add(None, resumed)
    for step, value in ((3, 0.7), (4, 0.6)):  # its checkpoint's epoch is reported again
        assert scheduler.on_trial_result(None, resumed, {"fusion_epoch": step, "valid/MAE": value}) == GO


def test_of_one_epoch_nothing_is_concluded() -> None:
    assert beginning({1: 0.9}) is None
    assert beginning({2: 0.8, 1: 0.9, 3: 0.7}) == beginning({1: 0.9, 2: 0.8, 5: 0.1})


def test_how_far_apart_settings_make_no_difference() -> None:
    places = np.array([[0.0], [0.1], [0.15], [0.5], [0.52]])
    same, other = {1: 0.9, 2: 0.8}, {1: 0.7, 2: 0.6}
    assert no_effect_within(places[:2], [same, same]) == 0.0  # one pair may be chance
    found = no_effect_within(places, [same, same, same, other, other])
    assert math.isclose(found, float(np.median([0.1, 0.05, 0.02])))


@pytest.mark.parametrize("seed", range(3))
def test_the_sampler_leaves_a_plateau_that_it_has_seen(seed: int) -> None:
    """A table of some curves, as ``taskset`` has it: near the best one there is nothing but the best one again."""

    def space(trial: BaseTrial) -> dict[str, Any]:
        return {name: trial.suggest_float(name, 0.0, 1.0) for name in "abc"}

    cells = np.random.default_rng(7).random((60, 3))
    worth = np.abs(cells - 0.4).sum(axis=1)

    def seen(learns_from_twins: bool) -> int:
        study, visited = optuna.create_study(), set[int]()
        for number in range(50):
            study.sampler = CurveSampler(space, EPOCHS, seed * 1000 + number)
            trial = study.ask()
            place = np.array(list(space(trial).values()))
            cell = int(((cells - place) ** 2).sum(axis=1).argmin())
            visited.add(cell)
            for epoch in (1, 2, 3):
                noise = 0.0 if learns_from_twins else 1e-9 * number
                trial.report(float(worth[cell]) + 1.0 / epoch + noise, epoch)
            study.tell(trial, state=TrialState.PRUNED)
        return len(visited)

    assert seen(True) > 1.3 * seen(False)
