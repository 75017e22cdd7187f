"""CMU-MOSEI: every dimension of DeepMLF, around its two published settings.

MOSEI is the largest of the three (16,326 train utterances of English), so that an epoch is long and few are needed; the
published settings train whole FFNs, with SoftPerm and the next-token loss.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import AUTHORS_DRAWN, PUBLISHED, suggest_all, with_own_stage

BASE: dict[str, Any] = {"model.max_text_len": 50, "model.av_frames": 50, "training.patience": 10}

_SHARED = {
    **PUBLISHED,
    **AUTHORS_DRAWN,
    "model.fusion_spacing": "even",
    "model.num_fusion_tokens": 12,
    "model.ffn": "full",
    "model.av_batch_norm": "none",
    "curriculum.av_lr": 5e-3,
    "training.loss_fusion": 1.0,
    "training.loss_av": 1.0,
    "training.loss_text": 1.0,
}
PRIORS: list[dict[str, Any]] = [
    # GPT-2 base of 12 layers; even spacing makes of its fused layers 3 5 7 8 9 10 11 here 3 4 6 7 8 10 11; the space
    # published/mosei names them outright.
    with_own_stage(
        _SHARED
        | {
            "model.fusion_depth": 7,
            "model.fusion_start": 0.25,
            "model.softperm_text_apply": 0.3,
            "model.softperm_text_features": 0.2,
            "training.weight_decay": 5e-3,
            "training.loss_lm": 1.1,
            "training.cosine_epochs": 15,
        }
    ),
    # GPT-2 large of 36 layers; the start gives its fused layers 7 14 21 28 35.
    with_own_stage(
        _SHARED
        | {
            "model.fusion_depth": 5,
            "model.fusion_start": 0.2,
            "model.softperm_text_apply": 0.25,
            "model.softperm_text_features": 0.3,
            "training.weight_decay": 0.1,
            "training.loss_lm": 1.0,
            "training.cosine_epochs": 20,
        }
    ),
]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return suggest_all(trial, lm, cosine_epochs=(15, 20))
