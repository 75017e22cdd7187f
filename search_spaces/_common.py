"""What the spaces have in common: each function draws one part of DeepMLF and returns its dotted settings.

Ranges are the same for every language model, so that searches can learn from each other; a drawn value that does not
fit the one in use is cut to what does. All of them reach from the published setting (arXiv:2504.11082) to strong
regularisation: with a small frozen language model the main danger is over-fitting through the audiovisual encoder and
the heads.
"""

import math
from collections.abc import Sequence
from typing import Any

import optuna

from deepmlf.config.recipe import CODE, SHARED, published
from deepmlf.model.lm_store import LanguageModelFacts
from deepmlf.training.stores.av_key import OWN

Settings = dict[str, Any]

_FIXED = ("model.max_text_len", "model.av_frames", "training.patience")
"""What the spaces of published datasets do not draw but have in their ``BASE``."""
_AUTHORS_AV: Settings = {
    f"curriculum.av_{name}": CODE[f"curriculum.av_{name}"] for name in ("epochs", "patience", "weights", "readout")
}
"""What goes with the authors' schedule of the audiovisual stage."""
PUBLISHED: Settings = SHARED | {"model.av_pooling": CODE["model.av_pooling"], "model.softperm_av_features": 0.2}
"""What priors begin with, under names that these functions draw."""
AUTHORS_DRAWN: Settings = {
    name: CODE[name]
    for name in ("data.standardize", "curriculum.av_schedule", "training.decayed", "training.accumulation")
}
"""Choices of the authors' code that are not the defaults, as far as these functions draw them for any dataset."""
CURRICULA = ("joint", "av_first", "av_frozen", "unimodal_first", "grow_depth")
LORA_SCALE = 16
"""The published ``lora_alpha / lora_rank``."""


def suggest_fusion(trial: optuna.Trial, lm: LanguageModelFacts, *, max_tokens: int = 24) -> Settings:
    """Which layers are fused, with how many tokens, and the cross-attention that does it."""
    depth = trial.suggest_int("model.fusion_depth", 1, 10)
    # One MM block always sits after the last layer, and from the top there is only one place to start.
    spacing = trial.suggest_categorical("model.fusion_spacing", ["even", "top"]) if depth > 1 else "top"
    start = trial.suggest_float("model.fusion_start", 0.1, 0.8) if spacing == "even" else 0.0
    heads = trial.suggest_categorical("model.cross_attention_heads", [4, 8, 16, 32])
    return {
        "model.fusion_depth": min(depth, layers_from(start, lm)),
        "model.fusion_spacing": spacing,
        "model.fusion_start": start,
        "model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, max_tokens, step=2),
        "model.gate_init": trial.suggest_float("model.gate_init", -6.0, 2.0),
        "model.cross_attention_heads": math.gcd(heads, lm.width),
        "model.dropout": trial.suggest_float("model.dropout", 0.0, 0.5),
    }


def layers_from(start: float, lm: LanguageModelFacts) -> int:
    """Layers that lie at or above ``model.fusion_start``: the deepest possible fusion."""
    return lm.num_layers - int(start * lm.num_layers)


def suggest_ffn(trial: optuna.Trial, *, authors: bool = False) -> Settings:
    """FFN of the MM blocks: trained whole, or LoRA of a rank at the published scale.

    Args:
        trial: Draws.
        authors: Whether LoRA may also sum gate and up, as the authors' code does.
    """
    mode = trial.suggest_categorical("model.ffn", ["lora", "full"])
    if mode == "full":
        # Whatever LoRA does: a whole FFN starts as the language model's own, which multiplies.
        return {"model.ffn": mode, "model.swiglu": "multiply"}
    rank = trial.suggest_int("model.lora_rank", 8, 512, log=True)
    settings: Settings = {"model.ffn": mode, "model.lora_rank": rank, "model.lora_alpha": LORA_SCALE * rank}
    if authors:
        settings["model.swiglu"] = trial.suggest_categorical("model.swiglu", ["multiply", "sum"])
    return settings


