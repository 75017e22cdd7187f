"""Samplers by name, and the points of a grid."""

from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler

from deepmlf.errors import SearchError
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.tune.decide import samplers
from deepmlf.tune.decide.samplers import check_sampler, grid_points, make_sampler, settled
from deepmlf.tune.names import SAMPLERS
from deepmlf.tune.space.bound import BoundSpace
from tests.tune.parts import bound

LM = LanguageModelFacts(num_layers=3, width=64)


def make(name: str, number: int, *, seed: int = 0, trials: int = 12, concurrent: int = 2) -> BaseSampler:
    """A sampler of settings that have one parameter, all of which are new."""
    return make_sampler(
        name, seed, number, space=lambda trial: {"tokens": trial.suggest_int("tokens", 1, 30)},
        is_new=lambda overrides: True, epochs=3, trials=trials, concurrent=concurrent,
    )  # fmt: skip


def loaded(space: Any) -> BoundSpace:
    return bound(space, LM)


def conditional(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    setting: dict[str, Any] = {
        "model.fusion_depth": trial.suggest_int("model.fusion_depth", 1, lm.num_layers),
        "model.ffn": trial.suggest_categorical("model.ffn", ["full", "lora"]),
    }
    if setting["model.ffn"] == "lora":
        setting["model.lora_rank"] = trial.suggest_int("model.lora_rank", 2, 6, step=2)
    return setting


def test_a_grid_has_each_point_once_and_obeys_conditions() -> None:
    points, is_cut = grid_points(loaded(conditional), None, seed=0)
    assert not is_cut
    assert len(points) == len({tuple(sorted(point.items())) for point in points}) == 3 * (1 + 3)
    assert all(("model.lora_rank" in point) == (point["model.ffn"] == "lora") for point in points)
    assert grid_points(loaded(conditional), 12, seed=0) == (points, False)
    assert grid_points(loaded(conditional), 11, seed=0) == (points[:11], True)


def test_of_a_grid_s_points_that_train_the_same_one_is_taken() -> None:
    def cut(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
        return {
            "model.fusion_start": 0.0,
            "model.fusion_depth": min(trial.suggest_int("model.fusion_depth", 1, 10), lm.num_layers),
            "model.ffn": "full",
            "model.lora_rank": trial.suggest_categorical("model.lora_rank", [8, 16]),
        }

    points, is_cut = grid_points(loaded(cut), 5, seed=0)
    assert not is_cut
    depths = [min(point["model.fusion_depth"], LM.num_layers) for point in points]
    assert sorted(depths) == [1, 2, 3]


def test_a_grid_of_too_many_points_wants_to_be_told_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samplers, "_GRID_LIMIT", 11)
    with pytest.raises(SearchError, match="--sampler grid: the space has more than 11 points; say with --trials how"):
        grid_points(loaded(conditional), None, seed=0)
    monkeypatch.setattr(samplers, "_GRID_LIMIT", 12)
    assert len(grid_points(loaded(conditional), None, seed=0)[0]) == 12


def test_a_grid_without_end_is_refused() -> None:
    def endless(trial: optuna.Trial) -> dict[str, Any]:
        return {"training.lr_av": trial.suggest_float("training.lr_av", 1e-4, 1e-2, log=True)}

    with pytest.raises(SearchError, match="--sampler grid: every float of the space needs a step"):
        grid_points(loaded(endless), 100, seed=0)


@pytest.mark.parametrize(
    ("name", "objectives", "message"),
    [
        (
            "tep",
            1,
            f"--sampler tep: no such sampler; choose one of {', '.join(SAMPLERS)}",
        ),
        ("cmaes", 2, "--sampler cmaes: works on one objective only; choose one of auto, tpe, random, gp, grid, nsga2"),
    ],
)
def test_a_sampler_that_cannot_serve_is_refused_with_those_that_can(name: str, objectives: int, message: str) -> None:
    with pytest.raises(SearchError) as caught:
        check_sampler(name, objectives)
    assert str(caught.value) == message


def test_a_grid_takes_nothing_over_from_an_earlier_experiment() -> None:
    check_sampler("tpe", 1, has_warm_start=True)
    with pytest.raises(SearchError, match="^--warm-start: a grid learns nothing from earlier trials; choose another"):
        check_sampler("grid", 1, has_warm_start=True)


def test_auto_is_a_sampler_that_can_serve() -> None:
    assert [settled("auto", objectives) for objectives in (1, 2)] == ["mixed", "tpe"]
    assert settled("gp", 2) == "gp"


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - {"mixed", "curves", "cmaes"}))
def test_samplers_draw_for_two_objectives_too(name: str) -> None:
    study = optuna.create_study(directions=["minimize", "minimize"])
    for number in range(6):
        study.sampler = make(settled(name, 2), number)
        trial = study.ask()
        tokens = trial.suggest_int("tokens", 1, 30)
        study.tell(trial, [tokens, -tokens])
    assert len(study.trials) == 6
