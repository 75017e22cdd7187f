"""What may be said of the paper's questions, in sentences."""

from collections.abc import Sequence
from typing import Any

from deepmlf.analysis.records import Records
from deepmlf.analysis.report.answers import NEEDED, Answer


def statement(answer: Answer, records: Records) -> str:
    """What may be said of one of the paper's questions."""
    asked, name = answer.question, records.objectives[0].name
    grid = f"--space {asked.space} --sampler grid --scheduler none"
    if answer.verdict == "not varied":
        return f"This search did not vary {asked.setting}. {grid} does."
    if answer.verdict == "guided":
        return (
            f"A search cannot tell: its sampler, {records.settings.sampler}, goes where it expects the best, so that "
            f"trials of different values differ in all else, too. {grid} can."
        )
    if answer.verdict == "stopped":
        return (
            f"The scheduler, {records.settings.scheduler}, stopped the worse trials early, so that means over the "
            f"others flatter their values. {grid} compares them."
        )
    if answer.best is None:
        return f"Too few trials to say anything: {NEEDED} trained to their end are needed of two values at least."
    meaning = {
        "agrees": "The paper's answer holds on this data",
        "contradicts": "Other values than the paper's are better on this data",
        "clear": "One value is better than all others on this data",
        "undecided": "Whether the paper's answer holds on this data, these trials cannot tell"
        if asked.published
        else "Which value is best on this data, these trials cannot tell",
    }[answer.verdict]
    best = answer.best
    parts = [f"The best mean of {name} has {best.value} ({best.mean:.4f})"]
    if not best.is_whole:
        parts.append(
            f"but only {len(best.values)} of its {best.trials} trials were trained to their end, so that it is not "
            "called better"
        )
    else:
        parts.append(f"worse beyond chance: {_spelled(answer.worse)}")
        parts.append(f"not told apart from it: {_spelled(answer.open)}")
    return f"{meaning}. {'; '.join(parts)} (all compared at once; 95 % for the three questions together)."


def _spelled(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "none"
