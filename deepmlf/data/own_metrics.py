"""Metrics of one's own, kept beside a dataset as a Python file with ``METRICS = {name: (function, direction)}``."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from deepmlf.data.task import Direction
from deepmlf.errors import DataError

FILE = "metrics.py"
"""Its name in a dataset's folder."""
_NAME = r"[A-Za-z][\w-]*"
_DIRECTIONS = ("minimize", "maximize")

Metric = Callable[[np.ndarray, np.ndarray], Any]
"""Of predictions, as `Task.values` gives them, and labels [N]."""


class OwnMetrics:
    """The metrics that a module's text defines.

    The text runs as code: read one that you trust.

    Args:
        source: The module's text.
        name: Of its file, for messages.

    Raises:
        DataError: If it cannot run, or defines something else than named functions with directions.
    """

    def __init__(self, source: str, name: str) -> None:
        module = ModuleType("deepmlf_own_metrics")
        try:
            exec(compile(source, name, "exec"), module.__dict__)
        except Exception as error:  # a user's file may raise anything
            raise DataError(f"{name}: {type(error).__name__}: {error}") from error
        metrics = getattr(module, "METRICS", None)
        if not isinstance(metrics, dict) or not metrics:
            raise DataError(f"{name}: defines no METRICS = {{name: (function, direction)}}")
        self._name, self._functions, self.directions = name, dict[str, Metric](), dict[str, Direction]()
        self.fingerprint = hashlib.sha256(source.encode()).hexdigest()
        for metric, value in metrics.items():
            self._add(metric, value)

    def _add(self, metric: Any, value: Any) -> None:
        if not isinstance(metric, str) or not re.fullmatch(_NAME, metric):
            raise DataError(f"{self._name}: METRICS: {metric!r}: a name has letters, digits, `_` and `-`")
        is_pair = isinstance(value, (tuple, list)) and len(value) == 2
        if not is_pair or not callable(value[0]) or value[1] not in _DIRECTIONS:
            raise DataError(
                f"{self._name}: METRICS[{metric!r}] must be a function and one of {', '.join(_DIRECTIONS)}, "
                f"but got {value!r}"
            )
        self._functions[metric], self.directions[metric] = value

    def compute(
        self, predictions: np.ndarray, labels: np.ndarray, *, may_be_undefined: bool = False
    ) -> dict[str, float]:
        """Their values.

        Args:
            predictions: Numbers [N], or probabilities [N, classes].
            labels: [N], numbers or positions of classes.
            may_be_undefined: Leave out those that are not finite, as a correlation with a constant is not.

        Raises:
            DataError: If one raises, or makes something else than a finite number.
        """
        values = {}
        for metric, function in self._functions.items():
            try:
                values[metric] = float(function(predictions.copy(), labels.copy()))
            except Exception as error:
                raise DataError(f"{self._name}: {metric}: {type(error).__name__}: {error}") from error
            if not np.isfinite(values[metric]) and not may_be_undefined:
                raise DataError(
                    f"{self._name}: {metric}: is {values[metric]}; a metric must be a finite number, "
                    "of predictions that are all the same, too"
                )
        return {metric: value for metric, value in values.items() if np.isfinite(value)}


def read_own_metrics(path: Path) -> OwnMetrics:
    """The metrics that a file defines.

    Raises:
        DataError: If it cannot be read, or as `OwnMetrics`.
    """
    try:
        return OwnMetrics(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
