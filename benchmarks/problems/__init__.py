"""Problems whose trials cost nothing, so that whole searches can be compared hundreds of times."""

from dataclasses import dataclass
from typing import Any, Protocol

import optuna


@dataclass(frozen=True)
class Curve:
    """What one trial would report, the lower the better, per epoch of fusion, and how long it takes."""

    observed: list[float]
    """What the search sees, noise included."""
    true: list[float]
    """Without noise, the best so far: what the weights kept are worth."""
    failed: str | None = None
    """Why it fails after its last value; None if it does not."""
    epoch_seconds: float = 1.0
    startup_seconds: float = 0.0
    """Stages before fusion."""


class Problem(Protocol):
    """Something to be searched."""

    name: str
    epochs: int
    """Of a full training."""

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """Draw a setting."""

    def curve(self, setting: dict[str, Any], number: int) -> Curve:
        """The curve of a setting; noise and failures are those of the setting and the trial's number."""

    def regret(self, worth: float) -> float:
        """How far a value without noise is from the best that is known, which has 0."""
