"""A trial's text in TensorBoard."""

import shlex
from typing import Any

from deepmlf.config.overrides import read_overrides, read_toml
from deepmlf.config.trial import TrialConfig
from deepmlf.events.note import train_command, trial_note

OVERRIDES: dict[str, Any] = {
    "data.path": "sets/my data",
    "data.standardize": False,
    "model.language_model": "none",  # reads as no value
    "model.fusion_layers": [1, 3],
    "model.ffn": "full",
    "training.lr_av": 1e-05,
    "training.patience": None,
    "curriculum.name": "grow_depth",
}


def test_the_command_makes_the_same_trial() -> None:
    words = [word for word in shlex.split(train_command(OVERRIDES)) if word.strip()]
    assert words[:3] == ["deepmlf", "train", "sets/my data"]
    assert words[3::2] == ["--set"] * (len(OVERRIDES) - 1)
    assert read_overrides(words[4::2]) | {"data.path": words[2]} == OVERRIDES


def test_the_configuration_reads_back(tmp_path: Any) -> None:
    note = trial_note(TrialConfig.from_overrides(OVERRIDES), OVERRIDES)
    assert train_command(OVERRIDES) in note
    (tmp_path / "trial.toml").write_text(note.split("```")[3])
    assert TrialConfig.from_overrides(read_toml(tmp_path / "trial.toml")) == TrialConfig.from_overrides(OVERRIDES)
