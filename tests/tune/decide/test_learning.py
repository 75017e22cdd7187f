"""Samplers learn from every trial that has ended: stopped early, failed, or complete."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from deepmlf.tune.decide.learning import learnt_from
from deepmlf.tune.decide.samplers import make_sampler
from deepmlf.tune.experiment.study import end_early

SIZES = {"tpe": (40, 5), "gp": (16, 1), "cmaes": (40, 5), "nsga2": (40, 5)}
"""Trials of a search and searches; a Gaussian process is slow."""
FLOAT = optuna.distributions.FloatDistribution(0, 1)


def ask(study: optuna.Study, name: str, seed: int = 0, trials: int = 40) -> optuna.Trial:
    study.sampler = make_sampler(
        name, seed, len(study.trials), space=lambda trial: {"x": 0.0}, is_new=lambda overrides: True, epochs=3,
        trials=trials, concurrent=1,
    )  # fmt: skip
    return study.ask()


def draw(trial: optuna.Trial) -> tuple[float, float]:
    return trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)


def search(name: str, seed: int, end: Any, trials: int) -> list[optuna.trial.FrozenTrial]:
    study = optuna.create_study()
    for _ in range(trials):
        trial = ask(study, name, seed, trials)
        end(study, trial, *draw(trial))
    return study.trials


def stopped(study: optuna.Study, trial: optuna.Trial, x: float, y: float) -> None:
    """As under ASHA: after one epoch."""
    value = (x - 0.3) ** 2 + (y - 0.7) ** 2
    trial.report(value, 1)
    end_early(study, trial.number, [value])


@pytest.mark.parametrize("name", SIZES)
def test_they_learn_where_every_trial_was_stopped(name: str) -> None:
    trials, seeds = SIZES[name]

    def far(sampler: str) -> float:
        ends = [search(sampler, seed, stopped, trials)[-trials // 4 :] for seed in range(seeds)]
        return float(np.median([trial.value for trials in ends for trial in trials]))

    assert far(name) < far("random") / 2


def diverging(study: optuna.Study, trial: optuna.Trial, x: float, y: float) -> None:
    """30 % of a parameter's range fails, right beside the best setting."""
    if x > 0.7:
        study.tell(trial, state=TrialState.FAIL)
    else:
        study.tell(trial, (x - 0.65) ** 2 + (y - 0.5) ** 2)


@pytest.mark.parametrize("name", SIZES)
def test_they_turn_away_from_what_fails(name: str) -> None:
    trials, seeds = SIZES[name]
    ends = [search(name, seed, diverging, trials)[-trials // 2 :] for seed in range(seeds)]
    failed = [trial.state == TrialState.FAIL for trials in ends for trial in trials]
    assert np.mean(failed) < 0.5  # Optuna's own TPE ends with nothing but failures here


def told(value: float | None, state: TrialState = TrialState.COMPLETE, **params: float) -> optuna.trial.FrozenTrial:
    return optuna.trial.create_trial(
        value=value, state=state, params=params, distributions=dict.fromkeys(params, FLOAT)
    )


def seen(study: optuna.Study, **options: Any) -> dict[int, float | None]:
    trials = learnt_from(study, **options).get_trials(deepcopy=False)
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE}
    return {trial.number: trial.value for trial in trials}


@pytest.mark.parametrize(("direction", "sign"), [("minimize", 1), ("maximize", -1)])
def test_what_failed_is_as_bad_as_the_worst_and_what_diverged_is_cut(direction: str, sign: int) -> None:
    study = optuna.create_study(direction=direction)
    for value in (1.0, 2.0, 3.0, 4.0):
        study.add_trial(told(sign * value, x=0.5))
    study.add_trial(told(None, TrialState.FAIL, x=0.9))
    study.add_trial(told(None, TrialState.FAIL))  # before anything was drawn
    study.add_trial(told(sign * 5.0, TrialState.PRUNED, x=0.5))
    assert seen(study) == {0: sign * 1.0, 1: sign * 2.0, 2: sign * 3.0, 3: sign * 4.0, 4: sign * 5.0, 6: sign * 5.0}
    study.add_trial(told(sign * 1e9, x=0.5))
    assert seen(study)[7] == seen(study)[4] == sign * (4.75 + 3 * (4.75 - 2.25))
    assert study.trials[7].value == sign * 1e9  # the study itself stays as it is


def test_a_trial_stopped_before_the_whole_model_was_in_use_is_worth_what_it_reported() -> None:
    study = optuna.create_study()
    study.add_trial(
        optuna.trial.create_trial(
            state=TrialState.PRUNED, params={"x": 0.5}, distributions={"x": FLOAT}, intermediate_values={1: 0.8, 2: 0.9}
        )
    )
    assert seen(study) == {0: 0.8}


def test_a_study_without_anything_to_learn_shows_what_runs() -> None:
    study = optuna.create_study()
    study.add_trial(told(None, TrialState.FAIL, x=0.9))
    study.ask()
    assert [trial.state for trial in learnt_from(study).get_trials(deepcopy=False)] == [TrialState.RUNNING]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_of_a_long_search_the_best_and_the_latest_trials_are_seen(direction: str) -> None:
    study = optuna.create_study(direction=direction)
    for value in range(300):
        study.add_trial(told((value * 7) % 300, x=value / 300))
    assert len(seen(study, latest=300)) == 300, "a search this short is seen whole"
    shown = seen(study, latest=100)
    assert len(shown) == 125
    best = sorted(study.trials[:200], key=lambda trial: trial.values[0], reverse=direction == "maximize")[:25]
    assert set(shown) == {trial.number for trial in best} | set(range(200, 300))
