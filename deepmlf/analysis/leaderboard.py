"""All trials of an experiment beside each other, those that were stopped early at the fidelity that they reached.

Trials are ranked by what they reached in their best epoch, however many epochs they had. Fewer epochs give a trial
fewer to choose its best one from, so that they never help it; more may help one that was stopped. Where one that was
stopped leads all that were trained to their end, that is said.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from optuna.trial import FrozenTrial

from deepmlf.analysis.fidelity import CommonFidelity, common_fidelity
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.results import column
from deepmlf.tune.objective import Objective


@dataclass(frozen=True)
class Row:
    """A trial on the leaderboard."""

    rank: int | None
    """1 is the best; None of trials that failed or still run, and of those that repeat another one's training."""
    trial: int
    state: str
    values: list[float]
    """The objectives in its best epoch so far; none before the first one."""
    epochs: int
    """Fusion epochs that it reached."""
    is_whole: bool
    """Whether it was trained to its end."""
    at_common: float | None
    """The first objective by the fidelity at which trials are compared; None if it has not reached that."""
    params: Mapping[str, Any]
    """What was drawn for it."""
    repeats: int | None
    """The trial whose training it repeats."""
    on_front: bool
    """Whether no other one beats it in all objectives."""


@dataclass(frozen=True)
class Leaderboard:
    """All trials of an experiment, best first; those without a rank come last."""

    rows: list[Row]
    common: CommonFidelity
    """At which all can be compared."""
    objective: str
    """The first one."""

    @property
    def ranked(self) -> list[Row]:
        """Rows that have a rank."""
        return [row for row in self.rows if row.rank is not None]

    @property
    def best(self) -> Row | None:
        """The trial with the best first objective: the first row of one objective."""
        return min(self.ranked, key=lambda row: row.rank or 0, default=None)

    @property
    def lead_of_a_stopped_trial(self) -> str | None:
        """What to know where the best trial was stopped early; None where it was not."""
        best = self.best
        if best is None or best.is_whole:
            return None
        stopped = f"trial {best.trial}, the best, was stopped at fusion epoch {best.epochs} of {self.common.full}"
        whole = next((row for row in self.ranked if row.is_whole), None)
        if whole is None:
            return f"{stopped}; no trial was trained to its end, `deepmlf confirm` trains the best settings so"
        return (
            f"{stopped}; of those trained to their end trial {whole.trial} is the best "
            f"({self.objective} {whole.values[0]:.4f}); `deepmlf confirm` trains the best settings to their end"
        )


def leaderboard_of(records: Records, trials: Mapping[int, FrozenTrial], front: Collection[int]) -> Leaderboard:
    """The leaderboard of an experiment.

    Args:
        records: Its trials.
        trials: The same, as its study has them, by number.
        front: Numbers of those that no other one beats in all objectives. With two objectives they come first.
    """
    common, ranked = common_fidelity(records), [trial for trial in records.ranked if trial.repeats is None]
    numbers = {trial.number for trial in ranked}
    rest = [trial for trial in records.trials if trial.number not in numbers]
    ranks = {trial.number: rank for rank, trial in enumerate(ranked, start=1)}

    def row(trial: TrialRecord) -> Row:
        return Row(
            rank=ranks.get(trial.number),
            trial=trial.number,
            state=trial.state,
            values=_values(trial, trials[trial.number], records),
            epochs=trial.epochs,
            is_whole=trial.is_complete,
            at_common=common.values.get(trial.number, [None])[0],
            params=trial.params,
            repeats=trial.repeats,
            on_front=trial.number in front,
        )

    if len(records.objectives) > 1:
        ranked.sort(key=lambda trial: trial.number not in front)
    return Leaderboard([row(trial) for trial in [*ranked, *rest]], common, records.objectives[0].name)


def _values(trial: TrialRecord, frozen: FrozenTrial, records: Records) -> list[float]:
    """A trial's objectives in its best epoch so far."""
    if trial.value is not None:
        return [trial.value, *(frozen.values or [])[1:]]
    values = [trial.best.get(objective.name) for objective in records.objectives]
    return [] if None in values else [float(value) for value in values if value is not None]


def trials_table(board: Leaderboard, results: pa.Table, objectives: Sequence[Objective]) -> pa.Table:
    """One row per trial, best first, what was drawn under dotted names; see `Experiment.trials`.

    Args:
        board: All trials.
        results: What `results_of` returned for their experiment.
        objectives: What the experiment optimises.
    """
    ends = {row["trial"]: row for row in results.select(["trial", "fail_reason", "seconds"]).to_pylist()}  # last epochs
    drawn = list(dict.fromkeys(name for row in board.rows for name in row.params))

    def values(row: Row) -> dict[str, Any]:
        end = ends.get(row.trial, {})
        reached: list[float] | list[None] = row.values or [None] * len(objectives)
        about = {"rank": row.rank, "trial": row.trial, "state": row.state, "fail_reason": end.get("fail_reason")}
        about |= {"fusion_epochs": row.epochs}
        about |= {objective.name: value for objective, value in zip(objectives, reached, strict=True)}
        return about | {"seconds": end.get("seconds")} | {name: row.params.get(name) for name in drawn}

    rows = [values(row) for row in board.rows]
    return pa.table({name: _typed([row[name] for row in rows]) for name in (rows[0] if rows else {})})


def _typed(values: list[Any]) -> pa.Array:
    """A column of one type: as it is, or as text if some values are of different types."""
    try:
        return pa.array(column(values))
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array([None if value is None else str(value) for value in values])
