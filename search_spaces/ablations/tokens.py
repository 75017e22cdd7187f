"""With how many fusion tokens: 2 to 24, with three seeds each.

The paper finds 8 to 20 tokens best. All else is as published for MOSI; where the language model has no room for its
five MM blocks, as many as it has.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces.ablations._grid import FIXED, fixed_depth, suggest_seed

BASE = FIXED


def space(trial: optuna.Trial, lm: LanguageModelFacts, base: dict[str, Any]) -> dict[str, Any]:
    tokens = trial.suggest_categorical("model.num_fusion_tokens", [2, 4, 8, 12, 16, 20, 24])
    return {"model.num_fusion_tokens": tokens} | fixed_depth(base, lm) | suggest_seed(trial)
