"""The paper's questions, asked of an experiment: how deep to fuse, with how many tokens, under which curriculum, and
those of its further analyses.

What counts of a trial is its best epoch up to the highest fidelity that enough trials have reached (see
`deepmlf.analysis.fidelity`), so that those that were stopped early count, too, and none is better for having trained
longer. Intervals of one value are Student's t at 95 % over trials (over seeds, in a grid of seeds) and are given from
three values on. Values are compared with the best of them, all at once.
"""

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from deepmlf.analysis.curves import seed_curve
from deepmlf.analysis.fidelity import CommonFidelity, common_fidelity
from deepmlf.analysis.records import Records, TrialRecord
from deepmlf.analysis.statistics.comparison import differ
from deepmlf.training.reports import LANGUAGE_LOSS
from deepmlf.tune.objective import Objective
from deepmlf.tune.space.base import LANGUAGE_MODEL

NEEDED = 3  # of values, for any statement about their mean
_CONFIDENCE = 0.95  # of one value's interval, and of all that a report says of its three questions
_BLIND = ("grid", "random")
"""Samplers that look at no result: what a value of a setting is worth, others' values do not decide beside it."""


@dataclass(frozen=True)
class Question:
    """One of the paper's questions."""

    setting: str
    title: str
    space: str
    """The search space that varies this alone, or this if the search has several values of it."""
    published: Collection[Any] = ()
    """Values that the paper finds best; none where what it says is not known here."""
    answer: str = ""
    """The paper's."""


QUESTIONS = (
    Question("model.fusion_depth", "How deep to fuse?", "ablations/depth", range(5, 8), "5 to 7 MM blocks"),
    Question("model.num_fusion_tokens", "How many fusion tokens?", "ablations/tokens", range(8, 21), "8 to 20 tokens"),
    Question(
        "curriculum.name", "Which curriculum?", "ablations/curriculum", ("av_first",), "audiovisual encoder first"
    ),
)
"""Those that the paper answers."""
FURTHER = (
    Question(LANGUAGE_MODEL, "Which language model?", "published/mosi"),
    Question("data.train_share", "How much data?", "ablations/data_size"),
    Question("regularisation", "Which regularisation?", "ablations/regularisation"),
    Question("variant", "Which parts does it need?", "ablations/model"),
    Question("model.fusion_groups", "Groups of fusion tokens?", "ablations/groups"),
)
"""Those of its further analyses, asked of an experiment that varies them."""


@dataclass(frozen=True)
class Group:
    """Trials that share a value of the setting asked about; of those that train the same with the same seed, one."""

    value: Any
    trials: int
    """All of them, whatever became of them."""
    values: list[float] = field(default_factory=list)
    """The first objective of those that have reached the fidelity at which trials are compared."""
    language: list[float] = field(default_factory=list)
    """Of those that were trained to their end, the next-token loss on validation texts in their best epochs, if they
    have reported it."""
    shown: str | None = None
    """What the value is called on the page, if not by itself."""

    @property
    def label(self) -> str:
        """The value as it is shown."""
        return str(self.value) if self.shown is None else self.shown

    @property
    def mean(self) -> float | None:
        return float(np.mean(self.values)) if self.values else None

    @property
    def mean_language(self) -> float | None:
        return float(np.mean(self.language)) if self.language else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Where the mean lies at 95 %; None for fewer values than that takes."""
        if len(self.values) < NEEDED:
            return None
        half = float(stats.sem(self.values) * stats.t.ppf((1 + _CONFIDENCE) / 2, len(self.values) - 1))
        return float(np.mean(self.values)) - half, float(np.mean(self.values)) + half

    @property
    def is_whole(self) -> bool:
        """Whether all its trials have reached that fidelity: those that have not may be its bad ones."""
        return len(self.values) == self.trials


@dataclass(frozen=True)
class Answer:
    """What an experiment has to say on a question."""

    question: Question
    groups: list[Group]
    is_controlled: bool
    """Whether nothing but this setting and the seed was varied."""
    best: Group | None
    """The group of the best mean among those with enough values; None where groups are not compared."""
    worse: list[Any]
    """Values that are worse than it beyond what chance may do, all of them compared at once."""
    open: list[Any]
    """Values of which that cannot be said."""
    verdict: str
    """``not varied`` (no trial drew the setting), ``guided`` (the sampler chose values by results), ``too few``,
    ``agrees`` (the best value is one of the paper's, and the others are worse), ``contradicts`` (it is another one, and
    the paper's are worse), ``clear`` (all others are worse; of a question without the paper's answer) or
    ``undecided``."""
    fidelity: CommonFidelity
    """At which trials are compared."""
    seen: Group | None = None
    """The group of the best mean among those with enough values, if there are two, whether or not that may be held
    against the others."""


def answers(records: Records) -> list[Answer]:
    """The answers to the paper's questions, and to those of its further analyses that the experiment asks."""
    further = [answer(question, records) for question in FURTHER]
    return [answer(question, records) for question in QUESTIONS] + [
        one for one in further if one.verdict != "not varied" and one.groups
    ]


