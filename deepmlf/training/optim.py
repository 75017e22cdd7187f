"""AdamW with DeepMLF's parameter groups, and its learning-rate schedule."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from deepmlf.config.trial import Part, Stage, TrainingConfig, TrialConfig
from deepmlf.model.deepmlf import DeepMLF

_PLATEAU_FACTOR = 0.1
_FUSION = ("fusion_tokens", "modality_norms.", "mm_blocks.")


def part_of(name: str) -> Part:
    """The part of the model that a parameter belongs to."""
    if name.startswith("av_encoder."):
        return "av_encoder"
    return "fusion" if name.startswith(_FUSION) else "heads"


def trained_parameters(model: DeepMLF) -> dict[str, nn.Parameter]:
    """Parameters that any stage may train: all but the frozen copies of the language model's weights."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def make_optimizer(parameters: dict[str, nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW, β=(0.9, 0.95), with groups by learning rate and decay."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        # The AV head learns with the encoder that it is the only reader of.
        rate = "av" if name.startswith(("av_encoder.", "av_head.")) else "fusion"
        is_decayed = parameter.ndim > 1 if config.decayed == "matrices" else not name.endswith("bias")
        groups.setdefault((rate, is_decayed), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "rate": rate,
                "lr": config.lr_av if rate == "av" else config.lr_fusion,
                "is_decayed": decayed,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (rate, decayed), members in groups.items()
        ],
        betas=(0.9, 0.95),
        fused=True,
    )


def clipped_parameters(parameters: dict[str, nn.Parameter], config: TrainingConfig) -> list[nn.Parameter]:
    """Those whose gradients are clipped."""
    return [p for name, p in parameters.items() if config.clip_av or part_of(name) != "av_encoder"]


def set_rates(optimizer: torch.optim.Optimizer, rates: dict[str, float], config: TrainingConfig, stage: Stage) -> None:
    """Set the learning rates of a step, ``fusion`` and ``av``, and the weight decay of its stage."""
    decay = config.weight_decay if stage.weight_decay is None else stage.weight_decay
    for group in optimizer.param_groups:
        group["lr"] = rates[group["rate"]]
        group["weight_decay"] = decay if group["is_decayed"] else 0.0


def schedule_of(
    config: TrialConfig, stage: Stage, steps_per_epoch: int, av_maes: Sequence[float]
) -> Callable[[int], dict[str, float]]:
    """The learning rates of a stage's next epoch, ``fusion`` and ``av``, by the optimiser steps taken in that stage.

    Args:
        config: The trial.
        stage: One of its stages.
        steps_per_epoch: Optimiser steps.
        av_maes: Validation MAE of each finished epoch of the stage, if it trains the audiovisual encoder alone.
    """
    training, curriculum = config.training, config.curriculum
    peaks = {"fusion": stage.lr or training.lr_fusion, "av": stage.lr or training.lr_av}
    if stage.is_av_alone and curriculum.av_schedule == "plateau":
        factor = plateau_factor(av_maes, curriculum.av_plateau)
        return lambda step: {name: peak * factor for name, peak in peaks.items()}
    epochs = training.cosine_epochs or stage.epochs if stage.is_fusion else stage.epochs
    steps = epochs * steps_per_epoch
    warmup = round(training.warmup_of(stage.epochs) * steps_per_epoch)
    return lambda step: {
        name: learning_rate(peak, step, steps, warmup, training.min_lr) for name, peak in peaks.items()
    }


def plateau_factor(maes: Sequence[float], patience: int) -> float:
    """What PyTorch's ``ReduceLROnPlateau`` makes of a learning rate of 1 after epochs of these validation errors.

    It goes through all of them, so that nothing of it needs a place in a checkpoint.
    """
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
    scheduler = ReduceLROnPlateau(optimizer, factor=_PLATEAU_FACTOR, patience=patience)
    for mae in maes:
        scheduler.step(mae)
    factor: float = optimizer.param_groups[0]["lr"]
    return factor


def learning_rate(peak: float, step: int, steps: int, warmup_steps: int, floor: float) -> float:
    """Linear warm-up to `peak` over `warmup_steps`, then a cosine to `floor` at `steps`; `step` counts from 0."""
    if step < warmup_steps:
        return peak * (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(1, steps - warmup_steps)
    low = min(floor, peak)
    return low + (peak - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def start_stage(model: DeepMLF, parameters: dict[str, nn.Parameter], stage: Stage) -> None:
    """Freeze what a stage does not train, and leave out MM blocks that have not joined yet.

    Frozen weights get no gradient, hence no decay, and keep their optimiser state; frozen modules also stop dropping
    out and updating statistics.
    """
    model.active_layers = model.fusion_layers[-(stage.active_blocks or 0) :]
    for name, parameter in parameters.items():
        parameter.requires_grad_(_is_trained(name, model, stage))
        parameter.grad = None
    model.train()
    for module in (model.av_encoder, model.mm_blocks, model.task_head):
        module.train(any(parameter.requires_grad for parameter in module.parameters()))


def count_in_use(model: DeepMLF, parameters: dict[str, nn.Parameter]) -> int:
    """Trained parameters, those of MM blocks that have not joined yet left out."""
    return sum(parameter.numel() for name, parameter in parameters.items() if _has_joined(name, model))


def _has_joined(name: str, model: DeepMLF) -> bool:
    module, *rest = name.split(".")
    return module != "mm_blocks" or int(rest[0]) in model.active_layers


def _is_trained(name: str, model: DeepMLF, stage: Stage) -> bool:
    part = part_of(name)
    if part not in stage.trains:
        return False
    if part == "heads":  # task_head, fusion_head, av_head and text_head, each with the loss of that name
        return name.partition(".")[0].removesuffix("_head") in stage.losses
    return _has_joined(name, model)
