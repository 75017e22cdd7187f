"""The searcher's states by ask, report and tell alone: no cluster, no training."""

import json
import math
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError
from deepmlf.training.curriculum import whole_model_from
from deepmlf.tune.objective import best_first, make_objectives
from tests.tune.searchers import OBJECTIVE, TOKENS, asked, epoch, searcher, space


def test_a_finished_trial_is_complete_with_its_best_epoch() -> None:
    study = optuna.create_study()
    search = searcher(study)
    search.suggest("a")
    search.on_trial_result("a", {"stage": "av", "epoch": 1})  # a stage before fusion has no fidelity
    for number, value in enumerate([0.9, 0.7, 0.8], start=1):
        search.on_trial_result("a", epoch(number, value))
    search.on_trial_complete("a", epoch(3, 0.8, finished="full"))
    trial = study.trials[0]
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.7)
    assert trial.intermediate_values == {1: 0.9, 2: 0.7, 3: 0.8}


def test_a_stopped_trial_is_pruned_and_its_last_report_counts() -> None:
    study = optuna.create_study()
    search = searcher(study)
    search.suggest("a")
    search.on_trial_complete("a", epoch(1, 0.9))
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].intermediate_values == {1: 0.9}


@pytest.mark.parametrize(
    ("result", "error", "reason"),
    [
        ({"failed": "ValueError: too wide"}, False, "ValueError: too wide"),
        (None, True, "the worker died too often; see error.txt"),
        ({"stage": "av", "epoch": 3}, False, "ended without a fusion epoch"),
        (epoch(2, math.nan, finished="full"), False, "valid/MAE became nan in fusion epoch 2"),
    ],
)
def test_a_failed_trial_has_its_reason(result: dict[str, Any] | None, error: bool, reason: str) -> None:
    study = optuna.create_study()
    search = searcher(study)
    search.suggest("a")
    search.on_trial_complete("a", result, error)
    assert (study.trials[0].state, study.trials[0].user_attrs["fail_reason"]) == (TrialState.FAIL, reason)


def test_a_value_that_turns_non_finite_fails_the_trial_for_good() -> None:
    study = optuna.create_study()
    search = searcher(study)
    search.suggest("a")
    search.on_trial_result("a", epoch(1, 0.9))
    search.on_trial_result("a", epoch(2, math.inf))
    search.on_trial_complete("a", epoch(3, 0.8, finished="full"))
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["fail_reason"] == "valid/MAE became inf in fusion epoch 2"


def test_a_stopped_trial_is_worth_its_best_epoch_and_ranked_by_it() -> None:
    study = optuna.create_study()
    search = searcher(study)
    search.suggest("a")
    search.on_trial_result("a", epoch(1, 0.7))
    search.on_trial_complete("a", epoch(2, 0.9))
    assert (study.trials[0].state, study.trials[0].value) == (TrialState.PRUNED, 0.7)
    assert best_first(study.trials, make_objectives([OBJECTIVE]))[0].number == 0


GROWN = {"curriculum.name": "grow_depth", "curriculum.grow_share": 0.5, "model.fusion_depth": 2, "training.epochs": 4}


@pytest.mark.parametrize(
    ("epochs", "finished", "state", "value"),
    [(2, False, TrialState.PRUNED, None), (3, False, TrialState.PRUNED, 0.8), (4, True, TrialState.COMPLETE, 0.6)],
)
def test_a_trial_that_grows_is_worth_what_it_reached_with_all_its_blocks(
    epochs: int, finished: bool, state: TrialState, value: float | None
) -> None:
    study = optuna.create_study()
    search = searcher(study)
    order = asked(search.suggest("a"))
    search._whole_from[order.number] = whole_model_from(TrialConfig.from_overrides(GROWN))
    values = [0.5, 0.4, 0.8, 0.6]
    for number in range(1, epochs):
        search.on_trial_result("a", epoch(number, values[number - 1]))
    search.on_trial_complete("a", epoch(epochs, values[epochs - 1]) | ({"finished": "full"} if finished else {}))
    assert (study.trials[0].state, study.trials[0].value) == (state, value)
    assert len(study.trials[0].intermediate_values) == epochs  # a scheduler sees all of them


