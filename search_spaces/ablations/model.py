"""Which parts of the model it takes: the model as it is and without each of them, with three seeds each.

Without fusion tokens the text's own states attend to audio and vision, as in Flamingo. All else is as published for
MOSI; where the language model has no room for its five MM blocks, as many as it has.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces.ablations._grid import FIXED, fixed_depth, suggest_seed

BASE = FIXED

_VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "no fusion tokens": {"model.num_fusion_tokens": 0, "model.fusion_groups": "shared", "model.ffn_on": "all"},
    "no gates": {"model.gate": "none"},
    "tanh gates": {"model.gate": "tanh", "model.gate_init": 0.0},
    "nearly closed gates": {"model.gate": "sigmoid", "model.gate_init": -4.0},
    "FFN on fusion tokens alone": {"model.ffn_on": "fusion"},
}


def space(trial: optuna.Trial, lm: LanguageModelFacts, base: dict[str, Any]) -> dict[str, Any]:
    variant = trial.suggest_categorical("variant", list(_VARIANTS))
    return _VARIANTS[variant] | fixed_depth(base, lm) | suggest_seed(trial)
