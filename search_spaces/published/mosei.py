"""As published for CMU-MOSEI with GPT-2 base: 15 epochs, patience 10.

Under a language model of another depth, the seven MM blocks are spread evenly from the same height.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces import mosei
from search_spaces._common import as_published, fixed_depth, suggest_seed

BASE: dict[str, Any] = as_published(mosei.BASE, mosei.PRIORS[0])
_LAYERS_OF_GPT2 = 12
_LAYERS = [3, 5, 7, 8, 9, 10, 11]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    settings = fixed_depth(BASE, lm) | suggest_seed(trial)
    return settings | {"model.fusion_layers": _LAYERS} if lm.num_layers == _LAYERS_OF_GPT2 else settings
