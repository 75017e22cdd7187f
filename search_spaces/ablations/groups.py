"""One group of fusion tokens for audio and vision together, or one for each beside it, with three seeds each.

For data with both. All else is as published for MOSI; where the language model has no room for its five MM blocks, as
many as it has.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces.ablations._grid import FIXED, fixed_depth, suggest_seed

BASE = FIXED


def space(trial: optuna.Trial, lm: LanguageModelFacts, base: dict[str, Any]) -> dict[str, Any]:
    groups = trial.suggest_categorical("model.fusion_groups", ["shared", "separate"])
    return {"model.fusion_groups": groups} | fixed_depth(base, lm) | suggest_seed(trial)
