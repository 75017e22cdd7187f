"""The sampler that learns from all points of all curves, on searches that take no training."""

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import BaseTrial, TrialState
from threadpoolctl import threadpool_info

from deepmlf.tune.decide.curve_model import CurveModel, Points
from deepmlf.tune.decide.curve_sampler import CurveSampler, _in_view

EPOCHS = 9


def space(trial: BaseTrial) -> dict[str, Any]:
    setting = {
        "rate": trial.suggest_float("rate", 1e-5, 1e-1, log=True),
        "depth": trial.suggest_int("depth", 1, 12),
        "ffn": trial.suggest_categorical("ffn", ["full", "lora"]),
    }
    if setting["ffn"] == "lora":
        setting["rank"] = trial.suggest_int("rank", 4, 64, log=True)
    return setting


def loss(setting: dict[str, Any], epoch: int) -> float:
    """At best 0 in the end; what ends best does not lead."""
    off = abs(np.log10(setting["rate"]) + 3) / 2 + abs(setting["depth"] - 7) / 6 + (setting["ffn"] == "full")
    return float(off * (0.4 + 0.6 * epoch / EPOCHS) + 1.0 / epoch - 1.0 / EPOCHS)


def search(
    seed: int,
    trials: int,
    *,
    direction: str = "minimize",
    fails: Callable[[dict[str, Any]], bool] = lambda setting: False,
    study: optuna.Study | None = None,
) -> optuna.Study:
    """One trial after the other; two of three are stopped after three epochs."""
    study = study or optuna.create_study(direction=direction)
    sign = 1.0 if direction == "minimize" else -1.0
    while len(study.trials) < trials:
        number = len(study.trials)
        study.sampler = CurveSampler(space, EPOCHS, seed * 1000 + number)
        trial = study.ask()
        setting = space(trial)
        if fails(setting):
            study.tell(trial, state=TrialState.FAIL)
            continue
        last = EPOCHS if number % 3 == 0 else 3
        for epoch in range(1, last + 1):
            trial.report(sign * loss(setting, epoch), epoch)
        if last == EPOCHS:
            study.tell(trial, sign * loss(setting, EPOCHS))
        else:
            study.tell(trial, state=TrialState.PRUNED)
    return study


def finals(study: optuna.Study) -> list[float]:
    return [loss(trial.params, EPOCHS) for trial in study.trials if trial.state != TrialState.FAIL]


def test_it_finds_what_random_settings_do_not() -> None:
    found = [min(finals(search(seed, 24))) for seed in range(4)]
    generator = np.random.default_rng(0)
    random = [
        min(loss({"rate": 10 ** generator.uniform(-5, -1), "depth": generator.integers(1, 13),
                  "ffn": generator.choice(["full", "lora"])}, EPOCHS) for _ in range(24))
        for _ in range(50)
    ]  # fmt: skip
    assert np.median(found) < 0.3 * np.median(random)


def test_it_finds_the_same_where_more_is_better() -> None:
    less, more = search(1, 14), search(1, 14, direction="maximize")
    assert [trial.params for trial in less.trials] == [trial.params for trial in more.trials]


def test_a_search_is_repeated_by_its_seed_and_goes_on_as_it_would_have() -> None:
    whole = search(2, 14)
    again = optuna.create_study()
    again.add_trials(whole.trials[:9])
    assert [t.params for t in search(2, 14, study=again).trials] == [t.params for t in whole.trials]
    assert search(3, 7).trials[6].params != whole.trials[6].params


def test_where_trials_fail_it_goes_elsewhere() -> None:
    """The best rate is 1e-3; from 1.5e-3 on, nearly half of the range, every trial fails."""
    study = search(0, 40, fails=lambda setting: setting["rate"] > 1.5e-3)
    late = [trial.state for trial in study.trials[-20:]]
    assert late.count(TrialState.FAIL) <= 6
    assert min(finals(study)) < 0.25


def test_what_runs_is_not_proposed_again() -> None:
    study = search(0, 12)
    begun = []
    for number in range(12, 16):
        study.sampler = CurveSampler(space, EPOCHS, number)
        begun.append(space(study.ask()))
    rates = np.log10([setting["rate"] for setting in begun])
    assert all(
        abs(first - second) > 0.02 or begun[i]["depth"] != begun[j]["depth"] or begun[i]["ffn"] != begun[j]["ffn"]
        for i, first in enumerate(rates)
        for j, second in enumerate(rates)
        if i < j
    )


