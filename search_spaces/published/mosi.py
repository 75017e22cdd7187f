"""As published for CMU-MOSI: SmolLM2-1.7B in bfloat16, 150 epochs at most, patience 30.

Under a shallower language model, as many of its five MM blocks as fit.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces import mosi
from search_spaces._common import as_published, fixed_depth, suggest_seed

BASE: dict[str, Any] = as_published(mosi.BASE, mosi.PRIORS[0]) | {"training.precision": "bfloat16"}


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return fixed_depth(BASE, lm) | suggest_seed(trial)
