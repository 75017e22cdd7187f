"""A batch without padding: its rows one after another, and the sequences that attention sees them as.

A decoder layer treats every position alike except in attention. So the rows of a batch are packed,
``[1, rows, width]``, and only attention sees them as sequences again.
"""

from typing import Any, TypeGuard

import torch
from torch import Tensor

from deepmlf.data.batch import to_device
from deepmlf.model.lm.attention import Attend, Scores, narrowed, scaled_dot_product, within

KeysAndValues = tuple[Tensor, Tensor]
"""One layer's keys and values of packed rows, [1, kv_heads, rows, head_dim] each."""


class _Unfold(torch.autograd.Function):
    """Pads have no gradient of their own: what they come to is dropped, and no row looks at them."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, grid: "_Grid") -> Tensor:
        ctx.grid = grid
        return rows.index_select(0, grid.rows)

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
        rows, grid = gradients[0], ctx.grid
        spread = rows.new_zeros(grid.batch * grid.longest, *rows.shape[1:])
        return spread.index_copy_(0, grid.slots, rows), None


def _rows_at(slots: Tensor, lengths: Tensor, longest: int) -> Tensor:
    """[batch · longest], which row is where; at a pad the last one of its sequence.

    So a pad holds a number, which attention may weigh by zero, and nothing of another sequence.
    """
    rows = torch.empty(len(lengths) * longest, dtype=torch.long).index_copy_(0, slots, torch.arange(len(slots)))
    places = torch.arange(longest).minimum(lengths[:, None] - 1)
    return rows.view(len(lengths), longest).gather(1, places).flatten()


class _Grid:
    """Where packed rows lie in right-padded sequences.

    Args:
        slots: [rows], each row's flat position in [batch, longest].
        rows: What `_rows_at` returned for them.
        batch: Sequences.
        longest: Positions of each.
    """

    def __init__(self, slots: Tensor, rows: Tensor, batch: int, longest: int) -> None:
        self.slots, self.rows, self.batch, self.longest = slots, rows, batch, longest

    def unfold(self, packed: Tensor) -> Tensor:
        """[1, heads, rows, head_dim] to [batch, heads, longest, head_dim]; beyond each sequence is its last row."""
        rows = packed.squeeze(0).transpose(0, 1)  # (rows, H, D)
        spread: Tensor = _Unfold.apply(rows, self)
        return spread.unflatten(0, (self.batch, self.longest)).transpose(1, 2)

    def fold(self, sequences: Tensor) -> Tensor:
        """The inverse of `unfold`."""
        rows: Tensor = _Fold.apply(sequences.transpose(1, 2).flatten(0, 1), self)
        return rows.transpose(0, 1)[None]

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores, mask: Tensor | None = None) -> Tensor:
        """Attention of packed rows within their sequences, causal or by `mask` [batch, 1, longest, longest]."""
        # Padding comes last in every sequence, so that causality alone hides it and no mask is needed.
        return self.fold(scaled_dot_product(self.unfold(query), self.unfold(key), self.unfold(value), scores, mask))


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
        fusion_start: Position of the first fusion token; no text reaches so far.
        fusion_mask: What `fusion_mask_of` returns.
    """

    def __init__(
        self,
        lengths: Tensor,
        seq: int,
        num_fusion_tokens: int,
        device: torch.device,
        *,
        fusion_start: int,
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
            _rows_at(text_slots, lengths, longest),
            joint_slots,
            _rows_at(joint_slots, lengths + n, width),
            lengths,
        ]
        moved = to_device(torch.cat(parts), device).split([len(part) for part in parts])
        self.batch = batch
        self._fusion_start, self._span = fusion_start, fusion_start + n if n else longest
        self.positions = moved[0]
        """[text rows], each text token's position in its utterance."""
        self.last_rows = moved[1]
        """[batch], the row of each utterance's last valid token."""
        self.text_rows = moved[2]
        """[text rows], where each token is in the padded text, [batch · seq]."""
        self.fusion_positions = torch.arange(fusion_start, fusion_start + n, device=device)
        """[n]"""
        self._text = _Grid(moved[3], moved[4], batch, longest)
        self._joint = _Grid(moved[5], moved[6], batch, width)
        self._lengths = moved[7]
        # A fusion token sees its utterance's text and the fusion tokens before it, those of another modality left out.
        tokens = torch.arange(n, device=device)
        sees_text = torch.arange(longest, device=device) < self._lengths[:, None]
        sees_fusion = tokens[:, None] >= tokens if fusion_mask is None else to_device(fusion_mask, device)
        self._seen_by_fusion = torch.cat(
            [sees_text[:, None].expand(batch, n, longest), sees_fusion.expand(batch, n, n)], dim=2
        )[:, None]
        self._joint_mask = None if fusion_mask is None else _joint_mask(sees_fusion, self._lengths, width)

    def joint_positions(self) -> Tensor:
        """Positions of [text rows ; fusion rows], [rows]."""
        return torch.cat([self.positions, self.fusion_positions.repeat(self.batch)])

    def unfold_text(self, text: Tensor) -> Tensor:
        """Packed text rows [rows, d] as sequences [batch, longest, d]; beyond each is its last row."""
        return self._text.unfold(text[None, None]).squeeze(1)

    def fold_text(self, sequences: Tensor) -> Tensor:
        """The inverse of `unfold_text`."""
        return self._text.fold(sequences[:, None]).squeeze((0, 1))

    def unfold_joint(self, rows: Tensor) -> Tensor:
        """[text rows ; fusion rows] [rows, d] as sequences [batch, longest + n, d]; beyond each is its last row."""
        return self._joint.unfold(rows[None, None]).squeeze(1)

    def fold_joint(self, sequences: Tensor) -> Tensor:
        """The inverse of `unfold_joint`."""
        return self._joint.fold(sequences[:, None]).squeeze((0, 1))

    def sequence_positions(self) -> Tensor:
        """Positions [batch, longest + n] of what `unfold_joint` returns; beyond each sequence that of its end."""
        places = torch.arange(self._joint.longest, device=self._lengths.device)
        token = places - self._lengths[:, None]
        return torch.where(token < 0, places, self._fusion_start + token.clamp(max=len(self.fusion_positions) - 1))

    def attend_text(self, kept: list[KeysAndValues]) -> Attend:
        """Attention among text rows alone; appends each layer's keys and values to `kept`."""

        def attend(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
            kept.append((key, value))
            mask, window = None, scores.window
            if window is not None and window < self._text.longest:
                places = torch.arange(self._text.longest, device=query.device)
                mask = narrowed((places[:, None] >= places)[None, None], window, places[None])
            return self._text.attend(query, key, value, scores, mask)

        return attend

    def attend_fusion(self, kept: list[KeysAndValues]) -> Attend:
        """Attention of fusion rows [batch, heads, n, head_dim] over the text's keys and values and themselves.

        Args:
            kept: Of the text, layer by layer in the order in which they are run.
        """
        layers = iter(kept)

        def attend(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
            keys, values = (
                torch.cat([self._text.unfold(of_text), own], dim=2)
                for of_text, own in zip(next(layers), (key, value), strict=True)
            )
            mask = self._seen_by_fusion
            if self._narrows(scores.window):
                places = torch.arange(self._text.longest, device=query.device)
                seen = torch.cat([places, self.fusion_positions])
                mask = mask & within(scores.window, self.fusion_positions[None], seen[None])
            return scaled_dot_product(query, keys, values, scores, mask)

        return attend

    def attend_jointly(self, query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
        """Attention of [text rows ; fusion rows]; text never sees a fusion token, which comes after it."""
        mask = self._joint_mask
        if self._narrows(scores.window):
            places = torch.arange(self._joint.longest, device=query.device)
            causal = (places[:, None] >= places)[None, None] if mask is None else mask
            mask = narrowed(causal, scores.window, self.sequence_positions())
        return self._joint.attend(query, key, value, scores, mask)

    def _narrows(self, window: int | None) -> TypeGuard[int]:
        """Whether a sliding window hides anything: a fusion token stands far behind a short text."""
        return window is not None and window < self._span
