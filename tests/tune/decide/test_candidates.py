"""Candidates are settings of the space: its conditions and ranges hold of each."""

from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import BaseTrial

from deepmlf.tune.decide.candidates import Nearby


def space(trial: BaseTrial) -> dict[str, Any]:
    setting = {
        "rate": trial.suggest_float("rate", 1e-4, 1e-1, log=True),
        "tokens": trial.suggest_int("tokens", 2, 24, step=2),
        "ffn": trial.suggest_categorical("ffn", ["full", "lora"]),
    }
    if setting["ffn"] == "lora":
        setting["rank"] = trial.suggest_int("rank", 4, 64, log=True)
    return setting


def draw(generator: np.random.Generator, *near: Any) -> dict[str, Any]:
    candidate = Nearby(generator, 7, *near)
    assert space(candidate) == candidate.params
    assert optuna.trial.create_trial(  # says so if a value is out of range
        state=optuna.trial.TrialState.RUNNING, params=candidate.params, distributions=candidate.distributions
    )
    return candidate.params


def test_at_random_every_value_is_drawn() -> None:
    generator = np.random.default_rng(0)
    drawn = [draw(generator) for _ in range(400)]
    assert {setting["tokens"] for setting in drawn} == set(range(2, 25, 2))
    assert {"rank" in setting for setting in drawn} == {True, False}
    assert np.median([np.log10(setting["rate"]) for setting in drawn]) == pytest.approx(-2.5, abs=0.2)


@pytest.mark.parametrize("near", [{"rate": 1e-4, "tokens": 24, "ffn": "lora", "rank": 64}, {"rate": 1e-1, "tokens": 2}])
def test_near_a_setting_numbers_stay_near_and_within_their_range(near: dict[str, Any]) -> None:
    generator = np.random.default_rng(0)
    drawn = [draw(generator, near, 0.05, 1.0) for _ in range(200)]
    far = [abs(np.log10(setting["rate"] / near["rate"])) / 3 for setting in drawn]
    assert 0.02 < np.mean(far) < 0.06
    assert max(abs(setting["tokens"] - near["tokens"]) for setting in drawn) <= 6


def test_only_a_share_moves_and_what_a_new_choice_asks_for_is_drawn() -> None:
    generator = np.random.default_rng(0)
    near = {"rate": 1e-2, "tokens": 8, "ffn": "full"}
    assert draw(generator, near, 0.3, 0.0) == near
    drawn = [draw(generator, near, 0.3, 0.3) for _ in range(300)]
    assert 0.5 < np.mean([setting["rate"] == 1e-2 for setting in drawn]) < 0.9
    assert 0.05 < np.mean(["rank" in setting for setting in drawn]) < 0.35


def test_a_value_that_the_space_no_longer_has_is_drawn_anew() -> None:
    drawn = draw(np.random.default_rng(0), {"rate": 3.0, "tokens": 99, "ffn": "other"}, 0.1, 0.0)
    assert drawn["rate"] <= 0.1


def test_asked_twice_a_parameter_keeps_its_value_and_older_names_are_known() -> None:
    candidate = Nearby(np.random.default_rng(0), 3)
    assert candidate.suggest_float("x", 0, 1) == candidate.suggest_float("x", 0, 1)
    assert 0 <= candidate.suggest_uniform("a", 0, 1) <= 1
    assert 1 <= candidate.suggest_loguniform("b", 1, 9) <= 9
    assert candidate.suggest_discrete_uniform("c", 0, 1, 0.5) in (0, 0.5, 1)
    assert (candidate.number, candidate.user_attrs, candidate.should_prune()) == (3, {}, False)
