"""Whether a language model is read here as Hugging Face reads it: both run the same text, and states are compared."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from deepmlf.errors import LanguageModelError, first_line
from deepmlf.model.av_encoder import AudioVisualStates
from deepmlf.model.decode import decode_packed, decode_padded, decode_sequences, text_prefix
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.check import parameters_of
from deepmlf.model.lm.loading import load_causal_lm
from deepmlf.model.lm.packing import Packing

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.05}
"""Largest difference of states relative to the largest state, by the type of the weights. A scale, a norm or a position
that is missed makes it 0.1 and more."""

_LENGTHS, _TOKENS = (5, 2, 4), 2
_ROOM = 1.3
"""Memory that loading and running take, in sizes of the weights."""


@dataclass(frozen=True)
class Comparison:
    """How a language model is run, and how far its states are from Hugging Face's."""

    is_packed: bool
    """Whether it runs packed rows (`LanguageModel.packs`)."""
    difference: float
    """The largest, relative to the largest state."""
    dtype: str
    """Of the weights in the comparison."""

    def __str__(self) -> str:
        how = "packed rows" if self.is_packed else "padded rows, by its own code"
        return f"{how}; states within {self.difference:.0e} of Hugging Face's in {self.dtype}"


class _Open:
    """Stands for an MM block that changes nothing."""

    def __call__(self, text: Tensor, fusion: Tensor, av: Any) -> tuple[Tensor, Tensor]:
        return text, fusion


def reading(folder: Path) -> str:
    """How a language model runs and how far its states are, in words, by `compare`.

    Raises:
        LanguageModelError: As `compare`.
    """
    return str(compare(folder) or "not compared with Hugging Face's: this machine has not the memory")


def compare(folder: Path) -> Comparison | None:
    """Run three short texts with fusion tokens behind them through a language model both ways.

    Packed with the frozen prefix split off in the middle, and as a padded batch; against one text at a time by Hugging
    Face's own pass.

    Args:
        folder: Of a language model that loads.

    Returns:
        None if this machine has not the memory for it.

    Raises:
        LanguageModelError: If states differ by more than rounding.
    """
    dtype = _dtype_that_fits(folder)
    if dtype is None:
        return None
    model = load_causal_lm(folder, dtype)
    try:
        result = _compared(model)
    except (AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:  # of the model's own code
        raise LanguageModelError(
            f"{folder}: cannot be run between MM blocks ({first_line(error)}); another language model will be"
        ) from error
    if not result.difference <= TOLERANCE[dtype]:
        raise LanguageModelError(
            f"{folder}: is not read as Hugging Face reads it ({result}); another language model will be"
        )
    return result


def _compared(model: Any) -> Comparison:
    embedded, positions = _inputs(model.get_input_embeddings(), len(model.get_input_embeddings().weight))
    expected = [_theirs(model.eval().get_decoder(), *row) for row in zip(embedded, positions, strict=True)]
    lm = LanguageModel(model)
    found = [_ours(lm, embedded, plain=plain) for plain in (False, True)]
    wanted = torch.cat(expected)
    difference = max(float((states - wanted).abs().max() / wanted.abs().max()) for states in found)
    lm.logits(wanted[:1].to(lm.dtype))
    return Comparison(lm.packs, difference, str(lm.dtype).removeprefix("torch."))


def _dtype_that_fits(folder: Path) -> torch.dtype | None:
    numbers, free = parameters_of(folder), psutil.virtual_memory().available / _ROOM
    return next((dtype for dtype in TOLERANCE if numbers * dtype.itemsize <= free), None)


@torch.no_grad()
def _inputs(embedding: Any, vocabulary: int) -> tuple[list[Tensor], list[Tensor]]:
    """Of each text its embeddings [tokens + fusion tokens, d], and their positions."""
    generator = torch.Generator().manual_seed(0)
    start, numbers = max(_LENGTHS), torch.arange(_TOKENS)
    fusion = embedding(torch.randint(vocabulary, (_TOKENS,), generator=generator)).flip(-1)
    texts = [embedding(torch.randint(vocabulary, (length,), generator=generator)) for length in _LENGTHS]
    rows = [torch.cat([text, fusion]) for text in texts]
    return rows, [torch.cat([torch.arange(length), start + numbers]) for length in _LENGTHS]


@torch.no_grad()
def _theirs(decoder: Any, embedded: Tensor, positions: Tensor) -> Tensor:
    """Normed last states of one text and its fusion tokens."""
    places = torch.arange(len(embedded))
    if getattr(decoder.config, "sliding_window", None):  # which counts rows, not positions: each row to its position
        places = positions
    rows = embedded.new_zeros(int(places.max()) + 1, embedded.shape[1]).index_copy(0, places, embedded)
    seen = torch.zeros(len(rows), dtype=torch.long).index_fill(0, places, 1)
    numbers = torch.arange(len(rows)).index_copy(0, places, positions)
    options = {"attention_mask": seen[None], "position_ids": numbers[None], "use_cache": False}
    try:
        states = decoder(inputs_embeds=rows[None], **options).last_hidden_state
    except TypeError:  # it knows no positions but its own
        del options["position_ids"]
        states = decoder(inputs_embeds=rows[None], **options).last_hidden_state
    return states[0, places].float()


@torch.no_grad()
def _ours(lm: LanguageModel, rows: list[Tensor], *, plain: bool) -> Tensor:
    """The same of all texts, text by text."""
    lengths, longest = torch.tensor(_LENGTHS), max(_LENGTHS)
    tokens = rows[0][-_TOKENS:]
    embedded = torch.zeros(len(rows), longest, lm.width, dtype=lm.dtype)
    for row, states in enumerate(rows):
        embedded[row, : _LENGTHS[row]] = states[:-_TOKENS]
    packing = Packing(lengths, longest, _TOKENS, torch.device("cpu"), fusion_start=longest)
    none = torch.zeros(len(rows), 1, 1)
    av = AudioVisualStates(none, torch.ones(len(rows), 1, dtype=torch.bool))
    blocks: Any = {(lm.num_layers - 1) // 2: _Open()}
    if plain and lm.packs:
        mask = torch.arange(longest) < lengths[:, None]
        text, fusion = decode_padded(lm, blocks, tokens, embedded, mask, av, fusion_start=longest, fusion_mask=None)
        text = text[mask]
    elif lm.packs:
        text, fusion = decode_packed(
            lm, blocks, tokens, text_prefix(lm, next(iter(blocks)), embedded, packing), packing, av
        )
    else:
        text, fusion = decode_sequences(lm, blocks, tokens, embedded, packing, av)
    parts = zip(text.split(list(_LENGTHS)), fusion, strict=True)
    return torch.cat([torch.cat(part) for part in parts]).float()
