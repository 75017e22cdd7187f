"""Text and fusion tokens on their way through the frozen layers and the MM blocks between them.

Text never sees a fusion token, and up to the first MM block it depends on nothing trained. So it runs there alone,
without gradients and once for all epochs (`text_prefix`); fusion tokens then attend to the keys and values that it
left behind, and from the first block on both run together (`decode_packed`). A language model that lets tokens see
each other elsewhere than in attention, or attends by its own code, runs whole sequences (`decode_sequences`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from deepmlf.data.batch import to_device
from deepmlf.model.av_encoder import AudioVisualStates
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.attention import MaskedAttention, attention_mask_of
from deepmlf.model.lm.packing import KeysAndValues, Packing
from deepmlf.model.mm_block import MMBlock

Blocks = Mapping[int, MMBlock]
"""The active MM blocks by the layer that each follows, from the lowest."""


@dataclass(frozen=True)
class TextPrefix:
    """The packed text of a batch after the first fused LM layer, and what that layer and those below left behind."""

    states: Tensor
    """[rows, d]"""
    keys_and_values: list[KeysAndValues]
    """One pair for each layer up to the first fused one."""

    def to(self, device: torch.device) -> "TextPrefix":
        """The same prefix on a device."""
        pairs = [(to_device(keys, device), to_device(values, device)) for keys, values in self.keys_and_values]
        return TextPrefix(to_device(self.states, device), pairs)


@torch.no_grad()
def text_prefix(lm: LanguageModel, first: int, embedded: Tensor, packing: Packing) -> TextPrefix:
    """Embedded text [batch, seq, d] after layer `first`."""
    rows = embedded.flatten(0, 1).index_select(0, packing.text_rows)[None]
    kept: list[KeysAndValues] = []
    states, _ = lm.decoder.run(rows, packing.positions[None], range(first + 1), attend=packing.attend_text(kept))
    return TextPrefix(states.squeeze(0), kept)


def text_alone(lm: LanguageModel, rows: Tensor, packing: Packing) -> Tensor:
    """Embedded text rows [rows, d] to the normed last states of the language model as it is.

    Args:
        lm: The language model.
        rows: Texts one after another, without padding.
        packing: Of them, without fusion tokens.
    """
    every = range(lm.num_layers)
    if lm.packs:
        return lm.decoder.run(rows[None], packing.positions[None], every, attend=packing.attend_text([]))[1][0]
    sequences = packing.unfold_text(rows)
    positions = torch.arange(sequences.shape[1], device=rows.device)[None].expand(len(sequences), -1)
    return packing.fold_text(lm.decoder.run(sequences, positions, every, attend=None)[1])


def decode_packed(
    lm: LanguageModel, blocks: Blocks, tokens: Tensor, prefix: TextPrefix, packing: Packing, av: AudioVisualStates
) -> tuple[Tensor, Tensor]:
    """Text from its prefix on to the end.

    Args:
        lm: Must pack.
        blocks: At least one.
        tokens: Fusion tokens [n, d].
        prefix: Up to the layer of the first block.
        packing: Of the batch.
        av: Its audiovisual states.

    Returns:
        Normed last states of text [rows, d] and fusion tokens [batch, n, d].
    """
    first, text = next(iter(blocks)), prefix.states
    rest = range(first + 1, lm.num_layers)
    fusion = tokens.to(text.dtype).expand(packing.batch, -1, -1)
    if not len(tokens):
        rows = _without_tokens(blocks[first], text, packing, av)[None]
    else:
        positions = packing.fusion_positions[None]
        attend = packing.attend_fusion(prefix.keys_and_values)
        fusion, _ = lm.decoder.run(fusion, positions, range(first + 1), attend=attend)
        rows = _joined(*blocks[first](text, fusion, av))[None]

    def after(index: int, rows: Tensor) -> Tensor:
        return _through(blocks[index], rows.squeeze(0), packing, av)[None] if index in blocks else rows

    positions = packing.joint_positions()[None]
    _, normed = lm.decoder.run(rows, positions, rest, attend=packing.attend_jointly, entering=rows, after=after)
    text, own = _parted(normed.squeeze(0), len(text))
    return text, own.view_as(fusion)


def decode_sequences(
    lm: LanguageModel, blocks: Blocks, tokens: Tensor, embedded: Tensor, packing: Packing, av: AudioVisualStates
) -> tuple[Tensor, Tensor]:
    """The same from embedded text [batch, seq, d], by the language model's own code throughout.

    Fusion tokens follow a text at once and padding comes last, so that nothing which goes forward, be it attention, a
    convolution or a recurrent state, meets a pad before a token.
    """
    text = embedded.flatten(0, 1).index_select(0, packing.text_rows)
    fusion = tokens.to(text.dtype).expand(packing.batch, -1, -1)
    sequences = packing.unfold_joint(_joined(text, fusion))

    def after(index: int, hidden: Tensor) -> Tensor:
        if index not in blocks:
            return hidden
        return packing.unfold_joint(_through(blocks[index], packing.fold_joint(hidden), packing, av))

    positions = packing.sequence_positions()
    _, normed = lm.decoder.run(sequences, positions, range(lm.num_layers), attend=None, after=after)
    text, own = _parted(packing.fold_joint(normed), len(text))
    return text, own.view_as(fusion)


def decode_padded(
    lm: LanguageModel,
    blocks: Blocks,
    tokens: Tensor,
    embedded: Tensor,
    text_mask: Tensor,
    av: AudioVisualStates,
    *,
    fusion_start: int,
    fusion_mask: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Embedded text [batch, seq, d] to normed last states of text, padded as it came, and fusion tokens [batch, n, d].

    As the equations are written: every layer over all positions, pads included.
    """
    seq, n = embedded.shape[1], len(tokens)
    numbers = torch.arange(seq + n, device=embedded.device)
    positions = torch.where(numbers < seq, numbers, numbers - seq + fusion_start)
    hidden = torch.cat([embedded, tokens.to(embedded.dtype).expand(len(embedded), -1, -1)], dim=1)

    def after(index: int, hidden: Tensor) -> Tensor:
        if index not in blocks:
            return hidden
        block = blocks[index]
        if not n:
            return block.feed_forward(block.cross_attend(hidden, av))
        text, fusion = block(hidden[:, :seq].flatten(0, 1), hidden[:, seq:], av)
        return torch.cat([text.unflatten(0, (-1, seq)), fusion], dim=1)

    attend = MaskedAttention(attention_mask_of(text_mask, n, fusion_mask), positions)
    _, normed = lm.decoder.run(hidden, positions[None], range(lm.num_layers), attend=attend, after=after)
    return normed[:, :seq], normed[:, seq:]


def _joined(text: Tensor, fusion: Tensor) -> Tensor:
    """[text rows ; fusion rows]"""
    return torch.cat([text, fusion.flatten(0, 1)])


def _parted(rows: Tensor, num_text: int) -> tuple[Tensor, Tensor]:
    """The inverse of `_joined`, but for the shape of fusion rows."""
    text, fusion = rows.split([num_text, len(rows) - num_text])
    return text, fusion


def _through(block: MMBlock, rows: Tensor, packing: Packing, av: AudioVisualStates) -> Tensor:
    """[text rows ; fusion rows] through an MM block."""
    n = len(packing.fusion_positions)
    if not n:
        return _without_tokens(block, rows, packing, av)
    text, fusion = _parted(rows, len(packing.text_rows))
    return _joined(*block(text, fusion.unflatten(0, (-1, n)), av))


def _without_tokens(block: MMBlock, text: Tensor, packing: Packing, av: AudioVisualStates) -> Tensor:
    """Text rows [rows, d] through an MM block in which they take the fusion tokens' place."""
    # What cross-attention makes of the padding is dropped before anything reads it.
    return block.feed_forward(packing.fold_text(block.cross_attend(packing.unfold_text(text), av)))
