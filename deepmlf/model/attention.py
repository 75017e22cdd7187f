"""How the frozen decoder's layers attend: over padded rows, or over packed ones that carry no padding.

A decoder layer treats every position alike except in attention. So the rows of a batch are packed one after another,
``[1, rows, width]``, and only attention sees them as sequences again. Hugging Face's layers ask for attention by name;
the name ``deepmlf`` hands their queries, keys and values to the `attend` argument of the layer's call.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface

from deepmlf.data.batch import to_device
from deepmlf.errors import LanguageModelError

ATTENTION_NAME = "deepmlf"

Attend = Callable[[Tensor, Tensor, Tensor, float], Tensor]
"""Maps query [batch, heads, rows, head_dim], key and value [batch, kv_heads, rows, head_dim] and the scale of the
scores to the attended values, [batch, heads, rows, head_dim]."""

KeysAndValues = tuple[Tensor, Tensor]
"""One layer's keys and values of packed rows, [1, kv_heads, rows, head_dim] each."""


_KNOWN = {"scaling", "dropout", "is_causal", "sliding_window", "use_cache"}
"""Options of a layer's attention that are honoured, or make no difference to a frozen model: no text is as long as its
window (`positions_of`)."""


def _attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: None, *, attend: Attend, **options: Any
) -> tuple[Tensor, None]:
    dropped = sorted(name for name in options.keys() - _KNOWN if options[name] is not None)
    if dropped:
        raise LanguageModelError(
            f"{type(module).__name__}: its attention asks for {dropped[0]}, which is not supported"
        )
    return attend(query, key, value, options["scaling"]).transpose(1, 2), None


AttentionInterface.register(ATTENTION_NAME, _attention)


