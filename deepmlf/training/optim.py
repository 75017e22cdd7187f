"""AdamW with DeepMLF's parameter groups, and its learning-rate schedule."""

import math

import torch
from torch import nn

from deepmlf.config import Part, Stage, TrainingConfig
from deepmlf.model.deepmlf import DeepMLF


def part_of(name: str) -> Part:
    """The part of the model that a parameter belongs to."""
    if name.startswith("av_encoder."):
        return "av_encoder"
    return "fusion" if name.startswith(("fusion_tokens", "mm_blocks.")) else "heads"


def trained_parameters(model: DeepMLF) -> dict[str, nn.Parameter]:
    """Parameters that any stage may train: all but the frozen copies of the language model's weights."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def make_optimizer(parameters: dict[str, nn.Parameter], config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW, β=(0.9, 0.95), with groups by learning rate and decay; biases, norms and gates are not decayed."""
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        # The AV head learns with the encoder that it is the only reader of.
        rate = "av" if name.startswith(("av_encoder.", "av_head.")) else "fusion"
        groups.setdefault((rate, parameter.ndim > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": members,
                "rate": rate,
                "lr": config.lr_av if rate == "av" else config.lr_fusion,
                "weight_decay": config.weight_decay if decayed else 0.0,
            }
            for (rate, decayed), members in groups.items()
        ],
        betas=(0.9, 0.95),
        fused=True,
    )


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
