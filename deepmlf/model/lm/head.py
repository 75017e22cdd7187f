"""A language model's head: next-token logits of its normed states."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

_SAME = {torch.float32: 1e-4, torch.bfloat16: 0.02, torch.float16: 0.01}
"""Relative to their size, logits of the same arithmetic in another order differ by less."""


class _Output(BaseModelOutputWithPastAndCrossAttentions):
    """Last states, and nothing under any other name."""

    def __getattr__(self, name: str) -> None:
        return None


class _Given(nn.Module):
    """Stands for a decoder whose last states are known; in all else it is the decoder."""

    def __init__(self, decoder: nn.Module) -> None:
        super().__init__()
        self.__dict__["_lends"] = decoder  # not registered: it lends a setting, no weights

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_lends"], name)

    @property
    def decoder(self) -> "_Given":
        """What some causal LMs call in place of the whole."""
        return self

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> Any:
        """The states as they came."""
        return _Output(last_hidden_state=inputs_embeds)


class Head:
    """Makes logits as the causal LM does: by its matrix alone or, where it scales or caps them, by its own code.

    Args:
        model: The causal LM.
        is_plain: Whether it is known that its matrix is all there is; if not, it is looked at.
    """

    def __init__(self, model: Any, *, is_plain: bool) -> None:
        output = model.get_output_embeddings()
        self.weight: Tensor = output.weight
        """[vocab, width]"""
        self.bias: Tensor | None = getattr(output, "bias", None)
        """[vocab]"""
        self._model = copy.copy(model)
        self._model.__dict__["_modules"] = model._modules | {model.base_model_prefix: _Given(model.base_model)}
        self.scale: float | None = 1.0 if is_plain else self._found_scale()
        """Logits are linear in the states times this, by `weight` and `bias`; None if they are not linear."""

    def logits(self, states: Tensor) -> Tensor:
        """[..., width] to [..., vocab]."""
        if self.scale is not None:
            return F.linear(states if self.scale == 1.0 else states * self.scale, self.weight, self.bias)
        logits: Tensor = self._model(inputs_embeds=states.reshape(1, -1, states.shape[-1])).logits
        return logits.view(*states.shape[:-1], -1)

    def _found_scale(self) -> float | None:
        states = torch.linspace(-2, 3, 2 * self.weight.shape[1]).to(self.weight).view(1, 2, -1)
        with torch.no_grad():
            theirs, ours = self._model(inputs_embeds=states).logits.float(), F.linear(states, self.weight).float()
            bias = 0.0 if self.bias is None else self.bias.float()
            scale = float((theirs - bias).flatten() @ ours.flatten() / ours.square().sum())
            is_linear = (theirs - bias - scale * ours).abs().max() <= _SAME[self.weight.dtype] * theirs.abs().max()
        if not is_linear:
            return None
        return 1.0 if abs(scale - 1) <= _SAME[self.weight.dtype] else scale
