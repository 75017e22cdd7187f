"""Texts as token ids."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from transformers import AutoTokenizer, BertTokenizer, PretrainedConfig

from deepmlf.errors import LanguageModelError, first_line
from deepmlf.model.lm.check import TOKENIZER_FILES
from deepmlf.model.lm.identity import tokenizer_identity_of

SpecialTokens = Literal["tokenizer", "none"]
"""``model.special_tokens``"""


class ByteTokenizer:
    """UTF-8 bytes as tokens, for the ``tiny-random`` language model; 256 pads."""

    pad_token_id = 256
    vocab_size = 257
    identity: str | None = None
    ending: tuple[int, ...] = ()

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """All token ids of each text."""
        return [list(text.encode()) for text in texts]

    def text_of(self, token: int) -> str:
        """What one token stands for; bytes that are no character by themselves in hexadecimal."""
        return "(pad)" if token == self.pad_token_id else bytes([token]).decode(errors="backslashreplace")


class Tokenizer:
    """A Hugging Face tokenizer that returns plain lists of ids.

    Args:
        folder: Holds the tokenizer's files.
        alone: They are what `save` wrote, without a language model beside them.
        special_tokens: Those that the tokenizer puts around a text by itself (BERT's ``[CLS]`` and ``[SEP]``, Llama's
            ``<s>``; GPT-2 has none), or none.

    Raises:
        LanguageModelError: If the folder holds no tokenizer.
    """

    def __init__(self, folder: Path, *, alone: bool = False, special_tokens: SpecialTokens = "tokenizer") -> None:
        try:
            self._tokenizer = _read(folder, alone)
        except Exception as error:  # a torn file surfaces as any of the parsers' errors
            raise LanguageModelError(f"{folder}: no usable tokenizer ({first_line(error)})") from None
        pad, end = self._tokenizer.pad_token_id, self._tokenizer.eos_token_id
        self.pad_token_id: int = pad if pad is not None else end if end is not None else 0
        self.vocab_size: int = max([self.pad_token_id, *self._tokenizer.get_vocab().values()]) + 1
        """One more than the largest id."""
        (around, word), (nothing, bare) = (self._encode(["", "a"], special) for special in (True, False))
        self._special = special_tokens == "tokenizer" and word != bare
        before = len(os.path.commonprefix([around, word]))
        self.ending: tuple[int, ...] = tuple(around[before:]) if self._special and not nothing else ()
        """Special tokens after each text: of one that is cut, too."""
        self.identity: str | None = tokenizer_identity_of(folder) + ("+special" if self._special else "")
        """Differs between any two tokenizers that give other ids, so that these can be kept."""

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """All token ids of each text."""
        return self._encode(texts, self._special)

    def text_of(self, token: int) -> str:
        """What one token stands for."""
        text: str = self._tokenizer.decode([token])
        return text

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        ids: list[list[int]] = self._tokenizer(list(texts), add_special_tokens=special).input_ids
        return ids

    def save(self, folder: Path) -> None:
        """Write the tokenizer's files into a folder."""
        self._tokenizer.save_pretrained(folder)


def _read(folder: Path, alone: bool) -> Any:
    if _is_bare_vocabulary(folder):
        return BertTokenizer.from_pretrained(folder)
    # A tokenizer as published may need its model's config.json to be known; a saved one names its own class.
    return AutoTokenizer.from_pretrained(folder, **({"config": PretrainedConfig()} if alone else {}))


def _is_bare_vocabulary(folder: Path) -> bool:
    """Whether there is a ``vocab.txt`` alone and nothing says how to read it: a decoder's own class would read none."""
    if [name for name in TOKENIZER_FILES if (folder / name).is_file()] != ["vocab.txt"]:
        return False
    described = [folder / name for name in ("tokenizer_config.json", "config.json") if (folder / name).is_file()]
    return not any(json.loads(path.read_text()).get("tokenizer_class") for path in described)
