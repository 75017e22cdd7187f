"""SoftPerm: a batch keeps its values but some features lose their order in time."""

import torch
from torch import Tensor, nn

from deepmlf.data.batch import to_device


class SoftPerm(nn.Module):
    """Permute randomly drawn features along time, in training only (DeepMLF, SoftPerm augmentation).

    One permutation of the time axis is drawn per batch; per sample and feature a Bernoulli(`p_features`) decides
    whether that feature takes the permuted values.

    Args:
        p_features: Probability per sample and feature.
        p_apply: Probability that a batch is augmented at all.
    """

    def __init__(self, p_features: float, p_apply: float = 1.0) -> None:
        super().__init__()
        self.p_features = p_features
        self.p_apply = p_apply

    @property
    def is_active(self) -> bool:
        """Whether it may change a batch: in training, with both probabilities above zero."""
        return self.training and self.p_features > 0 and self.p_apply > 0

    def forward(self, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """Augment [batch, time, features]; with a boolean `mask` [batch, time], padding stays where it is."""
        if not self.is_active or values.shape[1] < 2:
            return values
        if self.p_apply < 1 and torch.rand(()) >= self.p_apply:
            return values
        batch, time, features = values.shape
        # A rank per frame makes the batch's permutation; padding ranks last in place, so valid frames only swap
        # among themselves and the outcome does not depend on how far the batch is padded.
        order = to_device(torch.randperm(time), values.device).expand(batch, time)
        if mask is not None:
            order = torch.where(mask, order, time + torch.arange(time, device=values.device))
        permutation = order.argsort(dim=1)  # (B, T)
        permuted = values.gather(1, permutation[..., None].expand(-1, -1, features))
        drawn = to_device(torch.rand(batch, 1, features), values.device) < self.p_features
        return torch.where(drawn, permuted, values)
