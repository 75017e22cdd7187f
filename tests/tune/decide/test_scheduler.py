"""Schedulers by results alone, in simulated time: who is stopped, and what a resume knows again."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from deepmlf.errors import SearchError
from deepmlf.tune.decide.scheduler import ResumableASHA, check_scheduler, make_scheduler, rungs_of
from deepmlf.tune.objective import make_objectives
from tests.tune.parts import RayTrial

OBJECTIVE = "valid/MAE"


def scheduler(name: str, study: optuna.Study, objective: str = OBJECTIVE, **changes: Any) -> Any:
    settings = {"epochs": 9, "grace_period": 1, "reduction_factor": 3, "seed": 0} | changes
    return make_scheduler(name, study, make_objectives([objective])[0], **settings)


def epoch(step: int, value: float, objective: str = OBJECTIVE) -> dict[str, Any]:
    return {"fusion_epoch": step, objective: value}


def rungs(asha: ResumableASHA) -> list[dict[int, list[float]]]:
    brackets: dict[int, dict[int, list[float]]] = {}
    for rung in rungs_of(asha):
        brackets.setdefault(rung.bracket, {})[rung.epochs] = sorted(rung.values)
    return list(brackets.values())


def run(study: optuna.Study, stopped_at: Any, curves: Sequence[Sequence[float]], *, finished: int) -> list[str]:
    """Feed curves to a scheduler and to the study, as searcher and Ray do; the first so many trials end."""
    decisions = []
    for number, values in enumerate(curves):
        trial, told = RayTrial.of(number), study.ask()
        stopped_at.on_trial_add(None, trial)
        for step, value in enumerate(values, start=1):
            decision = stopped_at.on_trial_result(None, trial, epoch(step, value))
            told.report(value, step)
        decisions.append(decision)
        if number < finished:
            study.tell(told, min(values))
    return decisions


CURVES = [[number + 1 / step for step in range(1, epochs + 1)] for number, epochs in enumerate([9, 9, 3, 9, 5])]


@pytest.mark.parametrize("name", ["asha", "hyperband"])
def test_a_resume_finds_the_rungs_as_the_dead_driver_left_them(name: str) -> None:
    study = optuna.create_study()
    before = scheduler(name, study)
    run(study, before, CURVES, finished=4)  # the last one is under way
    after = scheduler(name, study)
    resumed = RayTrial.of(4)
    after.on_trial_add(None, resumed)
    for one in (before, after):  # the resumed worker reports its checkpoint's epoch again, then goes on
        for step in (5, 6, 7):
            one.on_trial_result(None, resumed, epoch(step, 4 + 1 / step))
    assert rungs(after) == rungs(before)
    assert sum(len(values) for bracket in rungs(after) for values in bracket.values()) > 5


def test_hyperband_has_a_bracket_per_rung_and_puts_trials_into_them_by_number() -> None:
    study = optuna.create_study()
    one, other = scheduler("hyperband", study), scheduler("hyperband", study)
    assert [len(bracket) for bracket in rungs(one)] == [3, 2, 1]
    places = []
    for hyperband, numbers in ((one, range(30)), (other, reversed(range(30)))):
        for number in numbers:
            hyperband.on_trial_add(None, RayTrial.of(number))
            for step in (1, 3):  # the lowest rungs of two brackets; the third one has none below full fidelity
                hyperband.on_trial_result(None, RayTrial.of(number), epoch(step, 1.0))
        lowest = {trial: rung.bracket for rung in reversed(rungs_of(hyperband)) for trial in rung.trial_ids}
        places.append({f"ray{number}": lowest.get(f"ray{number}", 2) for number in range(30)})
    assert places[0] == places[1]
    assert set(places[0].values()) == {0, 1, 2}


def test_median_stops_what_is_worse_than_half_of_the_others_also_after_a_resume() -> None:
    study = optuna.create_study()
    before = scheduler("median", study, grace_period=2)
    decisions = run(study, before, [[1.0] * 4, [2.0] * 4, [3.0] * 4], finished=3)
    assert decisions == [TrialScheduler.CONTINUE] * 3  # too few to compare with
    for median in (before, scheduler("median", study, grace_period=2)):
        good, bad = RayTrial.of(3), RayTrial.of(4)
        for trial, value in ((good, 1.5), (bad, 2.5)):
            median.on_trial_add(None, trial)
            assert median.on_trial_result(None, trial, epoch(1, value)) == TrialScheduler.CONTINUE  # grace
        assert median.on_trial_result(None, good, epoch(2, 1.5)) == TrialScheduler.CONTINUE
        assert median.on_trial_result(None, bad, {"stage": "av_encoder", "epoch": 2}) == TrialScheduler.CONTINUE
        assert median.on_trial_result(None, bad, epoch(2, 2.5)) == TrialScheduler.STOP


def test_an_epoch_that_a_resumed_trial_reports_again_counts_once_for_the_median() -> None:
    median = scheduler("median", optuna.create_study())
    trial = RayTrial.of(0)
    median.on_trial_add(None, trial)
    for step in (1, 2, 2):
        median.on_trial_result(None, trial, epoch(step, 1.0))
    assert [result["fusion_epoch"] for result in median._results[trial]] == [1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_the_median_knows_again_trials_that_ran_side_by_side(seed: int) -> None:
    """In the study they come one after the other, by which the rule would have stopped others than it did."""
    generator, study = np.random.default_rng(seed), optuna.create_study()
    before = scheduler("median", study, epochs=12, grace_period=2)
    running: list[tuple[RayTrial, optuna.Trial, float]] = []
    for number in range(30):
        while len(running) == 4:
            trial, told, level = running.pop(int(generator.integers(len(running))))
            step = len(study.trials[told.number].intermediate_values) + 1
            value = level + 1 / step + generator.normal(scale=0.3)
            decision = before.on_trial_result(None, trial, epoch(step, value))
            told.report(value, step)
            if decision == TrialScheduler.CONTINUE and step < 12:
                running.append((trial, told, level))
            elif step == 12:
                study.tell(told, value)
            else:
                study.tell(told, state=TrialState.PRUNED)
        running.append((RayTrial.of(number), study.ask(), generator.random()))
        before.on_trial_add(None, running[-1][0])
    after = scheduler("median", study, epochs=12, grace_period=2)
    ended = [trial for trial in study.trials if trial.state.is_finished()]
    assert any(trial.state == TrialState.PRUNED for trial in ended)
    known = {trial.trial_id: [result[OBJECTIVE] for result in results] for trial, results in after._results.items()}
    assert known == {f"study_{trial.number}": list(trial.intermediate_values.values()) for trial in ended}


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_trial_that_ends_by_its_patience_keeps_its_best_value_to_the_end(name: str) -> None:
    study = optuna.create_study()
    before = scheduler(name, study)
    trial, told = RayTrial.of(0), study.ask()
    before.on_trial_add(None, trial)
    for step, value in ((1, 0.5), (2, 0.8)):
        before.on_trial_result(None, trial, epoch(step, value))
        told.report(value, step)
    before.on_trial_complete(None, trial, {"stage": "fusion", "epoch": 2, "finished": "patience"} | epoch(2, 0.8))
    study.tell(told, 0.5)
    for one in (before, scheduler(name, study)):
        if name == "asha":
            assert rungs(one) == [{1: [0.5], 3: [0.5], 9: []}]  # nothing is decided at full fidelity
        else:
            ((_, results),) = one._results.items()
            assert [result[OBJECTIVE] for result in results] == [0.5, 0.8] + [0.5] * 7


@pytest.mark.parametrize("name", ["asha", "median"])
def test_a_metric_to_maximise_stops_the_low_ones(name: str) -> None:
    stopping = scheduler(name, optuna.create_study(), "valid/Corr")
    decisions = []
    for number, value in enumerate([0.5, 0.6, 0.7, 0.1]):
        trial = RayTrial.of(number)
        stopping.on_trial_add(None, trial)
        decisions.append(stopping.on_trial_result(None, trial, epoch(1, value, "valid/Corr")))
    assert decisions == [TrialScheduler.CONTINUE] * 3 + [TrialScheduler.STOP]


def test_trials_of_an_earlier_experiment_are_not_compared_with() -> None:
    study = optuna.create_study()
    study.add_trial(
        optuna.trial.create_trial(value=0.1, intermediate_values={1: 0.1}, user_attrs={"warm_start": "earlier/0"})
    )
    assert rungs(scheduler("asha", study)) == [{1: [], 3: [], 9: []}]


def test_none_never_stops_and_an_unknown_name_lists_the_known_ones() -> None:
    assert type(scheduler("none", optuna.create_study())) is FIFOScheduler
    with pytest.raises(SearchError) as caught:
        check_scheduler("sha")
    assert str(caught.value) == "--scheduler sha: no such scheduler; choose one of asha, hyperband, median, none"
