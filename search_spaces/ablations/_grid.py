"""What the grids have in common: the setting they vary one dimension of, and the seeds.

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


def fixed_depth(lm: LanguageModelFacts) -> dict[str, Any]:
    """The published depth, or the deepest that fits a shallow language model."""
    return _common.fixed_depth(FIXED, lm)
