"""The searcher's states by ask, report and tell alone: no cluster, no training."""

import json
import math
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from ray.tune.search import Searcher

from deepmlf.errors import ConfigError
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.scheduler import ResumableASHA
from deepmlf.tune.searcher import OBJECTIVE, OptunaSearcher
from deepmlf.tune.space import SearchSpace

TOKENS = "model.num_fusion_tokens"


def space(trial: optuna.Trial) -> dict[str, Any]:
    return {TOKENS: trial.suggest_int(TOKENS, 2, 12)}


def searcher(
    study: optuna.Study,
    trials: int = 8,
    space: Callable[..., dict[str, Any]] = space,
    check: Any = lambda setting: None,
) -> OptunaSearcher:
    loaded = SearchSpace("space", space, {}, [], Path("space.py"))
    return OptunaSearcher(study, loaded, trials, LanguageModelFacts(4, 64), seed=0, check=check, unrecorded=[])


def epoch(number: int, value: float, **more: Any) -> dict[str, Any]:
    return {"fusion_epoch": number, OBJECTIVE: value} | more


def number_of(suggested: dict[str, Any] | str | None) -> int:
    assert isinstance(suggested, dict)
    return int(suggested["number"])


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
    asked = [search.suggest(str(index)) for index in range(priors + 1)]
    assert [one["overrides"][TOKENS] for one in asked if isinstance(one, dict)] == list(range(3, 3 + priors))
    assert asked[-1] == Searcher.FINISHED


def test_a_dead_drivers_trials_are_handed_out_again_under_their_number() -> None:
    study = optuna.create_study()
    dead = searcher(study, trials=3)
    before = [dead.suggest("a"), dead.suggest("b")]
    dead.on_trial_complete("a", epoch(9, 0.5, finished="full"))
    search = searcher(study, trials=3)
    assert search.suggest("c") == before[1]
    assert number_of(search.suggest("d")) == 2
    assert search.suggest("e") == Searcher.FINISHED


def test_a_resume_draws_what_an_uninterrupted_search_would_have_drawn() -> None:
    def run(stop_after: int) -> list[dict[str, Any]]:
        study = optuna.create_study()
        study.enqueue_trial({TOKENS: 8})
        search = searcher(study)
        for index in range(8):
            if index == stop_after:
                search = searcher(study)
            search.suggest(str(index))
            search.on_trial_complete(str(index), epoch(1, 1.0 + index % 3, finished="full"))
        return [trial.params for trial in study.trials]

    assert run(stop_after=3) == run(stop_after=99)


@pytest.mark.parametrize("error", [ConfigError("model.fusion_depth=9: too deep"), KeyError("num_layers")])
def test_a_setting_that_cannot_be_trained_fails_and_the_next_is_asked(error: Exception) -> None:
    def sometimes(trial: optuna.Trial) -> dict[str, Any]:
        if trial.number == 0:
            raise error
        return space(trial)

    study = optuna.create_study()
    assert number_of(searcher(study, space=sometimes).suggest("a")) == 1
    assert study.trials[0].state == TrialState.FAIL
    assert study.trials[0].user_attrs["fail_reason"] == f"{type(error).__name__}: {error}"


def test_three_failures_at_the_start_end_the_search() -> None:
    def never(setting: dict[str, Any]) -> None:
        raise ConfigError("no such setting")

    study = optuna.create_study()
    search = searcher(study, trials=20, check=never)
    assert search.suggest("a") == Searcher.FINISHED
    assert search.stop_reason == "the first 3 trials all failed: ConfigError: no such setting"
    assert len(study.trials) == 3


def ray_trial(number: int) -> Any:
    return types.SimpleNamespace(trial_id=f"ray{number}", config={"number": number})


def rungs(scheduler: ResumableASHA) -> dict[int, list[float]]:
    return {
        milestone: sorted(-value for value in recorded.values())
        for milestone, recorded in scheduler._brackets[0]._rungs
    }


def test_a_resume_finds_the_rungs_as_the_dead_driver_left_them() -> None:
    study = optuna.create_study()
    before = ResumableASHA(study, epochs=9, grace_period=1, reduction_factor=3)
    for number, epochs in enumerate([9, 3, 5]):  # the last one is under way
        optuna_trial = study.ask()
        trial = ray_trial(number)
        before.on_trial_add(None, trial)
        for step in range(1, epochs + 1):
            value = number + 1 / step
            before.on_trial_result(None, trial, epoch(step, value))
            optuna_trial.report(value, step)
        if number < 2:
            study.tell(optuna_trial, 1.0)
    after = ResumableASHA(study, epochs=9, grace_period=1, reduction_factor=3)
    resumed = ray_trial(2)
    after.on_trial_add(None, resumed)
    for scheduler in (before, after):  # the resumed worker reports its checkpoint's epoch again, then goes on
        for step in (5, 6, 7):
            scheduler.on_trial_result(None, resumed, epoch(step, 2 + 1 / step))
    assert rungs(after)[1] == rungs(before)[1] == [1.0, 2.0, 3.0]
    assert rungs(after)[3] == rungs(before)[3]


def test_trials_that_ray_has_not_written_down_pass_through_it_untrained_and_unchanged() -> None:
    study = optuna.create_study()
    first = searcher(study, trials=1)
    first.suggest("a")
    first.on_trial_complete("a", epoch(1, 0.5, finished="full"))
    loaded = SearchSpace("space", space, {}, [], Path("space.py"))
    search = OptunaSearcher(study, loaded, 1, 4, 0, lambda setting: None, unrecorded=[0])
    assert search.suggest("b") == {"number": 0, "overrides": {}, "only_record": True}
    search.on_trial_complete("b", None)
    assert search.suggest("c") == Searcher.FINISHED
    assert [(trial.state, trial.value) for trial in study.trials] == [(TrialState.COMPLETE, 0.5)]


def test_an_override_is_stored_as_json() -> None:
    study = optuna.create_study()
    suggested = searcher(study).suggest("a")
    assert isinstance(suggested, dict)
    assert json.loads(study.trials[0].user_attrs["overrides"]) == suggested["overrides"]
