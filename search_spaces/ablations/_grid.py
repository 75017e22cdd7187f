"""What the grids have in common: the setting they vary one dimension of, and the seeds.

They draw categorical values and whole numbers only, so that a grid sampler can enumerate them.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces import mosi
from search_spaces._common import LORA_SCALE, layers_from

_BEST = mosi.PRIORS[0]
FIXED: dict[str, Any] = mosi.BASE | _BEST | {"model.lora_alpha": LORA_SCALE * _BEST["model.lora_rank"]}
"""The published best setting for MOSI; ``--set`` changes it for all points of a grid."""


def fixed_depth(lm: LanguageModelFacts) -> dict[str, Any]:
    """The published depth, or the deepest that fits a shallow language model."""
    return {"model.fusion_depth": min(FIXED["model.fusion_depth"], layers_from(FIXED["model.fusion_start"], lm))}


def suggest_seed(trial: optuna.Trial) -> dict[str, Any]:
    """Three seeds per point, for the spread over seeds."""
    return {"training.seed": trial.suggest_int("training.seed", 0, 2)}
