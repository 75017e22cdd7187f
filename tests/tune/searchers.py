"""Searchers that tests ask and tell by hand: no cluster, no training."""

from collections.abc import Callable
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from deepmlf.errors import ConfigError
from deepmlf.tune.decide.orders import Orders
from deepmlf.tune.decide.samplers import make_sampler
from deepmlf.tune.decide.searcher import OptunaSearcher
from deepmlf.tune.messages import TrialOrder
from deepmlf.tune.objective import make_objectives
from deepmlf.tune.worker.wire import order_of
from tests.tune.parts import TERMS, bound

TOKENS = "model.num_fusion_tokens"
OBJECTIVE = "valid/MAE"


def space(trial: optuna.Trial) -> dict[str, Any]:
    return {TOKENS: trial.suggest_int(TOKENS, 2, 12)}


def searcher(
    study: optuna.Study,
    trials: int = 8,
    space: Callable[..., dict[str, Any]] = space,
    refused: str | None = None,
    sampler: str = "tpe",
    objectives: tuple[str, ...] = (OBJECTIVE,),
    unrecorded: tuple[int, ...] = (),
) -> OptunaSearcher:
    orders = Refusing(refused) if refused else Orders(bound(space), TERMS)

    def made(number: int) -> BaseSampler:
        return make_sampler(
            sampler, 0, number, space=orders.sample, is_new=orders.is_new, epochs=3, trials=trials, concurrent=1
        )

    return OptunaSearcher(
        study, make_objectives(objectives), made, orders, seed=0, trials=trials, unrecorded=list(unrecorded)
    )


class Refusing(Orders):
    """Orders of settings none of which can be trained."""

    def __init__(self, reason: str) -> None:
        super().__init__(bound(space), TERMS)
        self._reason = reason

    def again(self, number: int, overrides: dict[str, Any]) -> TrialOrder:
        raise ConfigError(self._reason)


def epoch(number: int, value: float, **more: Any) -> dict[str, Any]:
    return {"stage": "fusion", "epoch": number, "fusion_epoch": number, OBJECTIVE: value} | more


def asked(suggested: dict[str, Any] | str | None) -> TrialOrder:
    assert isinstance(suggested, dict)
    return order_of(suggested)
