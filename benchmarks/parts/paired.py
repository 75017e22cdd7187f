"""Two ways to search, compared on the same problems with the same seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest, bootstrap

SHARES = (0.25, 0.5, 1.0)
"""Of the budget, at which regrets are compared."""
TARGET = 0.05
_LEAST, _MOST = 1e-4, 1e2  # regrets beyond count as these: a logarithm of nothing would be all that a mean sees


@dataclass(frozen=True)
class Run:
    """One search, as far as it is compared."""

    problem: str
    seed: int
    regrets: tuple[float, ...]
    """At `SHARES` of the budget; infinite before there was an incumbent."""
    epochs_to_target: float
    """Until the incumbent's regret was `TARGET`; infinite if it never was."""
    seconds_to_target: float = math.inf
    """The same in seconds of the search, stages before fusion included."""


def compare(runs: Sequence[Run], others: Sequence[Run]) -> dict[str, Any]:
    """What runs of one way to search won and lost against those of another one.

    Args:
        runs: Of the one.
        others: Of the other; those of the same problem and seed are compared.

    Returns:
        The pairs; wins and losses at each share of the budget, equal ones counting as neither; the share of the final
        ones that were won with its 95 % interval (Clopper and Pearson); and the mean of log10 of the ratio of final
        regrets with its 95 % interval (bootstrap, BCa).
    """
    known = {(run.problem, run.seed): run for run in others}
    pairs = [(run, known[run.problem, run.seed]) for run in runs if (run.problem, run.seed) in known]
    if not pairs:
        return {"pairs": 0}
    ours, theirs = (np.array([pair[which].regrets for pair in pairs]) for which in (0, 1))
    wins, losses = (ours < theirs).sum(axis=0).tolist(), (ours > theirs).sum(axis=0).tolist()
    ratios = np.log10(np.clip(ours[:, -1], _LEAST, _MOST)) - np.log10(np.clip(theirs[:, -1], _LEAST, _MOST))
    decided = wins[-1] + losses[-1]
    share = binomtest(wins[-1], decided).proportion_ci() if decided else None
    return {
        "pairs": len(pairs),
        "wins_losses": {f"{part:g}": [won, lost] for part, won, lost in zip(SHARES, wins, losses, strict=True)},
        "won": round(wins[-1] / decided, 3) if decided else None,
        "won_interval": None if share is None else [round(float(share.low), 3), round(float(share.high), 3)],
        "log10_ratio": round(float(ratios.mean()), 3),
        "log10_ratio_interval": _interval(ratios),
    }


def _interval(values: np.ndarray) -> list[float] | None:
    if len(values) < 2 or np.ptp(values) == 0:
        return None
    found = bootstrap((values,), np.mean, rng=np.random.default_rng(0)).confidence_interval
    return [round(float(found.low), 3), round(float(found.high), 3)]


def summarise(runs: Sequence[Run]) -> dict[str, list[float | None]]:
    """Quartiles of the regrets at each share of the budget, and of what it took to the target; None is never."""
    found = {f"regret_{part:g}": _quartiles([run.regrets[index] for run in runs]) for index, part in enumerate(SHARES)}
    return found | {
        "epochs_to_5_percent": _quartiles([run.epochs_to_target for run in runs]),
        "seconds_to_5_percent": _quartiles([run.seconds_to_target for run in runs]),
    }


def _quartiles(values: list[float]) -> list[float | None]:
    found = np.percentile(values, (25, 50, 75), method="nearest")
    return [round(float(value), 4) if math.isfinite(value) else None for value in found]
