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
            f"{_seen(answer, name)}A search cannot tell: its sampler, {records.settings.sampler}, goes where it "
            f"expects the best, so that trials of different values differ in all else, too. {grid} can."
        )
    if answer.best is None:
        return (
            f"Too few trials to say anything: {NEEDED} of two values at least are needed, and are compared "
            f"{answer.fidelity.where}. {grid} trains enough."
        )
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
            f"but only {len(best.values)} of its {best.trials} trials got so far, so that it is not called better"
        )
    else:
        parts.append(f"worse beyond chance: {_spelled(answer.worse)}")
        parts.append(f"not told apart from it: {_spelled(answer.open)}")
    where = "" if answer.fidelity.is_full else f" What is said holds {answer.fidelity.where}, not beyond it."
    return f"{meaning}. {'; '.join(parts)} (all compared at once; 95 % for the three questions together).{where}"


def _seen(answer: Answer, name: str) -> str:
    """The best mean of a search whose values may not be held against one another."""
    if answer.seen is None or answer.seen.interval is None:
        return ""
    low, high = answer.seen.interval
    return (
        f"Seen {answer.fidelity.where}: the best mean of {name} has {answer.seen.label} ({answer.seen.mean:.4f}, 95 % "
        f"{low:.4f} to {high:.4f} over {len(answer.seen.values)} trials). "
    )


def _spelled(values: Sequence[Any]) -> str:
    return ", ".join(map(str, values)) or "none"
