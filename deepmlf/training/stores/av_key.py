"""What the outcome of an audiovisual stage depends on, without torch: drivers ask for it, too."""

from typing import Any

from deepmlf.config.trial import Stage, TrialConfig

_TRAINING = (
    "batch_size", "accumulation_steps", "min_lr", "warmup_epochs", "weight_decay", "clip_value", "seed",
)  # fmt: skip
OWN = ("batch_size", "accumulation_steps", "weight_decay")
"""Settings of training that the stage may have of its own."""
_LATER = (
    "model.av_batch_norm_on", "training.accumulation", "training.decayed", "training.clip_av",
    "curriculum.av_schedule", "curriculum.av_plateau", "curriculum.av_patience", "curriculum.av_weights",
    "curriculum.av_readout", "data.train_share",
)  # fmt: skip
"""Settings that came later. At their defaults they are left out, so that earlier entries are found again."""


def is_of_stage(name: str, config: TrialConfig) -> bool:
    """Whether the outcome of a trial's audiovisual stage depends on a setting, by its dotted name."""
    section, _, part = name.partition(".")
    if section == "training" and part in OWN:
        return getattr(config.curriculum, f"av_{part}") is None
    is_part = section in ("model", "curriculum") and part.startswith("av_")
    return is_part or name in ("model.softperm_av_features", "data.standardize", *_LATER) or is_of_fusion(name)


def is_of_fusion(name: str) -> bool:
    """Whether a setting on which the stage may depend matters as much to fusion."""
    section, _, part = name.partition(".")
    return (section == "training" and part in _TRAINING) or name == "data.train_share"


def key_of(config: TrialConfig, stage: Stage, fingerprint: str) -> dict[str, Any]:
    """All that the outcome of a trial's audiovisual stage depends on, as plain JSON values.

    Args:
        config: The trial.
        stage: Its stage.
        fingerprint: The dataset's.
    """
    settings, defaults = config.flat(), TrialConfig().flat()
    own = {name: value for name in OWN if (value := getattr(stage, name)) is not None}
    model = [
        name
        for section, name in (path.split(".") for path in settings if path not in _LATER)
        if section == "model" and (name.startswith("av_") or name == "softperm_av_features")
    ]
    key = {
        "data": {"fingerprint": fingerprint, "standardize": config.data.standardize},
        "model": {name: settings[f"model.{name}"] for name in model},
        "training": {name: settings[f"training.{name}"] for name in _TRAINING} | own,
        "stage": stage.model_dump(mode="json", exclude=set(OWN)),
    }
    return key | {name: settings[name] for name in _LATER if settings[name] != defaults[name]}
