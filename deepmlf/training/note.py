"""A trial in words: the command that trains it alone, and its whole configuration."""

import json
import shlex
import tomllib
from collections.abc import Mapping
from typing import Any

from deepmlf.config import TrialConfig


def train_command(overrides: Mapping[str, Any]) -> str:
    """The shell command that trains a trial alone.

    Args:
        overrides: What makes the trial, under dotted names; ``data.path`` among them.
    """
    pairs = [f"{name}={_option(value)}" for name, value in overrides.items() if name != "data.path"]
    words = ["deepmlf", "train", str(overrides.get("data.path", "DATA"))]
    return " \\\n  ".join([shlex.join(words), *(f"--set {shlex.quote(pair)}" for pair in pairs)])


def trial_note(overrides: Mapping[str, Any]) -> str:
    """Markdown: the command, and the configuration as ``deepmlf train --config`` reads it."""
    lines = []
    for section, fields in TrialConfig.from_overrides(overrides).model_dump(mode="json").items():
        lines += [f"[{section}]", *(f"{name} = {json.dumps(v)}" for name, v in fields.items() if v is not None), ""]
    return (
        f"Trained alone by\n\n```\n{train_command(overrides)}\n```\n\nConfiguration\n\n```\n{chr(10).join(lines)}```\n"
    )


def _option(value: Any) -> str:
    """A value as `--set` takes it: text is bare unless it reads as something else."""
    if value is None:
        return "none"
    if not isinstance(value, str):
        return json.dumps(value)
    try:
        tomllib.loads(f"v = {value}")
    except tomllib.TOMLDecodeError:
        return value if value != "none" else json.dumps(value)
    return json.dumps(value)
