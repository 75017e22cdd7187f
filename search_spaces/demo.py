"""A small space for a first search on a laptop: how deep to fuse, with how many tokens, under which curriculum.

Sizes that cost time are small and fixed, so that every trial takes seconds per epoch on two cores.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts

BASE: dict[str, Any] = {
    "model.max_text_len": 24,
    "model.av_frames": 20,
    "model.av_layers": 1,
    "model.lora_rank": 16,
    "model.lora_alpha": 32,
    "model.cross_attention_heads": 8,
    "model.fusion_spacing": "even",
    "training.batch_size": 32,
    "training.loss_text": 0.3,
    "curriculum.av_epochs": 4,
    "curriculum.av_lr": 5e-3,
}

PRIORS: list[dict[str, Any]] = [
    {
        "model.fusion_depth": 2,
        "model.num_fusion_tokens": 8,
        "curriculum.name": "av_first",
        "training.lr_fusion": 2e-3,
        "training.lr_av": 2e-3,
    }
]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    depth = trial.suggest_int("model.fusion_depth", 1, min(4, lm.num_layers // 2))
    return {
        "model.fusion_depth": depth,
        "model.fusion_start": 0.5,
        "model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 12, step=2),
        "curriculum.name": trial.suggest_categorical("curriculum.name", ["joint", "av_first", "av_frozen"]),
        "training.lr_fusion": trial.suggest_float("training.lr_fusion", 2e-4, 5e-3, log=True),
        "training.lr_av": trial.suggest_float("training.lr_av", 5e-4, 5e-3, log=True),
    }
