"""Whether a language model's layers can be told, from its config.json alone: before its weights are fetched."""

from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from deepmlf.errors import LanguageModelError, first_line
from deepmlf.model.lm.check import read_config
from deepmlf.model.lm.decoder import layers_of
from deepmlf.model.lm.ffn import ffn_of
from deepmlf.model.lm.loading import quietly


def check_structure(folder: Path) -> None:
    """Refuse a language model between whose layers no MM block could run; reads config.json alone.

    Raises:
        LanguageModelError: With the reason.
    """
    kind = read_config(folder)["model_type"]
    try:
        with quietly(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    except Exception as error:  # of transformers, which has as many kinds as models
        raise LanguageModelError(
            f"{folder}: model_type={kind!r} is not supported: transformers makes no causal language model of its "
            f"config.json ({first_line(error)})"
        ) from error
    try:
        for layer in layers_of(model.get_decoder())[1]:
            ffn_of(layer)
    except (LanguageModelError, AttributeError) as error:  # what passes for its decoder may be its head
        raise LanguageModelError(f"{folder}: model_type={kind!r} is not supported: {error}") from None
