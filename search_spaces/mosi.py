"""CMU-MOSI: every dimension of DeepMLF, around its published setting.

MOSI is small (1,284 train utterances of English), so that what regularises matters as much as how fusion is done: low
learning rates, dropout, narrow audiovisual encoders and auxiliary losses of weight zero are all within reach.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import PUBLISHED, published_base, published_prior, suggest_all

BASE: dict[str, Any] = published_base("mosi")

PRIORS: list[dict[str, Any]] = [
    # As published, for SmolLM2-1.7B of 24 layers; the start gives its fused layers 11 14 17 20 23.
    published_prior(
        "mosi",
        {
            "model.fusion_depth": 5,
            "model.fusion_spacing": "even",
            "model.fusion_start": 0.46,
            "model.ffn": "lora",
            "model.lora_rank": 512,
        },
    ),
    # For a small language model. Half-open gates add half of a second FFN to every fused layer, which scrambles the
    # states of a pretrained model until training has mended them; nearly closed ones start from the model as it is.
    PUBLISHED
    | {
        "data.standardize": True,
        "model.fusion_depth": 5,
        "model.num_fusion_tokens": 4,
        "model.gate_init": -4.0,
        "model.dropout": 0.2,
        "model.ffn": "lora",
        "model.lora_rank": 16,
        "model.swiglu": "multiply",
        "model.av_layers": 1,
        "model.av_dropout": 0.5,
        "model.av_pooling": "consecutive",
        "model.av_batch_norm": "none",
        "model.softperm_av_features": 0.0,
        "model.softperm_text_apply": 0.0,
        "curriculum.name": "joint",
        "training.lr_fusion": 5e-4,
        "training.weight_decay": 1.0,
        "training.decayed": "matrices",
        "training.cosine_epochs": 0,
        "training.loss_fusion": 0.2,
        "training.loss_av": 0.0,
        "training.loss_text": 0.2,
        "training.loss_lm": 0.0,
        "training.accumulation_steps": 1,
        "model.fusion_spacing": "top",
    },
]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return suggest_all(trial, lm, cosine_epochs=(150,))
