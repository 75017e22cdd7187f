"""CMU-MOSEI: every dimension of DeepMLF, around its two published settings.

MOSEI is the largest of the three (16,326 train utterances of English), so that an epoch is long and few are needed; the
published settings train whole FFNs, with SoftPerm and the next-token loss.
"""

from typing import Any

import optuna

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces._common import published_base, published_prior, suggest_all

BASE: dict[str, Any] = published_base("mosei")

_SHARED = {"model.fusion_spacing": "even", "model.ffn": "full"}
PRIORS: list[dict[str, Any]] = [
    # GPT-2 base of 12 layers; even spacing makes of its fused layers 3 5 7 8 9 10 11 here 3 4 6 7 8 10 11; the space
    # published/mosei names them outright.
    published_prior("mosei", _SHARED | {"model.fusion_depth": 7, "model.fusion_start": 0.25}),
    # GPT-2 large of 36 layers; the start gives its fused layers 7 14 21 28 35.
    published_prior("mosei_large", _SHARED | {"model.fusion_depth": 5, "model.fusion_start": 0.2}),
]


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    return suggest_all(trial, lm, cosine_epochs=(15, 20))
