"""The paper's three questions, asked of an experiment: how deep to fuse, with how many tokens, under which curriculum.

Intervals are Student's t at 95 % over trials (over seeds, in a grid of seeds) and are given from three values on.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import stats

from deepmlf.analysis.curves import seed_curve
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.tune.objective import Objective

NEEDED = 3  # of values, for any statement about their mean
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Question:
    """One of the paper's questions and its answer."""

    setting: str
    title: str
    published: Collection[Any]
    """Values that the paper finds best."""
    answer: str
    space: str
    """The search space that varies this alone."""


QUESTIONS = (
    Question("model.fusion_depth", "How deep to fuse?", range(5, 8), "5 to 7 MM blocks", "ablations/depth"),
    Question("model.num_fusion_tokens", "How many fusion tokens?", range(8, 21), "8 to 20 tokens", "ablations/tokens"),
    Question(
        "curriculum.name", "Which curriculum?", ("av_first",), "audiovisual encoder first", "ablations/curriculum"
    ),
)


@dataclass(frozen=True)
class Group:
    """Trials that share a value of the setting asked about."""

    value: Any
    trials: int
    """All of them, whatever became of them."""
    values: list[float] = field(default_factory=list)
    """The first objective of those that were trained to their end."""

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean lies at 95 %; None for fewer values than that takes."""
        if len(self.values) < NEEDED:
            return None
        half = float(stats.sem(self.values) * stats.t.ppf((1 + _CONFIDENCE) / 2, len(self.values) - 1))
        return float(np.mean(self.values)) - half, float(np.mean(self.values)) + half


@dataclass(frozen=True)
class Answer:
    """What an experiment has to say on a question."""

    question: Question
    groups: list[Group]
    is_controlled: bool
    """Whether nothing but this setting and the seed was varied."""
    inside: list[float]
    """The first objective of complete trials whose setting is as the paper finds best."""
    outside: list[float]
    difference: tuple[float, float, float] | None
    """Mean inside minus mean outside, and its interval (Welch); None if either has too few trials."""
    verdict: str
    """``not varied`` (no trial drew the setting), ``too few``, ``agrees``, ``contradicts`` or ``undecided``."""


def answer(question: Question, records: Records) -> Answer:
    """Compare an experiment's complete trials by the setting that a question is about."""
    groups: dict[Any, Group] = {}
    inside: list[float] = []
    outside: list[float] = []
    for trial in records.trials:
        value = value_of(trial, question.setting)
        if value is None:
            continue
        known = groups.get(value, Group(value, 0))
        values = known.values
        if trial.value is not None:
            values = [*values, trial.value]
            (inside if value in question.published else outside).append(values[-1])
        groups[value] = Group(value, known.trials + 1, values)
    curve = seed_curve(records.study.get_trials(deepcopy=False))
    difference = _difference(inside, outside) if min(len(inside), len(outside)) >= NEEDED else None
    # Of a search without trials nobody knows; one value so far is no sign of a setting that is fixed.
    is_varied = len(groups) > 1 or not records.trials or any(question.setting in t.params for t in records.trials)
    return Answer(
        question,
        # What a space draws may be a word for the number in use.
        sorted(groups.values(), key=lambda group: (isinstance(group.value, str), group.value)),
        bool(curve) and all(set(point.setting) == {question.setting} for point in curve),
        inside,
        outside,
        difference,
        _verdict(difference, records.objectives[0]) if is_varied else "not varied",
    )


def value_of(trial: TrialRecord, setting: str) -> Any:
    """A trial's setting as it was used, as it was drawn if it could not be built, or None.

    MM blocks are counted where their layers are given one by one.
    """
    layers = trial.settings.get("model.fusion_layers")
    if layers and setting == "model.fusion_depth":
        return len(layers)
    return trial.settings.get(setting, trial.params.get(setting))


def _difference(inside: list[float], outside: list[float]) -> tuple[float, float, float]:
    mean = float(np.mean(inside) - np.mean(outside))
    if np.ptp(inside) == np.ptp(outside) == 0:  # Welch's t is undefined; nothing varies but the setting
        return mean, mean, mean
    interval = stats.ttest_ind(inside, outside, equal_var=False).confidence_interval(_CONFIDENCE)
    return mean, float(interval.low), float(interval.high)


def _verdict(difference: tuple[float, float, float] | None, objective: Objective) -> str:
    if difference is None:
        return "too few"
    _, low, high = difference
    if low <= 0 <= high or math.isnan(low):
        return "undecided"
    return "agrees" if (high < 0) == (objective.direction == "minimize") else "contradicts"
