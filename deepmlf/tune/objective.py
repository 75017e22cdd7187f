"""What a search optimises: one metric, or two whose Pareto front it looks for."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from optuna.trial import FrozenTrial, TrialState

from deepmlf.data.task import Direction, Task
from deepmlf.errors import SearchError
from deepmlf.training.metrics import direction_of, is_better, metric_names
from deepmlf.training.reports import TRAINED_PARAMETERS, VALID, EpochReport


@dataclass(frozen=True)
class Objective:
    """A reported metric and its direction."""

    name: str
    """As trials report it, e.g. ``valid/MAE``."""
    direction: Direction

    @property
    def short(self) -> str:
        """The metric's name without its section."""
        return self.name.rpartition("/")[2]

    @property
    def mode(self) -> str:
        """Ray's word for the direction."""
        return "min" if self.direction == "minimize" else "max"

    @property
    def sign(self) -> int:
        """What makes less of it better: 1 of what is minimised, else -1."""
        return 1 if self.direction == "minimize" else -1

    def is_better(self, value: float, than: float | None) -> bool:
        """Whether `value` beats another one, or is the first."""
        return is_better(value, than, self.direction)

    def best(self, values: Iterable[float]) -> float:
        """The best of some values."""
        return min(values) if self.direction == "minimize" else max(values)


def make_objectives(names: Iterable[str], own: Mapping[str, Direction] = MappingProxyType({})) -> tuple[Objective, ...]:
    """Objectives with their directions, known by name; those of the user's own metrics from `Task.own`."""
    return tuple(Objective(name, direction_of(name, own)) for name in names)


def check_objectives(names: list[str], dataset: str, task: Task) -> None:
    """Refuse what cannot be optimised on a dataset of a name and a task.

    Raises:
        SearchError: For an unknown metric, one named twice, more than two, or a first one that is no validation metric.
    """
    known = [VALID + name for name in metric_names(task)] + [TRAINED_PARAMETERS]
    for name in names:
        if name not in known:
            raise SearchError(f"--objective {name}: no such metric; {dataset} has {', '.join(known)}")
    if len(set(names)) != len(names) or not 1 <= len(names) <= 2:
        raise SearchError(f"--objective {','.join(names)}: expected one metric, or two different ones")
    if not names[0].startswith(VALID):
        raise SearchError(
            f"--objective {names[0]}: picks no best epoch; name a validation metric first, e.g. valid/MAE,{names[0]}"
        )


def values_of(objectives: tuple[Objective, ...], report: EpochReport) -> list[float] | None:
    """The objectives' values in one report; None if it lacks one, as reports of stages before fusion do."""
    values = [report.get(objective.name) for objective in objectives]
    return None if None in values else [float(value) for value in values if value is not None]


def best_first(trials: Iterable[FrozenTrial], objectives: tuple[Objective, ...]) -> list[FrozenTrial]:
    """The trials among `trials` that came to something, best first by the first objective.

    A trial that was stopped early counts like a complete one: its best epoch's weights are kept all the same.
    """
    ended = (TrialState.COMPLETE, TrialState.PRUNED)
    worth = [trial for trial in trials if trial.state in ended and trial.values]
    return sorted(worth, key=lambda trial: trial.values[0], reverse=objectives[0].direction == "maximize")


def pareto_front(trials: list[FrozenTrial], objectives: tuple[Objective, ...]) -> list[int]:
    """Numbers of those trials, all with values, that no other one beats in all objectives, in the order given."""
    costs = [[of.sign * value for of, value in zip(objectives, trial.values, strict=True)] for trial in trials]
    beaten = [any(_beats(other, cost) for other in costs) for cost in costs]
    return [trial.number for trial, lost in zip(trials, beaten, strict=True) if not lost]


def _beats(cost: list[float], other: list[float]) -> bool:
    return cost != other and all(mine <= theirs for mine, theirs in zip(cost, other, strict=True))
