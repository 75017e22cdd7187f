"""A language model's weights, loaded by transformers: all of them, or not at all."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from deepmlf.errors import LanguageModelError, first_line
from deepmlf.model.lm.check import BUFFERS
from deepmlf.model.lm.tokenizer import Tokenizer


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without transformers' bars and warnings: an error of a command is one line on stderr."""
    had_bar, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bar:
            logging.enable_progress_bar()


def load_causal_lm(folder: Path, dtype: torch.dtype = torch.float32, **options: Any) -> Any:
    """Load a language model as Hugging Face's.

    Args:
        folder: Holds config.json and safetensors files.
        dtype: Type of its weights.
        options: More of ``from_pretrained``.

    Raises:
        LanguageModelError: If a weight is missing, has another shape, or belongs to a layer that the model has not.
    """
    try:
        with quietly():
            model, report = AutoModelForCausalLM.from_pretrained(
                folder, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
            )
    except MemoryError:
        raise
    except Exception as error:  # each reader has its own, all of which mean the same to the user
        raise LanguageModelError(
            f"{folder}: cannot be loaded ({first_line(error)}); fetch the language model again"
        ) from error
    _refuse_others(folder, report)
    return model


def check_loads(folder: Path) -> None:
    """Refuse weights and tokenizer that do not make one usable model; takes no memory for the weights.

    Raises:
        LanguageModelError: For those, by name.
    """
    rows = len(load_causal_lm(folder, device_map="meta").get_input_embeddings().weight)
    check_vocabulary(folder, Tokenizer(folder).vocab_size, rows)


def check_vocabulary(name: object, tokens: int, rows: int) -> None:
    """Refuse a tokenizer some of whose ids have no embedding.

    Raises:
        LanguageModelError: For such a one.
    """
    if tokens > rows:
        raise LanguageModelError(
            f"{name}: its tokenizer has ids up to {tokens - 1}, but there are {rows} embeddings; "
            "save model and tokenizer of one language model together"
        )


def _refuse_others(folder: Path, report: dict[str, Any]) -> None:
    mismatched = sorted(report["mismatched_keys"])
    if mismatched:
        name, found, needed = mismatched[0]
        fault = f"{name} must have shape {list(needed)}, but has {list(found)}"
        raise LanguageModelError(f"{folder}: {fault}{_more(mismatched)}; config.json is of another model")
    missing = sorted(report["missing_keys"], key=lambda name: (not _is_of_a_layer(name), name))
    # A head of another task is no part of the language model; a layer's weight without a place is.
    strange = sorted(name for name in report["unexpected_keys"] if _is_of_a_layer(name) and not name.endswith(BUFFERS))
    for names, fault in ((missing, "is missing"), (strange, "has no place in the model that config.json describes")):
        if names:
            instead = f" (the weights have {strange[0]})" if names is missing and strange else ""
            raise LanguageModelError(
                f"{folder}: {names[0]} {fault}{_more(names)}{instead}; save the language model alone with "
                "save_pretrained"
            )


def _is_of_a_layer(name: str) -> bool:
    return re.search(r"\.\d+\.", name) is not None


def _more(names: list[Any]) -> str:
    return f" ({len(names) - 1} more)" if len(names) > 1 else ""
