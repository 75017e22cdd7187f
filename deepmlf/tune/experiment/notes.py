"""Notes on trials, as optuna-dashboard shows them beside each: effective settings, restarts, why one has failed.

The dashboard keeps notes among a study's system attributes and has a function that writes them there. Its names of
attributes are all that it takes, so that a search runs without the dashboard; a test holds them against the real one.
"""

import json
from collections.abc import Sequence
from typing import Any

import optuna

from deepmlf.tune.experiment.study import (
    FAIL_REASON,
    OVERRIDES,
    RESTARTS,
    get_trial,
    id_of,
    set_study_attributes,
    study_attributes,
)

_LONGEST = 2045
"""Characters of one attribute, as databases may hold no more; a longer note has several."""


def describe(study: optuna.Study, number: int) -> None:
    """Write a trial's note as things stand now; one that a person has edited stays as it is.

    Args:
        study: The study.
        number: The trial.
    """
    attributes = get_trial(study, number).user_attrs
    settings = json.loads(attributes.get(OVERRIDES, "{}"))
    restarts = attributes.get(RESTARTS, [])
    text = note_text(settings, restarts, attributes.get(FAIL_REASON))
    there = read_note(study, number)
    own = [""] + [note_text(settings, restarts[:count], None) for count in range(len(restarts) + 1)]
    if there != text and there in own:
        _write(study, number, text)


def note_text(settings: dict[str, Any], restarts: Sequence[str], fail_reason: str | None) -> str:
    """A note in Markdown.

    Args:
        settings: What takes effect of what the trial has drawn, under dotted names.
        restarts: Why it started again, each time.
        fail_reason: Why it is FAIL, if it is.
    """
    parts = []
    if fail_reason is not None:
        parts.append(f"**Failed**\n\n{_verbatim(fail_reason)}")
    if restarts:
        parts.append("**Started again** because of\n\n" + _verbatim("\n".join(restarts)))
    if settings:
        rows = [f"| `{name}` | `{json.dumps(value)}` |" for name, value in sorted(settings.items())]
        parts.append("\n".join(["| setting in effect | value |", "|---|---|", *rows]))
    return "\n\n".join(parts)


def read_note(study: optuna.Study, number: int) -> str:
    """A trial's note; empty if it has none."""
    attributes, prefix = study_attributes(study), _prefix(study, number)
    chunks: list[str] = []
    while (chunk := attributes.get(f"{prefix}note_str:{len(chunks)}")) is not None:
        chunks.append(chunk)
    return "".join(chunks)


def _write(study: optuna.Study, number: int, text: str) -> None:
    attributes, prefix = study_attributes(study), _prefix(study, number)
    chunks = [text[start : start + _LONGEST] for start in range(0, len(text), _LONGEST)]
    changes: dict[str, Any] = {f"{prefix}note_str:{index}": chunk for index, chunk in enumerate(chunks)}
    # A note can become shorter; its attributes cannot be removed.
    while f"{prefix}note_str:{len(changes)}" in attributes:
        changes[f"{prefix}note_str:{len(changes)}"] = ""
    version = f"{prefix}note_ver"
    set_study_attributes(study, {version: attributes.get(version, 0) + 1} | changes)


def _prefix(study: optuna.Study, number: int) -> str:
    return f"dashboard:{id_of(study, number)}:"


def _verbatim(text: str) -> str:
    """Text in which no character is Markdown."""
    return f"~~~\n{text.replace('~~~', '~ ~ ~')}\n~~~"
