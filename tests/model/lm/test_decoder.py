"""The frozen decoder under autocast: its layers need none of it, what runs between them does."""

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from deepmlf.config.model import ModelConfig
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import Family, tiny_random
from deepmlf.model.lm import decoder
from tests.model.tiny import FAMILIES, make_batch

_attention = F.scaled_dot_product_attention


def halved(family: Family) -> DeepMLF:
    torch.manual_seed(0)
    config = ModelConfig(fusion_layers=(1, 3), max_text_len=20, av_frames=8, lora_rank=4)
    return DeepMLF(tiny_random(family, dtype=torch.bfloat16), 5, 7, config)


def outputs_and_gradients(family: Family) -> list[torch.Tensor]:
    model = halved(family).eval()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(**make_batch([6, 3], [4, 9]))
    output.task.float().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [output.task, output.text_states, *gradients]


def attention_in_bfloat16(query: torch.Tensor, *more: Any, **how: Any) -> torch.Tensor:
    """As autocast has it even where it is handed float32, which `scaled_dot_product` does on a CPU."""
    with torch.autocast("cpu", torch.bfloat16):
        return _attention(query, *more, **how)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_of_autocasts_own_type_run_without_it_to_the_same_bit(
    family: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, whose autocast leaves norms alone; that of CUDA makes two casts of each."""
    monkeypatch.setattr(F, "scaled_dot_product_attention", attention_in_bfloat16)
    without = outputs_and_gradients(family)
    monkeypatch.setattr(decoder, "_is_cast_to", lambda *of: False)
    for one, other in zip(without, outputs_and_gradients(family), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("half", "expected"), [(True, (False, True)), (False, (True, True))])
def test_blocks_between_the_layers_run_under_it(half: bool, expected: tuple[bool, bool]) -> None:
    model = halved("llama") if half else DeepMLF(tiny_random("llama"), 5, 7, ModelConfig(fusion_layers=(1, 3)))
    seen: dict[str, set[bool]] = {"layer": set(), "block": set()}
    watched = {"layer": model.language_model.decoder.layers[2], "block": model.mm_blocks["3"].ffn}
    hooks = [
        module.register_forward_pre_hook(lambda *of, name=name: seen[name].add(torch.is_autocast_enabled("cpu")))
        for name, module in watched.items()
    ]
    with torch.autocast("cpu", torch.bfloat16):
        model.eval()(**make_batch([6, 3], [4, 9]))
    for hook in hooks:
        hook.remove()
    assert (seen["layer"], seen["block"]) == tuple({one} for one in expected)
    assert not torch.is_autocast_enabled("cpu")