def answer(question: Question, records: Records) -> Answer:
    """Compare an experiment's trials by the setting that a question is about."""
    common = common_fidelity(records)
    groups = _groups(question, records, common)
    counted = {trial.number for trial in records.trials if trial.repeats is None}
    curve = seed_curve(trial for trial in records.study.get_trials(deepcopy=False) if trial.number in counted)
    # Of a search without trials nobody knows; one value so far is no sign of a setting that is fixed.
    is_varied = len(groups) > 1 or not records.trials or any(question.setting in t.params for t in records.trials)
    is_controlled = bool(curve) and all(set(point.setting) == {question.setting} for point in curve)
    measured = [group for group in groups if len(group.values) >= NEEDED]
    seen = _best_of(measured, records.objectives[0]) if len(measured) > 1 else None
    verdict = None
    if not is_varied:
        verdict = "not varied"
    elif records.settings.sampler not in _BLIND:
        verdict = "guided"
    elif seen is None:
        verdict = "too few"
    if verdict is not None or seen is None:
        return Answer(question, groups, is_controlled, None, [], [], verdict or "too few", common, seen)
    worse = _worse(measured, seen)
    open_ = [group.value for group in groups if group.value not in (seen.value, *worse)]
    verdict = _verdict(question, seen, worse, open_)
    return Answer(question, groups, is_controlled, seen, worse, open_, verdict, common, seen)


def _groups(question: Question, records: Records, common: CommonFidelity) -> list[Group]:
    groups: dict[Any, Group] = {}
    for trial in records.trials:
        value = value_of(trial, question.setting)
        # A prior's other settings are good ones, those of random trials are not.
        if value is None or trial.repeats is not None or (trial.is_prior and records.settings.sampler == "random"):
            continue
        known = groups.get(value, Group(value, 0))
        values, language = list(known.values), list(known.language)
        if trial.number in common.values:
            values.append(common.values[trial.number][0])
        if trial.is_complete:
            language += [loss for loss in [trial.best.get(LANGUAGE_LOSS)] if loss is not None]
        groups[value] = Group(value, known.trials + 1, values, language)
    lms = records.manifest.language_models
    if question.setting == LANGUAGE_MODEL and lms:
        by_size = sorted((lms[lm].parameters, lm) for lm in lms if lm in groups)
        return [replace(groups[lm], shown=f"{Path(lm).name} ({size / 1e6:,.4g} M)") for size, lm in by_size]
    # What a space draws may be a word for the number in use.
    return sorted(groups.values(), key=lambda group: (isinstance(group.value, str), group.value))


def value_of(trial: TrialRecord, setting: str) -> Any:
    """A trial's setting as it was used, as it was drawn if it could not be built, or None.

    MM blocks are counted where their layers are given one by one.
    """
    layers = trial.settings.get("model.fusion_layers")
    if layers and setting == "model.fusion_depth":
        return len(layers)
    return trial.settings.get(setting, trial.params.get(setting))


def _best_of(measured: list[Group], objective: Objective) -> Group:
    """The group of the best mean."""
    return min(measured, key=lambda group: objective.sign * float(np.mean(group.values)))


def _worse(measured: list[Group], best: Group) -> list[Any]:
    """The values of those groups that are worse than the one of the best mean, beyond chance."""
    if not best.is_whole:
        return []
    confidence = 1 - (1 - _CONFIDENCE) / len(QUESTIONS)
    apart = differ([group.values for group in measured], measured.index(best), confidence)
    return [group.value for group, is_apart in zip(measured, apart, strict=True) if is_apart]


def _verdict(question: Question, best: Group, worse: list[Any], open_: list[Any]) -> str:
    if not question.published:
        return "undecided" if open_ else "clear"
    is_published = best.value in question.published
    rivals_left = [value for value in open_ if (value in question.published) != is_published]
    rivals_beaten = [value for value in worse if (value in question.published) != is_published]
    if rivals_left or not rivals_beaten:
        return "undecided"
    return "agrees" if is_published else "contradicts"
