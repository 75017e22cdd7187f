"""A language model's head: next-token logits of its normed states."""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.modeling_outputs import BaseModelOutputWithPastAndCrossAttentions

_SAME = 1e-4
"""Relative to their size, logits of the same arithmetic in another order differ by less."""


class _Given(nn.Module):
    """Stands for a decoder whose last states are known."""

    @property
    def decoder(self) -> "_Given":
        """What some causal LMs call in place of the whole."""
        return self

    def forward(self, *args: Any, inputs_embeds: Tensor, **kwargs: Any) -> Any:
        """The states as they came."""
        return BaseModelOutputWithPastAndCrossAttentions(last_hidden_state=inputs_embeds)


class Head:
    """Makes logits as the causal LM does: by its matrix alone or, where it scales or caps them, by its own code.

    Args:
        model: The causal LM.
        is_plain: Whether it is known that its matrix is all there is; None looks.
    """

    def __init__(self, model: Any, is_plain: bool | None = None) -> None:
        output = model.get_output_embeddings()
        self.weight: Tensor = output.weight
        """[vocab, width]"""
        self.bias: Tensor | None = getattr(output, "bias", None)
        """[vocab]"""
        self._model = copy.copy(model)
        self._model.__dict__["_modules"] = model._modules | {model.base_model_prefix: _Given()}
        self.is_plain = bool(is_plain) or self._looks_plain()
        """Whether logits are linear in the states, by `weight` and `bias`."""

    def logits(self, states: Tensor) -> Tensor:
        """[..., width] to [..., vocab]."""
        if self.is_plain:
            return F.linear(states, self.weight, self.bias)
        logits: Tensor = self._model(inputs_embeds=states.reshape(1, -1, states.shape[-1])).logits
        return logits.view(*states.shape[:-1], -1)

    def _looks_plain(self) -> bool:
        states = torch.linspace(-2, 3, 2 * self.weight.shape[1]).to(self.weight).view(1, 2, -1)
        with torch.no_grad():
            expected, found = self._model(inputs_embeds=states).logits, F.linear(states, self.weight, self.bias)
        return bool((expected - found).abs().max() <= _SAME * expected.abs().max())
