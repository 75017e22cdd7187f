"""What earlier releases wrote, read as they meant it.

Up to 0.1 there was no setting for special tokens, and no text had any; labels were those of a known dataset, of which
exported models kept the range.
"""

from collections.abc import Mapping
from typing import Any

from deepmlf.config.trial import TrialConfig

SPECIAL_TOKENS = "model.special_tokens"


def model_section(model: Mapping[str, Any]) -> dict[str, Any]:
    """The ``model`` section of a stored configuration."""
    return {"special_tokens": "none", **model}


def trained_on_section(trained_on: Mapping[str, Any]) -> dict[str, Any]:
    """The ``trained_on`` section of an exported model; the dataset's name tells the range of its labels."""
    return {name: value for name, value in trained_on.items() if name != "label_range"}


def overrides_of_all(base: Mapping[str, Any]) -> dict[str, Any]:
    """What all trials of a search of such a release have in common, by dotted names."""
    return {SPECIAL_TOKENS: "none", **base}


def trial_config(tree: Mapping[str, Any]) -> TrialConfig:
    """A trial's ``config.json``.

    Raises:
        ConfigError: If a setting is unknown or impossible.
    """
    model = tree.get("model")
    return TrialConfig.from_dict({**tree, "model": model_section(model)} if isinstance(model, Mapping) else tree)
