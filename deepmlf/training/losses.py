"""The loss of DeepMLF: that of the labels on every head plus the next-token loss."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from deepmlf.config.trial import TrainingConfig
from deepmlf.model.deepmlf import DeepMLF, DeepMLFOutput
from deepmlf.training.ulgm.labels import Generated

# Positions at most whose logits are held at a time. In float32 a CPU multiplies fewer rows more slowly; in bfloat16 it
# makes no difference, and glibc keeps what is freed up to 32 MiB only.
_LOGITS_CHUNK, _LOGITS_CHUNK_BFLOAT16_CPU = 352, 152


@dataclass(frozen=True)
class LossWeights:
    """λ_f, λ_av, λ_t and γ."""

    fusion: float
    av: float
    text: float
    lm: float

    @classmethod
    def from_config(cls, config: TrainingConfig) -> "LossWeights":
        return cls(config.loss_fusion, config.loss_av, config.loss_text, config.loss_lm)


def next_token_targets(input_ids: Tensor, mask: Tensor, max_text_len: int, pad_token_id: int) -> Tensor:
    """The token each text position must predict, [batch, seq].

    The last valid token predicts the pad token, however far the batch is padded; in a row that fills
    `max_text_len` it predicts id 0 (as the authors' code does).
    """
    targets = F.pad(input_ids[:, 1:], (0, 1), value=pad_token_id)
    lengths = mask.sum(1, keepdim=True)
    last = torch.where(lengths == max_text_len, 0, pad_token_id)
    return targets.scatter_(1, (lengths - 1).clamp(min=0), last.to(targets.dtype))


class _FrozenCrossEntropy(torch.autograd.Function):
    """Mean cross-entropy of a frozen LM head, a chunk of positions at a time.

    The gradient of each chunk is taken while its logits are there, so that the logits of a whole batch never are. All
    chunks share the memory of one.
    """

    @staticmethod
    def forward(
        ctx: Any, states: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, needs_gradient: bool
    ) -> Tensor:
        total = states.new_zeros((), dtype=torch.float32)
        ctx.gradient = torch.empty_like(states) if needs_gradient else None
        is_small = weight.dtype == torch.bfloat16 and weight.device.type == "cpu"
        most = _LOGITS_CHUNK_BFLOAT16_CPU if is_small else _LOGITS_CHUNK
        # Even chunks: a small last one would multiply at half the speed.
        size = -(-len(states) // -(-len(states) // most))
        memory = weight.new_empty(size, len(weight))
        is_float = weight.dtype == torch.float32
        memory_of_probabilities = memory if is_float else torch.empty_like(memory, dtype=torch.float32)
        for start in range(0, len(states), size):
            part = states[start : start + size].to(weight.dtype)
            target = targets[start : start + size, None]
            logits = memory[: len(part)]
            if bias is None:
                torch.mm(part, weight.t(), out=logits)
            else:
                torch.addmm(bias, part, weight.t(), out=logits)
            score, highest = logits.gather(1, target).float(), logits.amax(-1, keepdim=True).float()
            probabilities = memory_of_probabilities[: len(part)]
            torch.softmax(logits, -1, torch.float32, out=probabilities)
            # log Σ exp from the likeliest token, whose probability cannot underflow.
            total += (highest - probabilities.amax(-1, keepdim=True).log() - score).sum()
            if ctx.gradient is not None:
                probabilities.scatter_add_(1, target, torch.full_like(score, -1.0))
                ctx.gradient[start : start + size] = logits.copy_(probabilities) @ weight
        return total / len(states)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        return ctx.gradient * (gradients[0] / len(ctx.gradient)).to(ctx.gradient.dtype), None, None, None, None


def lm_loss(model: DeepMLF, output: DeepMLFOutput, input_ids: Tensor, pad_token_id: int) -> Tensor:
    """Mean next-token cross-entropy over valid text positions; logits are made for those alone, in chunks."""
    targets = next_token_targets(input_ids, output.text_mask, model.config.max_text_len, pad_token_id)
    states, head = output.text_states, model.language_model.head
    expected = targets.flatten().index_select(0, output.text_rows)
    if head.scale is None:  # capped logits
        return F.cross_entropy(model.language_model.logits(states).float(), expected)
    loss: Tensor = _FrozenCrossEntropy.apply(
        states if head.scale == 1.0 else states * head.scale,
        expected,
        head.weight,
        head.bias,
        states.requires_grad and torch.is_grad_enabled(),
    )
    return loss


def prediction_loss(outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Mean loss of a head: L1 of numbers, cross-entropy of classes.

    Args:
        outputs: [batch, 1] or [batch, classes], or with a dimension between of predictions for the same target.
        targets: [batch, 1], numbers or positions of classes.
        weights: [batch, 1], of numbers: what each utterance's error counts.
    """
    shape = len(targets), *[1] * (outputs.ndim - 1)
    targets = targets.view(shape).expand(*outputs.shape[:-1], 1)
    if weights is not None:
        return (weights.view(shape) * (outputs - targets).abs()).mean()
    if outputs.shape[-1] == 1:
        return F.l1_loss(outputs, targets)
    return F.cross_entropy(outputs.flatten(0, -2), targets.flatten().long())


def compute_losses(
    model: DeepMLF,
    output: DeepMLFOutput,
    input_ids: Tensor,
    targets: Tensor,
    weights: LossWeights,
    *,
    pad_token_id: int,
    generated: Mapping[str, Generated] | None = None,
) -> dict[str, Tensor]:
    """All loss terms and their weighted ``total``, scalars.

    L = L(task) + λ_f·L(fusion, mean over tokens) + λ_av·L(av) + λ_t·L(text) + γ·CE, where L is L1 (the authors') or, of
    classes, cross-entropy. A term of weight zero is computed all the same, for the curves, except CE of the next token,
    which is costly. Without fusion tokens there is no term of theirs.

    Args:
        model: For its LM head and its longest text.
        output: The forward pass of the batch.
        input_ids: [batch, seq].
        targets: [batch, 1].
        weights: λ and γ.
        pad_token_id: What the last token of a text predicts.
        generated: Labels and their weights by auxiliary head; None trains all of them on `targets`.
    """
    losses = {"task": prediction_loss(output.task, targets)}
    total = losses["task"]
    for name in ("fusion", "av", "text"):
        outputs = getattr(output, name)
        if outputs is None:  # no fusion tokens
            continue
        own = Generated(targets, None) if generated is None else generated[name]
        losses[name] = prediction_loss(outputs, own.labels, own.weights)
        total = total + getattr(weights, name) * losses[name]
    if weights.lm > 0:
        losses["lm"] = lm_loss(model, output, input_ids, pad_token_id)
        total = total + weights.lm * losses["lm"]
    return losses | {"total": total}
