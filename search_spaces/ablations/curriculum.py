"""Under which curriculum: all five, with three seeds each.

The paper compares an audiovisual encoder from scratch (``joint``), pretrained and frozen (``av_frozen``), and
pretrained and fine-tuned (``av_first``, its best); ``unimodal_first`` and ``grow_depth`` go beyond it. All else is as
published for MOSI; where the language model has no room for its five MM blocks, as many as it has.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import CURRICULA
from search_spaces.ablations._grid import FIXED, fixed_depth, suggest_seed

BASE = FIXED


def space(trial: optuna.Trial, lm: LanguageModelFacts, base: dict[str, Any]) -> dict[str, Any]:
    name = trial.suggest_categorical("curriculum.name", CURRICULA)
    return {"curriculum.name": name} | fixed_depth(base, lm) | suggest_seed(trial)
