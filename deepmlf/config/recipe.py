"""The authors' recipe: what their released code and published configurations choose, as settings by dotted names.

The one place of these values: ``--recipe authors`` and the spaces that begin with a published setting read them here.
What was chosen for one language model is no part of it: which layers are fused, the FFN and its LoRA, the precision.
No heavy imports: the CLI reads this module to answer ``--help``.
"""

from collections.abc import Mapping
from typing import Any

from deepmlf.errors import ConfigError

Settings = dict[str, Any]

AUTHORS = "authors"
RECIPES = (AUTHORS,)
"""Names of recipes."""

CODE: Settings = {
    "data.standardize": False,
    "model.av_pooling": "strided",
    "model.av_batch_norm_on": "pooled",
    "model.swiglu": "sum",
    "curriculum.av_epochs": 200,  # more than a stage of theirs takes until its patience ends it
    "curriculum.av_schedule": "plateau",
    "curriculum.av_patience": 8,
    "curriculum.av_weights": "best",
    "curriculum.av_readout": "last",
    "training.decayed": "all_but_biases",
    "training.accumulation": "sum",
    "training.clip_av": False,
}
"""Choices of the authors' code that are not the defaults; docs/reproducing-the-paper.md explains each."""

SHARED: Settings = {
    "model.gate_init": 0.0,
    "model.cross_attention_heads": 16,
    "model.dropout": 0.1,
    "model.av_width": 30,
    "model.av_heads": 6,
    "model.av_layers": 3,
    "model.av_dropout": 0.1,
    "curriculum.name": "av_first",
    "training.lr_fusion": 1e-4,
    "training.lr_av": 1e-4,
    "training.batch_size": 32,
    "training.accumulation_steps": 8,
}
"""What the published configurations of all datasets have in common."""

_MOSEI: Settings = {
    "model.max_text_len": 50,
    "model.av_frames": 50,
    "model.num_fusion_tokens": 12,
    "model.av_batch_norm": "none",
    "model.softperm_av_features": 0.2,
    "curriculum.av_lr": 5e-3,
    "training.patience": 10,
    "training.loss_fusion": 1.0,
    "training.loss_av": 1.0,
    "training.loss_text": 1.0,
}
PUBLISHED: Mapping[str, Settings] = {
    "mosi": {
        "model.max_text_len": 50,
        "model.av_frames": 50,
        "model.num_fusion_tokens": 8,
        "model.av_batch_norm": "audio",
        "model.softperm_av_features": 0.3,
        "model.softperm_text_apply": 0.0,
        "curriculum.av_lr": 1e-3,
        "training.epochs": 150,
        "training.cosine_epochs": 150,
        "training.patience": 30,
        "training.weight_decay": 1e-3,
        "training.loss_fusion": 0.4,
        "training.loss_av": 0.8,
        "training.loss_text": 0.8,
        "training.loss_lm": 0.0,
    },
    "mosei": _MOSEI
    | {
        "model.softperm_text_apply": 0.3,
        "model.softperm_text_features": 0.2,
        "training.epochs": 15,
        "training.cosine_epochs": 15,
        "training.weight_decay": 5e-3,
        "training.loss_lm": 1.1,
    },
    "mosei_large": _MOSEI
    | {
        "model.softperm_text_apply": 0.25,
        "model.softperm_text_features": 0.3,
        "training.epochs": 20,
        "training.cosine_epochs": 20,
        "training.weight_decay": 0.1,
        "training.loss_lm": 1.0,
    },
    "sims": {
        "model.max_text_len": 39,
        "model.av_frames": 55,
        "model.num_fusion_tokens": 20,
        "model.av_batch_norm": "both",
        "model.softperm_av_features": 0.2,
        "model.softperm_text_apply": 0.25,
        "model.softperm_text_features": 0.3,
        "curriculum.av_lr": 5e-4,
        "training.epochs": 100,
        "training.cosine_epochs": 100,
        "training.patience": 10,
        "training.weight_decay": 0.1,
        "training.loss_fusion": 1.0,
        "training.loss_av": 1.0,
        "training.loss_text": 1.0,
        "training.loss_lm": 1.0,
    },
}
"""What else each published configuration has; ``mosei`` is that with GPT-2 base, ``mosei_large`` that with GPT-2
large."""
DATASETS = ("mosi", "mosei", "sims")
"""Datasets with a published configuration; it has the dataset's name."""


def published(configuration: str) -> Settings:
    """All settings of a published configuration, by its name in `PUBLISHED`.

    >>> published("sims")["training.accumulation"], published("sims")["training.patience"]
    ('sum', 10)
    """
    return CODE | SHARED | PUBLISHED[configuration]


def recipe_settings(recipe: str | None, dataset: str) -> Settings:
    """The settings of a recipe for a dataset, below whatever else is asked for.

    A dataset without a published configuration has those that all of the published ones share.

    >>> recipe_settings("authors", "holidays") == CODE | SHARED
    True

    Args:
        recipe: One of `RECIPES`; None has no settings.
        dataset: The dataset's name.

    Raises:
        ConfigError: If there is no such recipe.
    """
    if recipe is None:
        return {}
    if recipe not in RECIPES:
        raise ConfigError(f"--recipe {recipe}: no such recipe; known recipes: {', '.join(RECIPES)}")
    return published(dataset) if dataset in DATASETS else CODE | SHARED


def recipe_line(recipe: str, dataset: str) -> str:
    """What to tell a person of a recipe that is taken."""
    if dataset in DATASETS:
        return (
            f"--recipe {recipe}: as published for {dataset}, but for what was chosen for its language model "
            "(fused layers, FFN, precision)"
        )
    return (
        f"--recipe {recipe}: nothing is published for {dataset}; takes what {', '.join(DATASETS)} have in common, "
        "and the defaults for the rest"
    )
