"""What training does to its inputs: SoftPerm, and noise and dropout on the embeddings of text."""

import torch
from torch import Tensor, nn

from deepmlf.config.model import ModelConfig
from deepmlf.data.batch import to_device
from deepmlf.model.dropout import Dropout


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


class EmbeddingNoise(nn.Module):
    """NEFTune: uniform noise on embeddings, in training only (arXiv:2310.05914).

    Each feature of a text of L tokens of width d moves by at most α/√(L·d), so that the noise of a whole text has the
    same expected norm however long it is.

    Args:
        alpha: α; 0 adds nothing.
    """

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """[batch, seq, d] to the same; L are a text's valid tokens by the boolean `mask` [batch, seq]."""
        if not self.training or self.alpha == 0:
            return values
        # By a text's own length: how far its batch is padded makes no difference.
        bound = self.alpha / (mask.sum(1) * values.shape[-1]).sqrt()
        noise = torch.empty_like(values).uniform_(-1, 1)
        return values + noise * bound[:, None, None].to(values.dtype)


class TextAugmentation(nn.Module):
    """All that training does to text embeddings: SoftPerm, then noise, then dropout.

    In this order what dropout has set to zero stays zero. Random numbers come from PyTorch's generators, whose states
    checkpoints hold.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.softperm = SoftPerm(config.softperm_text_features, config.softperm_text_apply)
        self.noise = EmbeddingNoise(config.embedding_noise)
        self.dropout = Dropout(config.embedding_dropout)

    @property
    def is_active(self) -> bool:
        """Whether it may change a batch: what the language model makes of the text is then no other epoch's."""
        return self.softperm.is_active or (self.training and (self.noise.alpha > 0 or self.dropout.p > 0))

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Augment [batch, seq, d]; padding, which the boolean `mask` [batch, seq] leaves out, is never read."""
        return self.dropout(self.noise(self.softperm(embedded, mask), mask))