def test_a_setting_of_a_small_space_is_not_drawn_twice_before_the_others() -> None:
    def small(trial: BaseTrial) -> dict[str, Any]:
        return {"depth": trial.suggest_int("depth", 1, 4), "tokens": trial.suggest_int("tokens", 1, 4)}

    study, had = optuna.create_study(), list[dict[str, Any]]()
    for number in range(16):
        study.sampler = CurveSampler(small, 1, number, lambda overrides: overrides not in had)
        trial = study.ask()
        had.append(small(trial))
        value = sum(had[-1].values())
        trial.report(float(value), 1)
        study.tell(trial, float(value))
    after_the_first = [tuple(trial.params.values()) for trial in study.trials[5:]]
    assert len(set(after_the_first)) == 11


@pytest.mark.parametrize("told", [[], [0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]])
def test_it_begins_at_random_and_is_content_with_values_that_are_all_the_same(told: list[float]) -> None:
    study = optuna.create_study()
    for number, value in enumerate([*told, 0.0]):
        study.sampler = CurveSampler(space, EPOCHS, number)
        trial = study.ask()
        assert space(trial) == trial.params
        trial.report(value, 1)
        study.tell(trial, value)


def test_a_space_that_refuses_much_of_what_it_draws_costs_candidates_only() -> None:
    def picky(trial: BaseTrial) -> dict[str, Any]:
        setting = space(trial)
        if setting["depth"] % 2:
            raise ValueError("odd")
        return setting

    study = search(0, 8)
    study.sampler = CurveSampler(picky, EPOCHS, 8)
    assert picky(study.ask())["depth"] % 2 == 0


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_may_be_lists_and_nothing_at_all() -> None:
    def lists(trial: BaseTrial) -> dict[str, Any]:
        return {
            "layers": trial.suggest_categorical("layers", [[1, 3], [2, 3], [3]]),
            "patience": trial.suggest_categorical("patience", [None, 3]),
            "rate": trial.suggest_float("rate", 0.0, 1.0),
        }

    study = optuna.create_study()
    for number in range(9):
        study.sampler = CurveSampler(lists, 1, number)
        trial = study.ask()
        value = len(lists(trial)["layers"]) + trial.params["rate"]
        trial.report(value, 1)
        study.tell(trial, value)
    assert study.trials[-1].params["layers"] == [3]


def test_the_best_of_a_long_search_stay_in_view_with_all_their_points() -> None:
    trials = [
        optuna.trial.create_trial(
            params={"rate": 1e-2}, distributions={"rate": optuna.distributions.FloatDistribution(1e-5, 1e-1)},
            intermediate_values={1: 2.0 + value, 4: 1.0 + value, 9: value}, value=value,
        )
        for value in (0.0 if number == 3 else 1.0 + number % 7 / 10 for number in range(400))
    ]  # fmt: skip
    seen = _in_view(trials, 1.0)
    assert trials[3] in seen
    assert seen[-70:] == trials[-70:]
    points = CurveSampler(space, EPOCHS, 0)._points(seen, np.zeros((len(seen), 1)), 1.0)
    assert len(points) == 3 * len(seen) <= 350


def test_a_failed_trial_that_was_drawn_in_part_says_nothing() -> None:
    whole, broken = search(0, 12), search(0, 12)
    for _ in range(9):
        trial = broken.ask()
        trial.suggest_float("rate", 1e-5, 1e-1, log=True)
        broken.tell(trial, state=TrialState.FAIL)
    drawn = []
    for study in (whole, broken):
        study.sampler = CurveSampler(space, EPOCHS, 77)
        drawn.append(space(study.ask()))
    assert drawn[0] == drawn[1]


def test_one_thread_computes_while_trials_hold_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    fit = CurveModel.fit

    def watched(model: CurveModel, points: Points) -> None:
        seen.extend(pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas")
        fit(model, points)

    monkeypatch.setattr(CurveModel, "fit", watched)
    search(seed=0, trials=12)
    assert seen
    assert set(seen) == {1}
