"""How deep to fuse: 1 to 9 MM blocks, as many as the language model has room for, with three seeds each.

The paper finds that deeper beats shallow, and 5 to 7 blocks best. All else is as published for MOSI.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import layers_from
from search_spaces.ablations._grid import FIXED, suggest_seed

BASE = FIXED


def space(trial: optuna.Trial, lm: LanguageModelFacts, base: dict[str, Any]) -> dict[str, Any]:
    room = layers_from(base["model.fusion_start"], lm)
    depths = [depth for depth in (1, 2, 3, 5, 7, 9) if depth <= room]
    # Layers that are named one by one would be fused at any depth.
    counted = {"model.fusion_layers": None} if base["model.fusion_layers"] else {}
    depth = trial.suggest_categorical("model.fusion_depth", depths)
    return {"model.fusion_depth": depth} | counted | suggest_seed(trial)
