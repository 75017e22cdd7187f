"""Counts what a training step would launch on a CUDA device, and where it would wait for one, without any.

Tensors on the device are fake: they have shapes, types and a device, no numbers. What mixes devices or types fails as
it would there. Each operation of PyTorch that is not a view counts as one kernel; some launch several on a GPU, a few
none.
"""

import collections
import contextlib
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_FREE = {
    "detach", "alias", "set_", "lift_fresh", "device", "is_pinned", "sym_size", "_unsafe_view", "_reshape_alias",
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "resize_",
}  # fmt: skip
"""Operations that launch nothing: views that are not marked as such, and memory that nobody fills."""
_WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal"}
"""Operations whose result the host must have before it goes on."""
aten = torch.ops.aten


def _is_view(operation: Any) -> bool:
    return any(returned.alias_info and not returned.alias_info.is_write for returned in operation._schema.returns)


class Counter(TorchDispatchMode):
    """What runs under it, by the names of PyTorch's operations."""

    def __init__(self) -> None:
        super().__init__()
        self.fake = FakeTensorMode(allow_non_fake_inputs=True)
        self.kernels: collections.Counter[str] = collections.Counter()
        self.waits: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = operation._schema.name.partition("::")[2]
        on_device = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, FakeTensor)]
        target = kwargs.get("device")
        to_device = target is not None and torch.device(target).type == "cuda"
        if name in ("pin_memory", "_pin_memory"):
            return args[0]
        if not on_device and not to_device:
            with unset_fake_temporarily():
                return operation(*args, **kwargs)
        if on_device and name == "_to_copy" and target is not None and not to_device:
            self.waits["copy to the host"] += 1
            with unset_fake_temporarily():
                return torch.zeros(on_device[0].shape, dtype=kwargs.get("dtype") or on_device[0].dtype)
        if name in _WAITS:
            self.waits[name] += 1
            if name == "_local_scalar_dense":
                return 1.0
        if name not in _FREE and not _is_view(operation):
            self.kernels[name] += 1
        return operation(*pytree.tree_map(self._fake, args), **pytree.tree_map(self._fake, kwargs))

    def _fake(self, leaf: Any) -> Any:
        is_real = isinstance(leaf, torch.Tensor) and not isinstance(leaf, FakeTensor)
        return self.fake.from_tensor(leaf) if is_real else leaf


class _Attention(torch.overrides.TorchFunctionMode):
    """Attention by the kernel that CUDA would take; a fake tensor takes the one that is written out."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function is F.scaled_dot_product_attention and args[0].device.type == "cuda":
            return _attention(*args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    if torch.is_autocast_enabled("cuda"):
        query, key, value = (states.to(torch.get_autocast_dtype("cuda")) for states in (query, key, value))
    if enable_gqa and query.shape[1] != key.shape[1]:
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    if attn_mask is None and query.dtype != torch.float32:
        return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill_(~attn_mask, -math.inf)
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).expand(*query.shape[:3], key.shape[2])
    needs_more = torch.is_grad_enabled()
    return aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, needs_more, dropout_p, is_causal, scale=scale
    )[0]


def _moved(module: Any, function: Any, recurse: bool = True) -> Any:
    """``Module._apply`` that makes new parameters: a real one cannot become a fake one in place."""
    for child in module.children():
        child._apply(function)
    for name, parameter in module._parameters.items():
        if parameter is not None:
            with torch.no_grad():
                moved = function(parameter)
            if moved is not parameter:
                module._parameters[name] = torch.nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = function(buffer)
    return module


@contextlib.contextmanager
def counted() -> Iterator[Counter]:
    """Count what runs in the block; PyTorch believes that there is a CUDA device, and stays so afterwards."""
    import torch.cuda.amp.common
    import torch.nn.utils.clip_grad
    import torch.utils._foreach_utils

    def has_foreach(tensors: Any, device: Any) -> bool:
        return True

    torch.utils._foreach_utils._has_foreach_support = has_foreach
    torch.nn.utils.clip_grad._has_foreach_support = has_foreach  # type: ignore[attr-defined]
    torch.cuda.amp.common.amp_definitely_not_available = lambda: False
    torch.cuda.is_bf16_supported = lambda *arguments: True
    torch.cuda.is_available = lambda: False  # what asks so would look at a real one
    torch.Tensor.pin_memory = lambda tensor: tensor  # type: ignore[assignment, method-assign]
    torch.nn.Module._apply = _moved  # type: ignore[assignment, method-assign]
    torch._C._ensureCUDADeviceGuardSet()
    counter = Counter()
    with counter.fake, counter, _Attention():
        yield counter
