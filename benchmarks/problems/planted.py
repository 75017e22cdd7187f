"""A stand-in for training DeepMLF: the search's real dimensions, known best setting, learning curves, noise, failures.

Its difficulty was set by looking at random settings alone: how many land within 5 % of the best, how far off the
median is, how early values rank with final ones. The space is written out, so that figures stay comparable when
``search_spaces/`` changes.
"""

import math
import zlib
from typing import Any

import numpy as np
import optuna

from benchmarks.problems import Curve
from deepmlf.model.lm_store import LanguageModelFacts

EPOCHS = 15
LANGUAGE_MODEL = LanguageModelFacts(num_layers=24, width=2048)
BEST_MAE = 0.65
START_MAE = 1.35
DEPTH, TOKENS, CURRICULUM = 6, 14, "av_first"
PUBLISHED = {
    "model.fusion_depth": 5,
    "model.fusion_start": 0.45,
    "model.num_fusion_tokens": 8,
    "curriculum.name": "av_first",
    "training.lr_fusion": 1e-4,
    "training.weight_decay": 1e-3,
    "training.loss_fusion": 0.4,
    "training.loss_av": 0.8,
    "training.loss_text": 0.8,
}
"""What is published for MOSI, as ``search_spaces/mosi.py`` evaluates it first; what it leaves open is drawn."""

# Relative loss of the whole range (ordered) or of each other choice; the best place is drawn per surrogate.
_SMALL = {
    "model.fusion_start": (0.0055, 0.25, 0.75),
    "model.gate_init": (0.0055, -2.0, 2.0),
    "model.dropout": (0.0055, 0.0, 0.4),
    "model.av_dropout": (0.0055, 0.0, 0.4),
    "model.av_layers": (0.0055, 1, 4),
    "training.loss_fusion": (0.0055, 0.0, 1.0),
    "training.loss_av": (0.0055, 0.0, 1.0),
    "training.loss_text": (0.0055, 0.0, 1.0),
    "training.loss_lm": (0.0055, 0.0, 0.5),
    "model.softperm_text_features": (0.0055, 0.0, 0.5),
    "model.softperm_text_apply": (0.0055, 0.0, 1.0),
    "model.softperm_av_features": (0.0055, 0.0, 0.5),
    "curriculum.av_epochs": (0.0055, 2, 10),
}
_CHOICES = {
    "model.fusion_spacing": (0.0012, ("even", "top")),
    "model.cross_attention_heads": (0.0012, (8, 16, 32)),
    "model.ffn": (0.0012, ("full", "lora")),
    "model.lora_rank": (0.0012, (16, 64, 128)),
    "model.av_width": (0.0012, (30, 60, 120)),
    "model.av_pooling": (0.0012, ("consecutive", "strided")),
    "training.batch_size": (0.0012, (16, 32, 64)),
    "training.accumulation_steps": (0.0012, (1, 2, 4)),
}
_CURRICULA = {"av_first": 0.0, "unimodal_first": 0.014, "grow_depth": 0.018, "av_frozen": 0.027, "joint": 0.045}
# How fast a curriculum learns at first: what ends best does not lead early, so curves cross.
_SLOWNESS = {"av_first": 1.2, "unimodal_first": 1.0, "grow_depth": 1.4, "av_frozen": 0.9, "joint": 0.8}


