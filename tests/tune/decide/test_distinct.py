"""No setting is trained twice, whatever draws it."""

import json
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from deepmlf.tune.decide.distinct import DistinctSampler, spare_setting
from deepmlf.tune.decide.learning import in_use, learnt_from
from deepmlf.tune.experiment.study import OVERRIDES
from deepmlf.tune.names import SAMPLERS
from tests.tune.searchers import asked, epoch, searcher

DEPTH, TOKENS = "model.fusion_depth", "model.num_fusion_tokens"


def cut(trial: BaseTrial) -> dict[str, Any]:
    """Twelve settings that differ in effect, out of thirty that are drawn: the language model has four layers."""
    depth = trial.suggest_int(DEPTH, 1, 10)
    return {"model.fusion_start": 0.0, DEPTH: min(depth, 4), TOKENS: trial.suggest_int(TOKENS, 2, 6, step=2)}


def trained(trials: int) -> optuna.Study:
    """The study of a random search that has ended, of so many trials."""
    study = optuna.create_study()
    search = searcher(study, trials=trials, space=cut, sampler="random")
    for number in range(trials):
        search.suggest(str(number))
        search.on_trial_complete(str(number), epoch(1, 0.5, finished="full"))
    return study


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"auto", "grid"}))
def test_a_search_has_each_setting_once_and_ends_where_there_is_no_more(name: str) -> None:
    study = optuna.create_study()
    search = searcher(study, trials=30, space=cut, sampler=name)
    orders = []
    while isinstance(suggested := search.suggest(f"{len(orders)}"), dict):
        order = asked(suggested)
        orders.append((order.config.model.fusion_depth, order.config.model.num_fusion_tokens))
        search.on_trial_complete(f"{len(orders) - 1}", epoch(1, sum(orders[-1]), finished="full"))
    assert sorted(orders) == [(depth, tokens) for depth in (1, 2, 3, 4) for tokens in (2, 4, 6)]
    assert search.is_exhausted
    assert search.stop_reason is None
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 12


def test_a_resumed_search_knows_what_was_trained_before() -> None:
    study = trained(9)
    second = searcher(study, trials=30, space=cut, sampler="random")
    for number in range(3):
        asked(second.suggest(str(number)))
    assert second.suggest("3") == "FINISHED"
    assert second.is_exhausted
    assert len({trial.user_attrs[OVERRIDES] for trial in study.trials}) == 12


def test_what_was_given_is_trained_and_the_rest_of_it_is_new() -> None:
    study = optuna.create_study()
    search = searcher(study, trials=30, space=cut, sampler="random")
    for _ in range(3):
        study.enqueue_trial({DEPTH: 9})
    drawn = [asked(search.suggest(str(number))).overrides for number in range(3)]
    assert [setting[DEPTH] for setting in drawn] == [4, 4, 4]
    assert {setting[TOKENS] for setting in drawn} == {2, 4, 6}


def test_a_seed_of_its_own_makes_a_setting_new() -> None:
    def seeded(trial: BaseTrial) -> dict[str, Any]:
        return {"training.seed": trial.suggest_int("training.seed", 0, 4)}

    search = searcher(optuna.create_study(), trials=30, space=seeded)
    assert {asked(search.suggest(str(number))).config.training.seed for number in range(5)} == set(range(5))
    assert search.suggest("5") == "FINISHED"
    assert search.is_exhausted


class Scripted(BaseSampler):
    """Draws what it is told to."""

    def __init__(self, values: Iterator[int]) -> None:
        self._values = values

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, Any]:
        return {"x": optuna.distributions.IntDistribution(0, 99)}

    def sample_relative(self, study: Any, trial: FrozenTrial, search_space: Any) -> dict[str, Any]:
        assert list(search_space) == ["x"]
        return {"x": next(self._values)}

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        raise AssertionError("x is drawn with the others")


def test_a_sampler_is_asked_again_and_then_the_spare_one_is_taken() -> None:
    def space(trial: BaseTrial) -> dict[str, Any]:
        return {"x": trial.suggest_int("x", 0, 99)}

    study = optuna.create_study()
    for values, taken in (([7, 7, 5], 5), ([7] * 100, 42)):
        study.sampler = DistinctSampler(Scripted(iter(values)), space, lambda setting: setting["x"] != 7, {"x": 42})
        assert space(study.ask()) == {"x": taken}


def test_a_space_that_raises_is_left_to_the_trial() -> None:
    def space(trial: BaseTrial) -> dict[str, Any]:
        trial.suggest_int("x", 0, 9)
        raise ValueError("never")

    assert spare_setting(space, lambda setting: False, 0, 0) is not None
    search = searcher(optuna.create_study(), trials=3, space=space, sampler="tpe")
    assert search.suggest("0") == "FINISHED"
    assert search.stop_reason == "the first 3 trials all failed: ValueError: never"


def test_samplers_learn_of_what_was_in_use() -> None:
    """A depth of 10 on four layers is one of 4: they are told so, and of what was drawn only where it took effect."""
    study = optuna.create_study()
    search = searcher(study, trials=30, space=cut, sampler="random")
    study.enqueue_trial({DEPTH: 10, TOKENS: 6})
    search.suggest("0")
    search.on_trial_complete("0", epoch(1, 0.5, finished="full"))
    assert study.trials[0].params == {DEPTH: 10, TOKENS: 6}
    assert json.loads(study.trials[0].user_attrs[OVERRIDES])[DEPTH] == 4
    assert in_use(study.trials[0]) == {DEPTH: 4, TOKENS: 6}
    assert learnt_from(study).get_trials()[0].params == {DEPTH: 4, TOKENS: 6}


def test_what_cannot_be_trained_fails_once() -> None:
    def deep(trial: BaseTrial) -> dict[str, Any]:
        return {"model.fusion_start": 0.0, DEPTH: trial.suggest_int(DEPTH, 1, 6)}  # there are four layers

    study = optuna.create_study()
    search = searcher(study, trials=30, space=deep, sampler="random")
    number = 0
    while isinstance(search.suggest(str(number)), dict):
        search.on_trial_complete(str(number), epoch(1, 0.5, finished="full"))
        number += 1
    assert search.is_exhausted
    states = [trial.state for trial in study.trials]
    assert (states.count(TrialState.COMPLETE), states.count(TrialState.FAIL)) == (4, 2)


def test_a_trial_that_was_killed_before_it_was_drawn_is_given_a_new_setting() -> None:
    study = trained(11)
    study.ask()
    second = searcher(study, trials=30, space=cut, sampler="random")
    asked(second.suggest("0"))
    assert second.suggest("1") == "FINISHED"
    assert len({trial.user_attrs[OVERRIDES] for trial in study.trials}) == 12
