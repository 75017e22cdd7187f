"""What the labels of a dataset are: numbers of a range, or classes. Whatever depends on it asks the dataset's task."""

from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from deepmlf.errors import DataError

Direction = Literal["minimize", "maximize"]
_REACH = 3.0  # what models predict reaches so far to both sides of 0: settings are published for MOSI's range


METRICS_OF = {
    "mosi": ("Has0_acc_2", "Has0_F1_score", "Non0_acc_2", "Non0_F1_score", "Mult_acc_5", "Mult_acc_7", "MAE", "Corr"),
    "sims": ("Mult_acc_2", "Mult_acc_3", "Mult_acc_5", "F1_score", "MAE", "Corr"),
    "range": ("acc_2", "F1_score", "MAE", "RMSE", "Corr"),
    "classes": ("accuracy", "weighted_F1", "macro_F1", "cross_entropy"),
}
"""Metrics by protocol; in reports they come in this order."""


class Task(BaseModel):
    """What is predicted of an utterance, and by which metrics that is judged.

    >>> Task.number(1, 5).values(Task.number(1, 5).targets(np.array([1.0, 3.0, 4.0]))).tolist()
    [1.0, 3.0, 4.0]
    >>> Task.choice(("anger", "joy")).outputs
    2
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    metrics: Literal["mosi", "sims", "range", "classes"]
    """The protocol: those of MMSA for MOSI and MOSEI or for CH-SIMS, or the general ones of numbers or of classes."""
    low: float = 0.0
    """Smallest label; of numbers."""
    high: float = 0.0
    """Largest label; of numbers."""
    classes: tuple[str, ...] = ()
    """Their names: a label is a position among them."""
    own: dict[str, Direction] = {}
    """Metrics of the user's own beside those of the protocol, and which way each is better."""

    @model_validator(mode="after")
    def _check(self) -> "Task":
        if self.is_classification == (self.low < self.high) or len(set(self.classes)) != len(self.classes):
            raise ValueError("a task has a range of numbers, or classes of different names")
        return self

    @classmethod
    def number(cls, low: float, high: float) -> "Task":
        """A number of a range.

        Raises:
            DataError: If `high` is not above `low`, or one is infinite or NaN.
        """
        if not (np.isfinite([low, high]).all() and low < high):
            raise DataError(f"--label-range {low:g} {high:g}: must be two numbers, the smaller one first")
        return cls(metrics="range", low=low, high=high)

    @classmethod
    def choice(cls, classes: tuple[str, ...]) -> "Task":
        """One of some classes."""
        return cls(metrics="classes", classes=classes)

    @property
    def is_classification(self) -> bool:
        """Whether classes are predicted instead of a number."""
        return self.metrics == "classes"

    @property
    def outputs(self) -> int:
        """Outputs of each head of a model: one, or one for each class."""
        return len(self.classes) if self.is_classification else 1

    def describe(self) -> str:
        """In words."""
        if self.is_classification:
            return f"one of {len(self.classes)} classes"
        return f"a number from {self.low:g} to {self.high:g}"

    @property
    def middle(self) -> float:
        """The label that is neither negative nor positive; of numbers."""
        return (self.low + self.high) / 2

    def targets(self, labels: np.ndarray) -> np.ndarray:
        """What a model is trained on: the labels themselves, those of a range of one's own moved to that of MOSI."""
        return (labels - self.middle) / self._unit if self.metrics == "range" else labels

    def values(self, outputs: np.ndarray) -> np.ndarray:
        """What the outputs of a head mean.

        Args:
            outputs: [N, outputs].

        Returns:
            Numbers in the unit of the labels, [N]; or the probability of each class, [N, classes].
        """
        if self.is_classification:
            from scipy.special import softmax  # here, because a search's driver needs none

            return np.asarray(softmax(outputs, axis=1))
        return outputs[:, 0] * self._unit + self.middle if self.metrics == "range" else outputs[:, 0]

    @property
    def _unit(self) -> np.float32:
        return np.float32((self.high - self.low) / 2 / _REACH)


KNOWN = {
    "mosi": Task(metrics="mosi", low=-3.0, high=3.0),
    "mosei": Task(metrics="mosi", low=-3.0, high=3.0),
    "sims": Task(metrics="sims", low=-1.0, high=1.0),
}
"""Tasks of published datasets by their names."""
