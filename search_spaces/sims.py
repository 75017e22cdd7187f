"""CH-SIMS: every dimension of DeepMLF, around its published setting.

SIMS is small (1,368 train utterances of Chinese) with long vision and short text; the published setting uses more
fusion tokens than the others and normalises both modalities, so that the range of tokens reaches further here.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import published_base, published_prior, suggest_all

BASE: dict[str, Any] = published_base("sims")

# A Chinese GPT-2 of 12 layers; from the top its fused layers are 5 6 7 8 9 10 11.
PRIORS: list[dict[str, Any]] = [
    published_prior("sims", {"model.fusion_depth": 7, "model.fusion_spacing": "top", "model.ffn": "full"})
]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return suggest_all(trial, lm, max_tokens=32, cosine_epochs=(100,))
