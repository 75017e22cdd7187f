"""CMU-MOSI: every dimension of DeepMLF, around its published setting.

MOSI is small (1,284 train utterances of English), so that what regularises matters as much as how fusion is done: low
learning rates, dropout, narrow audiovisual encoders and auxiliary losses of weight zero are all within reach.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import PUBLISHED, suggest_all

BASE: dict[str, Any] = {"model.max_text_len": 50, "model.av_frames": 50, "training.patience": 30}

# SmolLM2-1.7B of 24 layers; the start gives its fused layers 11 14 17 20 23.
PRIORS: list[dict[str, Any]] = [
    PUBLISHED
    | {
        "model.fusion_depth": 5,
        "model.fusion_spacing": "even",
        "model.fusion_start": 0.46,
        "model.num_fusion_tokens": 8,
        "model.ffn": "lora",
        "model.lora_rank": 512,
        "model.av_batch_norm": "audio",
        "model.softperm_text_apply": 0.0,
        "curriculum.av_lr": 1e-3,
        "training.weight_decay": 1e-3,
        "training.loss_fusion": 0.4,
        "training.loss_av": 0.8,
        "training.loss_text": 0.8,
        "training.loss_lm": 0.0,
    }
]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return suggest_all(trial, lm)
