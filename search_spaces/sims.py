"""CH-SIMS: every dimension of DeepMLF, around its published setting.

SIMS is small (1,368 train utterances of Chinese) with long vision and short text; the published setting uses more
fusion tokens than the others and normalises both modalities, so that the range of tokens reaches further here.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import AUTHORS_DRAWN, PUBLISHED, suggest_all, with_own_stage

BASE: dict[str, Any] = {"model.max_text_len": 39, "model.av_frames": 55, "training.patience": 10}

# A Chinese GPT-2 of 12 layers; from the top its fused layers are 5 6 7 8 9 10 11.
PRIORS: list[dict[str, Any]] = [
    with_own_stage(
        PUBLISHED
        | AUTHORS_DRAWN
        | {
            "model.fusion_depth": 7,
            "model.fusion_spacing": "top",
            "model.num_fusion_tokens": 20,
            "model.ffn": "full",
            "model.av_batch_norm": "both",
            "model.av_batch_norm_on": "pooled",
            "model.softperm_text_apply": 0.25,
            "model.softperm_text_features": 0.3,
            "curriculum.av_lr": 5e-4,
            "training.weight_decay": 0.1,
            "training.cosine_epochs": 100,
            "training.loss_fusion": 1.0,
            "training.loss_av": 1.0,
            "training.loss_text": 1.0,
            "training.loss_lm": 1.0,
        }
    )
]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return suggest_all(trial, lm, max_tokens=32, cosine_epochs=(100,))