def suggest_av(trial: optuna.Trial, *, authors: bool = False) -> Settings:
    """The audiovisual encoder. Coarse steps: trials that draw the same encoder share its first stage.

    Args:
        trial: Draws.
        authors: Whether to draw what the authors' code does otherwise, too.
    """
    settings: Settings = {
        "model.av_width": trial.suggest_int("model.av_width", 12, 60, step=6),  # all heads divide multiples of 6
        "model.av_heads": trial.suggest_categorical("model.av_heads", [2, 3, 6]),
        "model.av_layers": trial.suggest_int("model.av_layers", 1, 4),
        "model.av_dropout": trial.suggest_float("model.av_dropout", 0.0, 0.6, step=0.1),
        "model.av_pooling": trial.suggest_categorical("model.av_pooling", ["consecutive", "strided"]),
        "model.av_batch_norm": trial.suggest_categorical("model.av_batch_norm", ["none", "audio", "vision", "both"]),
        "model.softperm_av_features": trial.suggest_float("model.softperm_av_features", 0.0, 0.4, step=0.1),
    }
    if authors:
        settings["data.standardize"] = trial.suggest_categorical("data.standardize", [True, False])
    if authors and settings["model.av_batch_norm"] != "none":
        on = trial.suggest_categorical("model.av_batch_norm_on", ["frames", "pooled"])
        settings["model.av_batch_norm_on"] = on
    return settings


def suggest_curriculum(trial: optuna.Trial, *, authors: bool = False) -> Settings:
    """The curriculum, the lengths and learning rates of its stages, and the AV encoder's learning rate in fusion.

    Args:
        trial: Draws.
        authors: Whether the AV encoder's own stage may also be as in the authors' code, which ends when it has
            stalled.
    """
    name = trial.suggest_categorical("curriculum.name", CURRICULA)
    settings: Settings = {"curriculum.name": name}
    if name in ("av_first", "av_frozen", "unimodal_first"):
        if authors:
            schedule = trial.suggest_categorical("curriculum.av_schedule", ["cosine", "plateau"])
            settings["curriculum.av_schedule"] = schedule
        if settings.get("curriculum.av_schedule") == "plateau":
            settings |= _AUTHORS_AV
        else:
            settings["curriculum.av_share"] = trial.suggest_float("curriculum.av_share", 0.1, 0.9, step=0.2)
        settings["curriculum.av_lr"] = trial.suggest_float("curriculum.av_lr", 1e-4, 1e-2, log=True)
    if name in ("av_first", "av_frozen", "unimodal_first") and authors:
        # Of its own, so that trials which differ in fusion alone can share the stage.
        settings |= {
            "curriculum.av_weight_decay": trial.suggest_float("curriculum.av_weight_decay", 1e-4, 3.0, log=True),
            "curriculum.av_batch_size": trial.suggest_categorical("curriculum.av_batch_size", [16, 32, 64]),
            "curriculum.av_accumulation_steps": trial.suggest_categorical(
                "curriculum.av_accumulation_steps", [1, 2, 4, 8]
            ),
        }
    if name == "unimodal_first":
        settings["curriculum.text_share"] = trial.suggest_float("curriculum.text_share", 0.1, 0.5, step=0.2)
        settings["curriculum.text_lr"] = trial.suggest_float("curriculum.text_lr", 1e-4, 1e-2, log=True)
    if name == "grow_depth":
        settings["curriculum.grow_share"] = trial.suggest_float("curriculum.grow_share", 0.2, 0.8, step=0.2)
    if name != "av_frozen":
        settings["training.lr_av"] = trial.suggest_float("training.lr_av", 1e-5, 3e-3, log=True)
    return settings


def suggest_text_softperm(trial: optuna.Trial) -> Settings:
    """SoftPerm on text embeddings: off, or how often and on how many features."""
    apply = trial.suggest_categorical("model.softperm_text_apply", [0.0, 0.25, 0.3, 0.5])
    if apply == 0:
        return {"model.softperm_text_apply": apply}
    features = trial.suggest_float("model.softperm_text_features", 0.1, 0.5, step=0.1)
    return {"model.softperm_text_apply": apply, "model.softperm_text_features": features}


def suggest_losses(trial: optuna.Trial) -> Settings:
    """Loss weights λ_f, λ_av, λ_t in steps that reach zero, and γ."""
    lambdas: Settings = {
        name: trial.suggest_float(name, 0.0, 1.0, step=0.2)
        for name in ("training.loss_fusion", "training.loss_av", "training.loss_text")
    }
    return lambdas | {"training.loss_lm": trial.suggest_categorical("training.loss_lm", [0.0, 0.5, 1.0, 1.1])}


