"""How much data: a sixteenth of the train split to all of it, each within the next, with three seeds each.

Validation stays whole, and the next-token loss on it tells what is left of the language model's own distribution. All
else is as published for MOSI; where the language model has no room for its five MM blocks, as many as it has.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces.ablations._grid import FIXED, fixed_depth, suggest_seed

BASE = FIXED | {"training.language_loss": True}


def space(trial: optuna.Trial, lm: LanguageModelFacts, base: dict[str, Any]) -> dict[str, Any]:
    share = trial.suggest_categorical("data.train_share", [0.0625, 0.125, 0.25, 0.5, 1.0])
    return {"data.train_share": share} | fixed_depth(base, lm) | suggest_seed(trial)
