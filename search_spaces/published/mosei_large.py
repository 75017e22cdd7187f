"""As published for CMU-MOSEI with GPT-2 large: 20 epochs, patience 10.

Under a language model of another depth, the MM blocks are spread evenly from the same height.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces import mosei
from search_spaces._common import as_published, fixed_depth, suggest_seed

BASE: dict[str, Any] = as_published(mosei.BASE, mosei.PRIORS[1])


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return fixed_depth(BASE, lm) | suggest_seed(trial)