def suggest_optimiser(trial: optuna.Trial, *, cosine_epochs: Sequence[int] = ()) -> Settings:
    """Learning rate of fusion, weight decay, batch size and accumulation.

    Args:
        trial: Draws.
        cosine_epochs: Epochs that the cosine may span beside those of the search. With any, what else the authors'
            optimiser does otherwise is drawn, too.
    """
    settings: Settings = {
        "training.lr_fusion": trial.suggest_float("training.lr_fusion", 1e-5, 2e-3, log=True),
        "training.weight_decay": trial.suggest_float("training.weight_decay", 1e-4, 3.0, log=True),
        "training.batch_size": trial.suggest_categorical("training.batch_size", [16, 32, 64]),
        "training.accumulation_steps": trial.suggest_categorical("training.accumulation_steps", [1, 2, 4, 8]),
    }
    if not cosine_epochs:
        return settings
    settings["training.cosine_epochs"] = trial.suggest_categorical("training.cosine_epochs", [0, *cosine_epochs])
    settings["training.decayed"] = trial.suggest_categorical("training.decayed", ["matrices", "all_but_biases"])
    if settings["training.accumulation_steps"] > 1:
        settings["training.accumulation"] = trial.suggest_categorical("training.accumulation", ["mean", "sum"])
        settings["training.clip_av"] = settings["training.accumulation"] == "mean"
    return settings


def suggest_all(
    trial: optuna.Trial, lm: LanguageModelFacts, *, max_tokens: int = 24, cosine_epochs: Sequence[int] = ()
) -> Settings:
    """Every dimension of DeepMLF.

    Args:
        trial: Draws.
        lm: Sizes of the language model.
        max_tokens: Most fusion tokens.
        cosine_epochs: The published spans of the cosine. With any, each choice of the authors' code that is not the
            default is drawn beside it; without, as the spaces of earlier experiments do, none is.
    """
    authors = len(cosine_epochs) > 0
    return (
        suggest_fusion(trial, lm, max_tokens=max_tokens)
        | suggest_ffn(trial, authors=authors)
        | suggest_av(trial, authors=authors)
        | suggest_curriculum(trial, authors=authors)
        | suggest_text_softperm(trial)
        | suggest_losses(trial)
        | suggest_optimiser(trial, cosine_epochs=cosine_epochs)
    )


def with_own_stage(prior: Settings) -> Settings:
    """The same setting, its audiovisual stage's batches and weight decay spelled out as this space draws them."""
    return prior | {f"curriculum.av_{name}": prior[f"training.{name}"] for name in OWN}


def published_base(configuration: str) -> Settings:
    """``BASE`` of a dataset's space, by the name that its configuration has in `deepmlf.config.recipe.PUBLISHED`."""
    return {name: published(configuration)[name] for name in _FIXED}


def published_prior(configuration: str, of_lm: Settings) -> Settings:
    """A published configuration as `suggest_all` draws it.

    Args:
        configuration: Its name in `deepmlf.config.recipe.PUBLISHED`.
        of_lm: What was chosen for its language model: fused layers, FFN and LoRA.
    """
    not_drawn = {*_FIXED, *_AUTHORS_AV, "training.epochs", "training.clip_av"}
    prior = {name: value for name, value in published(configuration).items() if name not in not_drawn} | of_lm
    if prior["model.ffn"] == "full":
        del prior["model.swiglu"]
    if prior["model.av_batch_norm"] == "none":
        del prior["model.av_batch_norm_on"]
    return with_own_stage(prior)


def as_published(base: Settings, prior: Settings) -> Settings:
    """All settings of a published one, fixed.

    Args:
        base: ``BASE`` of its dataset's space.
        prior: The one of that space's ``PRIORS``.
    """
    fixed: Settings = {"model.fusion_start": 0.0}  # as `suggest_fusion` has it where blocks are fused from the top
    fixed |= base | prior | {name: value for name, value in CODE.items() if name != "model.swiglu"}
    for name in OWN:
        fixed.pop(f"curriculum.av_{name}", None)  # what ``--set`` makes of the training's holds for the stage, too
    if fixed["model.ffn"] == "lora":
        fixed["model.lora_alpha"] = LORA_SCALE * fixed["model.lora_rank"]
    return fixed


def fixed_depth(fixed: Settings, lm: LanguageModelFacts) -> Settings:
    """Nothing where the depth of a fixed setting fits a language model, else the deepest that does."""
    room = layers_from(fixed["model.fusion_start"], lm)
    return {} if fixed["model.fusion_depth"] <= room else {"model.fusion_depth": room}


def suggest_seed(trial: optuna.Trial) -> Settings:
    """Three seeds, for the spread over seeds."""
    return {"training.seed": trial.suggest_int("training.seed", 0, 2)}