def test_an_ending_and_an_epoch_are_told_once() -> None:
    study = optuna.create_study()
    search = searcher(study)
    search.suggest("a")
    search.on_trial_result("a", epoch(1, 0.9))
    search.on_trial_result("a", epoch(1, 0.5))  # a retried worker reports its checkpoint's epoch again
    search.on_trial_complete("a", epoch(1, 0.9))
    search.on_trial_complete("a", epoch(1, 0.9, finished="full"))
    assert study.trials[0].state == TrialState.PRUNED
    assert study.trials[0].intermediate_values == {1: 0.9}


@pytest.mark.parametrize("priors", [1, 3, 5])
def test_priors_come_first_and_count_as_trials(priors: int) -> None:
    study = optuna.create_study()
    for tokens in range(3, 3 + priors):
        study.enqueue_trial({TOKENS: tokens})
    search = searcher(study, trials=priors)
    *suggested, last = [search.suggest(str(index)) for index in range(priors + 1)]
    assert [asked(one).overrides[TOKENS] for one in suggested] == list(range(3, 3 + priors))
    assert last == Searcher.FINISHED


def test_a_dead_drivers_trials_are_handed_out_again_under_their_number() -> None:
    study = optuna.create_study()
    dead = searcher(study, trials=3)
    before = [dead.suggest("a"), dead.suggest("b")]
    dead.on_trial_complete("a", epoch(9, 0.5, finished="full"))
    search = searcher(study, trials=3)
    assert search.suggest("c") == before[1]
    assert asked(search.suggest("d")).number == 2
    assert search.suggest("e") == Searcher.FINISHED


@pytest.mark.parametrize("sampler", ["tpe", "random", "gp", "cmaes", "nsga2"])
def test_a_resume_draws_what_an_uninterrupted_search_would_have_drawn(sampler: str) -> None:
    def two(trial: optuna.Trial) -> dict[str, Any]:
        return space(trial) | {"training.lr_av": trial.suggest_float("training.lr_av", 1e-4, 1e-2, log=True)}

    def run(stop_after: int) -> list[dict[str, Any]]:
        study = optuna.create_study()
        study.enqueue_trial({TOKENS: 8})
        search = searcher(study, trials=7, space=two, sampler=sampler)
        for index in range(7):
            if index == stop_after:
                search = searcher(study, trials=7, space=two, sampler=sampler)
            search.suggest(str(index))
            search.on_trial_complete(str(index), epoch(1, 1.0 + index % 3, finished="full"))
        return [trial.params for trial in study.trials]

    assert run(stop_after=5) == run(stop_after=99)


def test_trials_told_by_a_metric_to_maximise_keep_their_highest_value() -> None:
    study = optuna.create_study(direction="maximize")
    search = searcher(study, objectives=("valid/Corr",))
    search.suggest("a")
    for number, value in enumerate([0.2, 0.6, 0.5], start=1):
        search.on_trial_result("a", {"epoch": number, "fusion_epoch": number, "valid/Corr": value, "finished": "full"})
    search.on_trial_complete("a", {"epoch": 3, "fusion_epoch": 3, "valid/Corr": 0.5, "finished": "full"})
    assert study.trials[0].value == 0.6


def test_two_objectives_are_those_of_the_epoch_that_is_best_by_the_first() -> None:
    study = optuna.create_study(directions=["minimize", "maximize"])
    search = searcher(study, objectives=(OBJECTIVE, "valid/Corr"))
    search.suggest("a")
    for number, mae, corr in ((1, 0.9, 0.3), (2, 0.7, 0.4), (3, 0.8, 0.6)):
        result = epoch(number, mae, finished="full") | {"valid/Corr": corr}
        search.on_trial_result("a", result)
    search.on_trial_complete("a", result)
    search.suggest("b")
    search.on_trial_complete("b", epoch(1, 0.5) | {"valid/Corr": math.nan})
    assert study.trials[0].values == [0.7, 0.4]
    assert study.trials[0].intermediate_values == {1: 0.9, 2: 0.7, 3: 0.8}
    assert study.trials[1].user_attrs["fail_reason"] == "valid/Corr became nan in fusion epoch 1"


