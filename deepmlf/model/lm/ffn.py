"""The FFN of a decoder's layer, whatever it is called: what an MM block's FFN starts as."""

from typing import Any

from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from deepmlf.errors import LanguageModelError

_NAMES = ("mlp", "feed_forward", "ffn")
_WITH_RESIDUAL = ("BloomMLP", "MptMLP")
"""Classes whose forward pass takes the residual stream as a second argument and adds it."""

Linear = nn.Linear | Conv1D


class _WithoutResidual(nn.Module):
    """An FFN that would add the residual stream, without it."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, states: Tensor) -> Tensor:
        """[..., d] to [..., d]."""
        output: Tensor = self.mlp(states, states.new_zeros(()))
        return output


def ffn_of(layer: nn.Module) -> nn.Module:
    """The FFN of a decoder's layer, mapping [..., d] to [..., d], sharing its weights.

    Raises:
        LanguageModelError: If it has none of its own, or a mixture of experts.
    """
    found: Any = next(
        (getattr(layer, name) for name in _NAMES if isinstance(getattr(layer, name, None), nn.Module)), None
    )
    if found is None and all(hasattr(layer, name) for name in ("fc1", "activation_fn", "fc2")):
        parts: list[Any] = [layer.fc1, layer.activation_fn, layer.fc2]  # OPT's and XGLM's lie bare in the layer
        found = nn.Sequential(*parts)
    if found is None:
        raise LanguageModelError(f"a {type(layer).__name__} has no FFN of its own, of which an MM block's is a copy")
    in_linears = {id(p) for module in found.modules() if isinstance(module, Linear) for p in module.parameters()}
    has_experts = any("experts" in name for name, _ in found.named_modules())
    if has_experts or any(parameter.ndim > 1 and id(parameter) not in in_linears for parameter in found.parameters()):
        raise LanguageModelError(
            f"the FFN of a {type(layer).__name__} has weights outside of linear maps, as a mixture of experts has, and "
            "an MM block's would be a copy of it"
        )
    return _WithoutResidual(found) if type(found).__name__ in _WITH_RESIDUAL else found


def linears_of(ffn: nn.Module) -> dict[str, tuple[Any, int, int]]:
    """Its linear maps by their names, with their numbers of inputs and outputs."""
    return {
        name: (module, *(module.weight.shape if isinstance(module, Conv1D) else reversed(module.weight.shape)))
        for name, module in ffn.named_modules()
        if isinstance(module, Linear)
    }
