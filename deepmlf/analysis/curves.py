"""The curve that a grid with several seeds per point draws."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.trial import FrozenTrial, TrialState

SEED = "training.seed"


@dataclass(frozen=True)
class CurvePoint:
    """One setting and the objective over its seeds."""

    setting: dict[str, Any]
    """What was varied, under dotted names."""
    mean: float
    std: float
    """Sample standard deviation; 0 for one seed."""
    seeds: int


def seed_curve(trials: Iterable[FrozenTrial]) -> list[CurvePoint]:
    """Complete trials grouped by all that they varied but the seed, in the settings' order.

    Args:
        trials: Trials of one study.

    Returns:
        One point per setting; none where the seed was not varied.
    """
    values: dict[tuple[tuple[str, Any], ...], list[float]] = {}
    for trial in trials:
        if trial.state == TrialState.COMPLETE and SEED in trial.params:
            setting = tuple(sorted((name, value) for name, value in trial.params.items() if name != SEED))
            values.setdefault(setting, []).append(trial.values[0])
    points = [
        CurvePoint(dict(setting), float(np.mean(group)), float(np.std(group, ddof=1)) if group[1:] else 0.0, len(group))
        for setting, group in values.items()
    ]
    return sorted(points, key=lambda point: [(str(type(v)), v) for v in point.setting.values()])