def space(trial: optuna.Trial, lm: LanguageModelFacts) -> dict[str, Any]:
    """Every dimension that a search of DeepMLF varies, conditional where one makes no sense without another."""
    setting: dict[str, Any] = {
        "model.fusion_depth": trial.suggest_int("model.fusion_depth", 1, lm.num_layers // 2),
        "model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 24, step=2),
        "model.fusion_start": trial.suggest_float("model.fusion_start", 0.25, 0.75),
        "curriculum.name": trial.suggest_categorical("curriculum.name", list(_CURRICULA)),
        "training.lr_fusion": trial.suggest_float("training.lr_fusion", 3e-5, 3e-3, log=True),
        "training.lr_av": trial.suggest_float("training.lr_av", 1e-4, 1e-2, log=True),
        "training.weight_decay": trial.suggest_float("training.weight_decay", 1e-4, 1e-1, log=True),
    }
    for name in ("model.gate_init", "model.dropout", "model.av_dropout", "training.loss_fusion", "training.loss_av",
                 "training.loss_text", "training.loss_lm", "model.softperm_text_features",
                 "model.softperm_text_apply", "model.softperm_av_features"):  # fmt: skip
        _, low, high = _SMALL[name]
        setting[name] = trial.suggest_float(name, low, high)
    for name, (_, choices) in _CHOICES.items():
        if name != "model.lora_rank" or setting["model.ffn"] == "lora":
            setting[name] = trial.suggest_categorical(name, list(choices))
    setting["model.av_layers"] = trial.suggest_int("model.av_layers", 1, 4)
    if setting["curriculum.name"].startswith("av_"):
        setting["curriculum.av_epochs"] = trial.suggest_int("curriculum.av_epochs", 2, 10)
        setting["curriculum.av_lr"] = trial.suggest_float("curriculum.av_lr", 3e-4, 5e-3, log=True)
    return setting


class Planted:
    """DeepMLF's response to its settings, drawn from a seed."""

    name, epochs = "planted", EPOCHS

    def __init__(self, seed: int) -> None:
        generator = np.random.default_rng((7, seed))
        self._seed = seed
        self._places = {name: generator.uniform(0.2, 0.8) for name in _SMALL}
        self._picks = {name: int(generator.integers(len(choices))) for name, (_, choices) in _CHOICES.items()}
        self._lr_fusion = generator.uniform(-3.9, -3.4)
        self._lr_av = generator.uniform(-3.3, -2.7)
        self._decay = generator.uniform(-3.0, -2.0)

    def space(self, trial: optuna.Trial) -> dict[str, Any]:
        """See `Problem.space`."""
        return space(trial, LANGUAGE_MODEL)

    def regret(self, worth: float) -> float:
        """Relative to the best possible MAE."""
        return worth / BEST_MAE - 1

    def final(self, setting: dict[str, Any]) -> float:
        """MAE after full training, without noise; at best `BEST_MAE`."""
        depth = setting["model.fusion_depth"]
        batch = setting["training.batch_size"] * setting["training.accumulation_steps"]
        # Deeper fusion wants a smaller rate, larger batches a greater one.
        lr_best = self._lr_fusion - 0.05 * (depth - DEPTH) + 0.15 * math.log2(batch / 32)
        loss = 0.072 * (abs(depth - DEPTH) / 6) ** 1.5
        loss += 0.055 * (abs(setting["model.num_fusion_tokens"] - TOKENS) / 12) ** 1.5
        loss += _CURRICULA[setting["curriculum.name"]]
        loss += 0.108 * (math.log10(setting["training.lr_fusion"]) - lr_best) ** 2
        loss += 0.036 * (math.log10(setting["training.lr_av"]) - self._lr_av) ** 2
        loss += 0.006 * (math.log10(setting["training.weight_decay"]) - self._decay) ** 2
        for name, (weight, low, high) in _SMALL.items():
            if name in setting:
                loss += weight * ((setting[name] - low) / (high - low) - self._places[name]) ** 2
        for name, (weight, choices) in _CHOICES.items():
            if name in setting:
                loss += weight * (choices.index(setting[name]) != self._picks[name])
        return BEST_MAE * (1 + loss)

    def curve(self, setting: dict[str, Any], number: int) -> Curve:
        """See `Problem.curve`."""
        final, depth = self.final(setting), setting["model.fusion_depth"]
        key = zlib.crc32(repr(sorted(setting.items())).encode())
        generator = np.random.default_rng((self._seed, number, key))
        rate = math.log10(setting["training.lr_fusion"])
        slowness = 1.2 * _SLOWNESS[setting["curriculum.name"]] * 10 ** (0.15 * (-3.6 - rate))
        slowness *= (0.85 + depth / 40) * (1 + setting["model.dropout"])
        epochs = np.arange(1, EPOCHS + 1)
        left = np.exp(-epochs / slowness)
        # A high rate overfits in the end.
        turn = EPOCHS * min(1.0, 10 ** (-3.2 - rate))
        true = final + (START_MAE - final) * (left - left[-1]) + 0.01 * np.maximum(0.0, epochs - turn)
        luck = generator.normal(0.0, 0.01 * BEST_MAE)
        observed = true + luck + generator.normal(0.0, 0.012, EPOCHS)
        failed, last = None, EPOCHS
        diverges = 1 / (1 + math.exp(-(rate + 2.8) / 0.1))
        if generator.random() < diverges:
            failed, last = "the loss became nan", int(generator.integers(0, 4))
        elif generator.random() < 0.02:
            failed, last = "out of memory", int(generator.integers(0, EPOCHS))
        seconds = (1 + 0.08 * depth + 0.02 * setting["model.num_fusion_tokens"]) * generator.lognormal(0.0, 0.1)
        startup = 0.3 * seconds * setting.get("curriculum.av_epochs", 0)
        best = np.minimum.accumulate(true)
        return Curve(observed[:last].tolist(), best[:last].tolist(), failed, seconds, startup)