def _scaled_dot_product(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Attention by `mask`, or causal without one. On a CPU it runs in float32, whose kernels are the faster ones."""
    dtype = query.dtype
    if query.device.type == "cpu":
        query, key, value = query.float(), key.float(), value.float()
    output = F.scaled_dot_product_attention(
        query,
        key,
        value,
        attn_mask=mask,
        is_causal=mask is None,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return output.to(dtype)


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
    """The plain path: padded sequences under a boolean mask [batch, 1, queries, keys], True where a query attends."""

    def __init__(self, mask: Tensor) -> None:
        self._mask = mask

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        return _scaled_dot_product(query, key, value, scale, self._mask)


def _spread(rows: Tensor, grid: "_Grid") -> Tensor:
    """Rows [rows, ...] at their slots of [batch · longest, ...], zero at the pads."""
    # Zeros, because attention weighs a pad's value by zero and zero times whatever lay there may be NaN.
    spread = rows.new_empty(grid.batch * grid.longest, *rows.shape[1:])
    return spread.index_copy_(0, grid.slots, rows).index_fill_(0, grid.pads, 0.0)


class _Unfold(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, grid: "_Grid") -> Tensor:
        ctx.grid = grid
        return _spread(rows, grid)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0].index_select(0, ctx.grid.slots), None


class _Fold(torch.autograd.Function):
    """Its gradient is a copy, where that of `index_select` would add up."""

    @staticmethod
    def forward(ctx: Any, spread: Tensor, grid: "_Grid") -> Tensor:
        ctx.grid = grid
        return spread.index_select(0, grid.slots)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _spread(gradients[0], ctx.grid), None


def _others(taken: Tensor, count: int) -> Tensor:
    """The numbers below `count` that are not taken."""
    return torch.ones(count, dtype=torch.bool).index_fill_(0, taken, False).nonzero()[:, 0]


class _Grid:
    """Where packed rows lie in right-padded sequences.

    Args:
        slots: [rows], each row's flat position in [batch, longest].
        pads: The positions that no row has.
        batch: Sequences.
        longest: Positions of each.
    """

    def __init__(self, slots: Tensor, pads: Tensor, batch: int, longest: int) -> None:
        self.slots, self.pads, self.batch, self.longest = slots, pads, batch, longest

    def unfold(self, packed: Tensor) -> Tensor:
        """[1, heads, rows, head_dim] to [batch, heads, longest, head_dim], zero beyond each sequence."""
        rows = packed[0].transpose(0, 1)  # (rows, H, D)
        spread: Tensor = _Unfold.apply(rows, self)
        return spread.unflatten(0, (self.batch, self.longest)).transpose(1, 2)

    def fold(self, sequences: Tensor) -> Tensor:
        """The inverse of `unfold`."""
        rows: Tensor = _Fold.apply(sequences.transpose(1, 2).flatten(0, 1), self)
        return rows.transpose(0, 1)[None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
        """Attention of packed rows within their sequences, causal or by `mask` [batch, 1, longest, longest]."""
        # Padding comes last in every sequence, so that causality alone hides it and no mask is needed.
        return self.fold(_scaled_dot_product(self.unfold(query), self.unfold(key), self.unfold(value), scale, mask))


def _joint_mask(sees_fusion: Tensor, lengths: Tensor, width: int) -> Tensor:
    """Causal mask [batch, 1, width, width] over [text ; fusion ; padding] of each utterance.

    Args:
        sees_fusion: [n, n], which fusion token sees which.
        lengths: [batch], text tokens of each utterance; the fusion tokens follow at once.
        width: Positions.
    """
    n, positions = len(sees_fusion), torch.arange(width, device=lengths.device)
    token = positions - lengths[:, None]  # (B, W), the fusion token there
    is_fusion, token = (token >= 0) & (token < n), token.clamp(0, n - 1)
    sees = sees_fusion[token[:, :, None], token[:, None]] | ~(is_fusion[:, :, None] & is_fusion[:, None])
    return (sees & (positions[:, None] >= positions))[:, None]


class Packing:
    """One batch's valid text tokens, packed in order, and its fusion tokens after them: no row is padding.

    All of it is laid out on the host and moved at once, so that a GPU is never waited for.

    Args:
        lengths: [batch], valid tokens of each utterance, on the host; one at least.
        seq: Positions of the padded text that the tokens come from.
        num_fusion_tokens: Fusion tokens per utterance.
        device: Where the rows are.
        fusion_mask: What `fusion_mask_of` returns.
    """

    def __init__(
        self,
        lengths: Tensor,
        seq: int,
        num_fusion_tokens: int,
        device: torch.device,
        fusion_mask: Tensor | None = None,
    ) -> None:
        batch, n, longest = len(lengths), num_fusion_tokens, int(lengths.max())
        sample = torch.arange(batch).repeat_interleave(lengths)
        ends = lengths.cumsum(0)
        position = torch.arange(len(sample)) - (ends - lengths)[sample]
        # [text ; fusion] of one utterance lie next to each other, the padding behind both.
        width = longest + n
        fusion = (torch.arange(batch) * width + lengths)[:, None] + torch.arange(n)
        text_slots = sample * longest + position
        joint_slots = torch.cat([sample * width + position, fusion.flatten()])
        parts = [
            position,
            ends - 1,
            sample * seq + position,
            text_slots,
            _others(text_slots, batch * longest),
            joint_slots,
            _others(joint_slots, batch * width),
            lengths,
        ]
        moved = to_device(torch.cat(parts), device).split([len(part) for part in parts])
        self.positions = moved[0]
        """[text rows], each text token's position in its utterance."""
        self.last_rows = moved[1]
        """[batch], the row of each utterance's last valid token."""
        self.text_rows = moved[2]
        """[text rows], where each token is in the padded text, [batch · seq]."""
        self._text = _Grid(moved[3], moved[4], batch, longest)
        self._joint = _Grid(moved[5], moved[6], batch, width)
        # A fusion token sees its utterance's text and the fusion tokens before it, those of another modality left out.
        tokens = torch.arange(n, device=device)
        sees_text = torch.arange(longest, device=device) < moved[7][:, None]
        sees_fusion = tokens[:, None] >= tokens if fusion_mask is None else to_device(fusion_mask, device)
        self._fusion_mask = torch.cat(
            [sees_text[:, None].expand(batch, n, longest), sees_fusion.expand(batch, n, n)], dim=2
        )[:, None]
        self._joint_mask = None if fusion_mask is None else _joint_mask(sees_fusion, moved[7], width)

    def unfold_text(self, text: Tensor) -> Tensor:
        """Packed text rows [rows, d] as sequences [batch, longest, d], zero beyond each."""
        return self._text.unfold(text[None, None])[:, 0]

    def fold_text(self, sequences: Tensor) -> Tensor:
        """The inverse of `unfold_text`."""
        return self._text.fold(sequences[:, None])[0, 0]

    def attend_text(self, kept: list[KeysAndValues]) -> Attend:
        """Attention among text rows alone; appends each layer's keys and values to `kept`."""

        def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            kept.append((key, value))
            return self._text.attend(query, key, value, scale)

        return attend

    def attend_fusion(self, text: KeysAndValues) -> Attend:
        """Attention of fusion rows [batch, heads, n, head_dim] over the text's kept keys and values and themselves."""

        def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
            keys, values = (
                torch.cat([self._text.unfold(of_text), own], dim=2)
                for of_text, own in zip(text, (key, value), strict=True)
            )
            return _scaled_dot_product(query, keys, values, scale, self._fusion_mask)

        return attend

    def attend_jointly(self, query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
        """Attention of [text rows ; fusion rows]; text never sees a fusion token, which comes after it."""
        return self._joint.attend(query, key, value, scale, self._joint_mask)
