"""How Ray carries the messages of a search: as dictionaries, whose keys nobody else knows."""

from collections.abc import Mapping
from typing import Any, Protocol

from ray import tune

from deepmlf.training.reports import EpochReport
from deepmlf.tune.messages import SearchHalted, TrialFailed, TrialOrder, TrialWaits

_NUMBER, _ORDER = "number", "order"
_FAILED, _HALTED, _AWAITED = "failed", "halted", "awaited"

Message = EpochReport | TrialWaits | TrialFailed | SearchHalted


class RayTrial(Protocol):
    """What is used of Ray's trials; those of simulations have the same."""

    trial_id: str
    config: dict[str, Any]


def config_of(order: TrialOrder) -> dict[str, Any]:
    """The configuration of a Ray trial that carries an order."""
    return {_NUMBER: order.number, _ORDER: order}


def bare_config(number: int) -> dict[str, Any]:
    """The configuration of a trial that is only looked at, by its number."""
    return {_NUMBER: number}


def order_of(config: Mapping[str, Any]) -> TrialOrder:
    """The order that a Ray trial's configuration carries."""
    order: TrialOrder = config[_ORDER]
    return order


def number_of(config: Mapping[str, Any]) -> int:
    """The number of the trial in the study; also of a configuration in Ray's records, which keep no order."""
    return int(config[_NUMBER])


def folder_in_ray(trial: RayTrial) -> str:
    """The name of a trial's folder among Ray's records: each driver's trial has one of its own."""
    return f"{number_of(trial.config):04d}_{trial.trial_id}"


def doom(trial: RayTrial, reason: str) -> None:
    """Let the next worker that gets a trial fail it instead of training."""
    trial.config[_ORDER] = order_of(trial.config).model_copy(update={"doomed": reason})


def result_of(message: Message) -> dict[str, Any]:
    """A message of a worker as a Ray result."""
    if isinstance(message, EpochReport):
        return dict(message.metrics)
    if isinstance(message, TrialWaits):
        return {_AWAITED: message.awaited}
    return {_FAILED if isinstance(message, TrialFailed) else _HALTED: message.reason}


def message_in(result: Mapping[str, Any] | None) -> Message | None:
    """The message that a Ray result carries; None for one that a worker gave without a word."""
    if result is None:
        return None
    if _FAILED in result:
        return TrialFailed(result[_FAILED])
    if _HALTED in result:
        return SearchHalted(result[_HALTED])
    return TrialWaits(result[_AWAITED]) if _AWAITED in result else EpochReport.among(result)


def send(message: Message) -> None:
    """Report a message, in a worker."""
    tune.report(result_of(message))
