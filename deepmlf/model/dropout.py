"""Dropout that on a CPU draws sixteen random bits per value: a quarter of the time of PyTorch's Bernoulli numbers."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_BITS = 16


def dropout(values: Tensor, p: float, training: bool) -> Tensor:
    """The function of ``torch.nn.functional.dropout``, from the same generator but by another stream of numbers.

    On a CPU `p` is taken to the nearest multiple of 2⁻¹⁶, and the scale of what is kept follows it.
    """
    kept = round((1 - p) * 2**_BITS)
    if training and kept == 2**_BITS:
        return values
    if not training or kept == 0 or values.device.type != "cpu":
        return F.dropout(values, p, training)
    # One draw of 64 bits serves four values.
    draws = torch.empty(-(-values.numel() * _BITS // 64), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: values.numel()].view(values.shape)
    noise = (bits < kept - 2 ** (_BITS - 1)).to(values.dtype).mul_(2**_BITS / kept)
    return values * noise


class Dropout(nn.Dropout):
    """``torch.nn.Dropout`` by `dropout`."""

    def forward(self, values: Tensor) -> Tensor:
        """[...] to the same."""
        return dropout(values, self.p, self.training)
