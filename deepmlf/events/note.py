"""A trial in words: the command that trains it alone, and its whole configuration."""

import json
import shlex
from collections.abc import Mapping
from typing import Any

from deepmlf.config.overrides import as_override
from deepmlf.config.trial import TrialConfig


def train_command(overrides: Mapping[str, Any]) -> str:
    """The shell command that trains a trial alone.

    Args:
        overrides: What makes the trial, under dotted names; ``data.path`` among them.
    """
    pairs = [as_override(name, value) for name, value in overrides.items() if name != "data.path"]
    words = ["deepmlf", "train", str(overrides.get("data.path", "DATA"))]
    return " \\\n  ".join([shlex.join(words), *(f"--set {shlex.quote(pair)}" for pair in pairs)])


def trial_note(config: TrialConfig, overrides: Mapping[str, Any]) -> str:
    """Markdown: the command, and the configuration as ``deepmlf train --config`` reads it.

    Args:
        config: The trial.
        overrides: What makes it, under dotted names.
    """
    lines = []
    for section, fields in config.model_dump(mode="json").items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(v)}" for name, v in fields.items() if v is not None), ""]
    return (
        f"Trained alone by\n\n```\n{train_command(overrides)}\n```\n\nConfiguration\n\n```\n{chr(10).join(lines)}```\n"
    )
