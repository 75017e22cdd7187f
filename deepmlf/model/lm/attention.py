"""How the frozen decoder's layers attend: who sees whom, and by which kernel.

Hugging Face's layers ask for attention by name (`deepmlf.model.lm.decoder`); what they ask for is a `Scores`, what
answers is an `Attend`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Scores:
    """How a layer weighs what it attends to."""

    scale: float
    """Of the products of queries and keys."""
    window: int | None = None
    """A query sees keys less than so many positions before it; None: all."""
    softcap: float | None = None
    """Scores s are c·tanh(s/c)."""
    sinks: Tensor | None = None
    """[heads], a score that takes its share of the softmax and gives nothing."""


Attend = Callable[[Tensor, Tensor, Tensor, Scores], Tensor]
"""Maps query [batch, heads, rows, head_dim], key and value [batch, kv_heads, rows, head_dim] and the form of scores to
the attended values, [batch, heads, rows, head_dim]."""


def scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, scores: Scores, mask: Tensor | None = None) -> Tensor:
    """Attention by `mask`, or causal without one. On a CPU it runs in float32, whose kernels are the faster ones."""
    dtype = query.dtype
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    if scores.softcap is not None or scores.sinks is not None:
        return _weighed(query, key, value, scores, mask).to(dtype)
    output = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scores.scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.to(dtype)


def _weighed(query: Tensor, key: Tensor, value: Tensor, scores: Scores, mask: Tensor | None) -> Tensor:
    """The same, written out, for what no kernel has."""
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    products = query @ key.transpose(-2, -1) * scores.scale
    if scores.softcap is not None:
        products = scores.softcap * torch.tanh(products / scores.softcap)
    if mask is None:
        mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=query.device).tril()
    products = products.masked_fill(~mask, -math.inf)
    if scores.sinks is not None:
        sinks = scores.sinks.to(products.dtype)[:, None, None].expand(len(products), -1, products.shape[2], 1)
        products = torch.cat([products, sinks], dim=-1)
    return products.softmax(-1)[..., : key.shape[2]] @ value


def within(window: int, queries: Tensor, keys: Tensor) -> Tensor:
    """Boolean mask [batch, 1, queries, keys] of a sliding window, from positions [batch, queries] and [batch, keys]."""
    return (queries[:, :, None] - keys[:, None] < window)[:, None]


def narrowed(mask: Tensor, window: int, positions: Tensor) -> Tensor:
    """A square mask cut to a sliding window; a pad, whose output is unused, sees itself, for nothing would give NaN."""
    itself = torch.eye(mask.shape[-1], dtype=torch.bool, device=mask.device)
    return mask & within(window, positions, positions) | itself


def with_a_token(attention_mask: Tensor) -> Tensor:
    """The boolean mask [batch, seq], in which an utterance without any token has its first one."""
    mask = attention_mask.bool()
    return torch.cat([mask[:, :1] | ~mask.any(1, keepdim=True), mask[:, 1:]], dim=1)


def fusion_mask_of(group_sizes: tuple[int, int, int]) -> Tensor | None:
    """Which fusion token sees which, a boolean [n, n] on the host; None if each sees all before it.

    Audio tokens and vision tokens do not see each other, shared ones see all before them. For one, two and one of them
    (rows are queries)::

        a x . . .
        v . x . .
        v . x x .
        s x x x x
    """
    audio, vision, _ = group_sizes
    if not (audio and vision):
        return None
    mask = torch.ones(sum(group_sizes), sum(group_sizes), dtype=torch.bool).tril()
    mask[audio : audio + vision, :audio] = False
    return mask


def attention_mask_of(text_mask: Tensor, num_fusion_tokens: int, fusion_mask: Tensor | None = None) -> Tensor:
    """Boolean mask [batch, 1, seq+n, seq+n] over [text ; fusion], True where a query may attend.

    Causal, pad keys hidden. For two text tokens, one pad and two fusion tokens (rows are queries)::

        t x . . . .      text sees earlier text,
        t x x . . .      never a fusion token
        _ x x . . .      (a pad's own output is unused)
        f x x . x .      a fusion token sees the valid text
        f x x . x x      and the fusion tokens before it, or those that `fusion_mask` [n, n] lets it see

    The first text token must be valid, or a pad before it would see nothing and softmax would give NaN.
    """
    batch, seq = text_mask.shape
    keys = torch.cat([text_mask.bool(), text_mask.new_ones(batch, num_fusion_tokens, dtype=torch.bool)], dim=1)
    size = keys.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=keys.device).tril()
    if fusion_mask is not None:
        causal[seq:, seq:] = fusion_mask
    return (causal & keys[:, None, :])[:, None]


class MaskedAttention:
    """The plain path: padded sequences under a boolean mask.

    Args:
        mask: [batch, 1, positions, positions], True where a query attends.
        positions: [positions], of each row of a sequence.
    """

    def __init__(self, mask: Tensor, positions: Tensor) -> None:
        self._mask, self._positions = mask, positions[None]

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        mask = self._mask
        if scores.window is not None:
            mask = narrowed(mask, scores.window, self._positions)
        return scaled_dot_product(query, key, value, scores, mask)
