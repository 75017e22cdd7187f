"""As published for CH-SIMS: a Chinese GPT-2 of 12 layers, 100 epochs at most, patience 10.

Under a shallower language model, as many of its seven MM blocks as fit.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces import sims
from search_spaces._common import as_published, fixed_depth, suggest_seed

BASE: dict[str, Any] = as_published(sims.BASE, sims.PRIORS[0])


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return fixed_depth(BASE, lm) | suggest_seed(trial)