def test_trials_of_an_earlier_experiment_do_not_count() -> None:
    study = optuna.create_study()
    distributions = {TOKENS: optuna.distributions.IntDistribution(2, 12)}
    for tokens in (4, 5):
        study.add_trial(
            optuna.trial.create_trial(
                value=1.0,
                params={TOKENS: tokens},
                distributions=distributions,
                user_attrs={"warm_start": f"earlier/{tokens}"},
            )  # fmt: skip
        )
    search = searcher(study, trials=2)
    assert [asked(search.suggest("a")).number, asked(search.suggest("b")).number] == [2, 3]
    assert search.suggest("c") == Searcher.FINISHED


@pytest.mark.parametrize("error", [ConfigError("model.fusion_depth=9: too deep"), KeyError("num_layers")])
def test_a_setting_that_cannot_be_trained_fails_and_the_next_is_asked(error: Exception) -> None:
    def sometimes(trial: optuna.Trial) -> dict[str, Any]:
        if trial.number == 0:
            raise error
        return space(trial)

    study = optuna.create_study()
    assert asked(searcher(study, space=sometimes).suggest("a")).number == 1
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["fail_reason"] == f"{type(error).__name__}: {error}"


def test_three_failures_at_the_start_end_the_search() -> None:
    study = optuna.create_study()
    search = searcher(study, trials=20, refused="no such setting")
    assert search.suggest("a") == Searcher.FINISHED
    assert search.stop_reason == "the first 3 trials all failed: ConfigError: no such setting"
    assert len(study.trials) == 3


def test_a_resume_tries_again_after_three_failures_at_the_start() -> None:
    study = optuna.create_study()
    assert searcher(study, trials=20, refused="no such setting").suggest("a") == Searcher.FINISHED
    mended = searcher(study, trials=20)
    assert asked(mended.suggest("b")).number == 3
    assert mended.stop_reason is None
    mended.on_trial_complete("b", error=True)
    still = searcher(study, trials=20, refused="no such setting")
    assert still.suggest("c") == Searcher.FINISHED
    assert len(study.trials) == 7


def test_failures_do_not_end_the_search_while_another_trial_learns() -> None:
    study = optuna.create_study()
    search = searcher(study, trials=20)
    search.suggest("good")
    search.on_trial_result("good", epoch(1, 0.9))
    for name in "abc":  # what diverges ends first
        search.suggest(name)
        search.on_trial_complete(name, {"failed": "the loss became nan"})
    assert asked(search.suggest("d")).number == 4
    assert search.stop_reason is None


def test_failures_wait_for_a_trial_that_may_be_in_a_stage_before_fusion() -> None:
    study = optuna.create_study()
    search = searcher(study, trials=20)
    search.suggest("silent")
    for name in "abc":
        search.suggest(name)
        search.on_trial_complete(name, {"failed": "the loss became nan"})
    assert search.suggest("d") is None
    assert search.stop_reason is None
    search.on_trial_result("silent", epoch(1, 0.9))
    assert asked(search.suggest("d")).number == 4


def test_when_the_last_of_the_first_trials_fails_too_the_search_ends() -> None:
    study = optuna.create_study()
    search = searcher(study, trials=20)
    for name in "abcd":  # four at a time
        search.suggest(name)
    for name in "dcba":
        assert search.stop_reason is None
        search.on_trial_complete(name, {"failed": f"no luck with {name}"})
    assert search.suggest("e") == Searcher.FINISHED
    assert search.stop_reason == "the first 4 trials all failed: no luck with d"


def test_trials_that_ray_has_not_written_down_pass_through_it_untrained_and_unchanged() -> None:
    study = optuna.create_study()
    first = searcher(study, trials=1)
    first.suggest("a")
    first.on_trial_complete("a", epoch(1, 0.5, finished="full"))
    search = searcher(study, trials=1, unrecorded=(0,))
    order = asked(search.suggest("b"))
    assert (order.number, order.only_record) == (0, True)
    search.on_trial_complete("b", None)
    assert search.suggest("c") == Searcher.FINISHED
    assert [(trial.state, trial.value) for trial in study.trials] == [(TrialState.COMPLETE, 0.5)]


def test_an_override_is_stored_as_json() -> None:
    study = optuna.create_study()
    order = asked(searcher(study).suggest("a"))
    assert json.loads(study.trials[0].user_attrs["overrides"]) == order.overrides
    assert order.config.model.num_fusion_tokens == order.overrides[TOKENS]
