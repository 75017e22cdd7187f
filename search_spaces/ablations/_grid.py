"""What the grids have in common: what stays fixed where ``--around`` says nothing else, the depth, and the seeds.

They draw categorical values and whole numbers only, so that a grid sampler can enumerate them.
"""

from typing import Any

from deepmlf.model.lm_store import LanguageModelFacts
from search_spaces import _common, mosi
from search_spaces._common import suggest_seed

__all__ = ["FIXED", "fixed_depth", "suggest_seed"]

FIXED: dict[str, Any] = _common.as_published(mosi.BASE, mosi.PRIORS[0])
"""The published best setting for MOSI, with all choices of the authors' code; ``--set`` changes it for all points of a
grid."""


def fixed_depth(base: dict[str, Any], lm: LanguageModelFacts) -> dict[str, Any]:
    """Nothing where the depth that a grid holds fixed fits a language model, else the deepest that does.

    Args:
        base: What all trials have in common.
        lm: Sizes of the language model.
    """
    return {} if base["model.fusion_layers"] else _common.fixed_depth(base, lm)
