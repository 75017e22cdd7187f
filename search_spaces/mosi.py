"""CMU-MOSI: every dimension that the DeepMLF paper varies, around its published setting.

The paper fuses SmolLM2-1.7B (24 layers) after layers 11 14 17 20 23 with 8 tokens and finds depths of 5 to 7 and 8 to
20 tokens best; the ranges here reach beyond both ends, and scale with the language model's depth.
"""

from typing import Any

import optuna

BASE: dict[str, Any] = {
    "model.max_text_len": 50,
    "model.av_frames": 50,
    "model.ffn": "lora",
    "training.batch_size": 32,
    "training.patience": 30,
}

# fusion_start is a fraction of the language model, so the published layers carry over to any depth.
PRIORS: list[dict[str, Any]] = [
    {
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
]


def space(trial: optuna.Trial, num_layers: int) -> dict[str, Any]:
    start = trial.suggest_float("model.fusion_start", 0.25, 0.75, step=0.05)
    room = num_layers - int(start * num_layers)
    curriculum = trial.suggest_categorical("curriculum.name", ["joint", "av_first", "av_frozen"])
    setting: dict[str, Any] = {
        "model.fusion_start": start,
        # The same range in every trial keeps one distribution; a shallow language model caps it.
        "model.fusion_depth": min(trial.suggest_int("model.fusion_depth", 1, 8), room),
        "model.num_fusion_tokens": trial.suggest_int("model.num_fusion_tokens", 2, 24, step=2),
        "model.gate_init": trial.suggest_float("model.gate_init", -2.0, 2.0),
        "model.lora_rank": trial.suggest_categorical("model.lora_rank", [16, 64, 128]),
        "model.dropout": trial.suggest_float("model.dropout", 0.0, 0.4),
        "model.av_dropout": trial.suggest_float("model.av_dropout", 0.0, 0.4),
        "model.av_layers": trial.suggest_int("model.av_layers", 1, 4),
        "model.av_batch_norm": trial.suggest_categorical("model.av_batch_norm", ["none", "audio"]),
        "curriculum.name": curriculum,
        "training.lr_fusion": trial.suggest_float("training.lr_fusion", 3e-5, 2e-3, log=True),
        "training.lr_av": trial.suggest_float("training.lr_av", 1e-4, 3e-3, log=True),
        "training.weight_decay": trial.suggest_float("training.weight_decay", 1e-4, 1e-1, log=True),
        "training.loss_fusion": trial.suggest_float("training.loss_fusion", 0.0, 1.0),
        "training.loss_av": trial.suggest_float("training.loss_av", 0.0, 1.0),
        "training.loss_text": trial.suggest_float("training.loss_text", 0.0, 1.0),
    }
    if curriculum != "joint":
        setting["curriculum.av_lr"] = trial.suggest_float("curriculum.av_lr", 3e-4, 5e-3, log=True)
    return setting
