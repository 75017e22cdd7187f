"""What regularises: nothing, or one thing at a time at its published or its usual strength, with three seeds each.

SoftPerm, weight decay and the next-token loss are as strong as the published settings of MOSEI and CH-SIMS have them,
noise on embeddings as NEFTune's weakest (arXiv:2310.05914). The next-token loss on validation texts tells what is left
of the language model's own distribution. All else is as published for MOSI; where the language model has no room for
its five MM blocks, as many as it has.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces.ablations._grid import FIXED, fixed_depth, suggest_seed

BASE = FIXED | {"training.language_loss": True}

_NONE: dict[str, Any] = {
    "model.softperm_text_apply": 0.0,
    "model.softperm_av_features": 0.0,
    "model.embedding_dropout": 0.0,
    "model.embedding_noise": 0.0,
    "training.loss_lm": 0.0,
    "training.weight_decay": 0.0,
}
_KINDS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "SoftPerm": {
        "model.softperm_text_apply": 0.25,
        "model.softperm_text_features": 0.3,
        "model.softperm_av_features": 0.3,
    },
    "embedding dropout": {"model.embedding_dropout": 0.1},
    "embedding noise": {"model.embedding_noise": 5.0},
    "next-token loss": {"training.loss_lm": 1.0},
    "weight decay": {"training.weight_decay": 0.1},
}


def space(trial: optuna.Trial, lm: LanguageModelFacts, base: dict[str, Any]) -> dict[str, Any]:
    kind = trial.suggest_categorical("regularisation", list(_KINDS))
    return _NONE | _KINDS[kind] | fixed_depth(base, lm) | suggest_seed(trial)
