"""Trials share audiovisual stages: most of those that would train a new one take over another's."""

from typing import Any

import optuna
import pytest

from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.training.curriculum import stages_of
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.decide.samplers import make_sampler
from deepmlf.tune.decide.searcher import OptunaSearcher
from deepmlf.tune.decide.stages import _key_of
from deepmlf.tune.messages import TrialOrder
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.space.load import SearchSpace, load_space
from tests.tune.parts import TERMS, bound
from tests.tune.searchers import asked, epoch

LM = LanguageModelFacts(num_layers=16, width=576)


def orders_of(
    space: str | SearchSpace, sampler: str, seed: int, trials: int = 40, *, shares: bool = True
) -> list[TrialOrder]:
    """A search's orders; each trial reports some epochs before the next one is drawn."""
    orders = Orders(bound(load_space(space) if isinstance(space, str) else space, LM), TERMS)
    search = OptunaSearcher(
        optuna.create_study(),
        make_objectives(("valid/MAE",)),
        lambda number: make_sampler(
            sampler, seed, number, space=orders.sample, is_new=orders.is_new, epochs=3, trials=trials, concurrent=1
        ),
        orders,
        seed=seed,
        shares_stages=shares,
        trials=trials,
        unrecorded=[],
    )
    drawn = []
    for number in range(trials):
        drawn.append(asked(search.suggest(str(number))))
        value = 0.6 + drawn[-1].config.model.dropout / 10
        search.on_trial_complete(str(number), epoch(15, value, finished="full"))
    return drawn


def share_taken(drawn: list[TrialOrder]) -> float:
    """Of the trials that need a stage, those whose one an earlier trial has trained."""
    keys = [_key_of(order.config) for order in drawn if stages_of(order.config)[0].is_av_alone]
    return 1 - len(set(keys)) / len(keys)


@pytest.mark.parametrize("space", ["mosi", "mosei", "sims"])
def test_at_least_half_of_the_stages_are_another_trials(space: str) -> None:
    assert min(share_taken(orders_of(space, "mixed", seed)) for seed in range(2)) >= 0.5


def test_without_it_none_is_shared() -> None:
    assert share_taken(orders_of("mosi", "tpe", 0, shares=False)) == 0.0


def test_what_decides_on_fusion_alone_is_drawn_as_ever() -> None:
    drawn = orders_of("mosi", "tpe", 0)
    by_key: dict[str, list[Any]] = {}
    for order in drawn:
        if (key := _key_of(order.config)) is not None:
            by_key.setdefault(key, []).append(order.config)
    shared = max(by_key.values(), key=len)
    assert len(shared) >= 3
    for values in (
        {config.training.weight_decay for config in shared},
        {config.training.lr_fusion for config in shared},
        {config.model.dropout for config in shared},
    ):
        assert len(values) == len(shared)


def test_a_stage_that_a_space_does_not_draw_is_no_reason_to_change_what_it_draws() -> None:
    """Each trial has a width of its own, so that none can take over another's stage: dropout stays as drawn."""

    def space(trial: optuna.Trial) -> dict[str, Any]:
        return {
            "curriculum.name": "av_first",
            "model.av_width": 6 * (trial.number + 2),
            "model.av_dropout": trial.suggest_float("model.av_dropout", 0.0, 0.5),
        }

    loaded = SearchSpace("space", space, {}, [], "")
    assert len({order.config.model.av_dropout for order in orders_of(loaded, "tpe", 0, trials=12)}) == 12
