"""An MM block's FFN begins as the language model's own, whatever that is made of."""

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from deepmlf.config.model import ModelConfig
from deepmlf.errors import LanguageModelError
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.attention import MaskedAttention
from deepmlf.model.mm_block import MMBlock

LLAMA = {
    "vocab_size": 9, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
}  # fmt: skip
GPT2 = {"vocab_size": 9, "n_embd": 16, "n_layer": 2, "n_head": 2, "bos_token_id": 0, "eos_token_id": 0}


def make(config: Any) -> LanguageModel:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return LanguageModel(model)


@pytest.mark.parametrize("ffn", ["full", "lora"])
@pytest.mark.parametrize(
    "config",
    [
        LlamaConfig(**LLAMA),
        LlamaConfig(**LLAMA, mlp_bias=True),
        LlamaConfig(**LLAMA, mlp_bias=True, hidden_act="gelu_pytorch_tanh"),
        LlamaConfig(**LLAMA, hidden_act="relu2"),
        GPT2Config(**GPT2, activation_function="relu"),
        GPT2Config(**GPT2, activation_function="quick_gelu"),
    ],
    ids=["silu", "bias", "bias-gelu", "relu2", "gpt2-relu", "gpt2-quick"],
)
def test_the_ffn_starts_as_the_layers_own(config: Any, ffn: str) -> None:
    lm = make(config)
    settings = ModelConfig.model_validate({"ffn": ffn, "lora_rank": 2, "cross_attention_heads": 2})
    block = MMBlock(lm, 1, settings).eval()
    values = torch.randn(5, 16)
    torch.testing.assert_close(block.ffn(values), lm.layers[1].mlp(values), atol=1e-6, rtol=1e-5)
    names = {name for name, _ in block.ffn.named_parameters(recurse=False)}
    assert {name.removesuffix("_bias") for name in names} == (
        {"up", "down"} | ({"gate"} if lm.family == "llama" else set())
    )
    assert all(parameter.requires_grad == (ffn == "full") for parameter in block.ffn.parameters(recurse=False))


def test_the_approximate_gelu_of_gpt2_becomes_the_exact_one_as_published() -> None:
    lm = make(GPT2Config(**GPT2))
    block = MMBlock(lm, 0, ModelConfig(ffn="full", cross_attention_heads=2)).eval()
    up, down = lm.layers[0].mlp.c_fc, lm.layers[0].mlp.c_proj
    values = torch.randn(5, 16)
    expected = down(torch.nn.functional.gelu(up(values)))
    torch.testing.assert_close(block.ffn(values), expected, atol=1e-6, rtol=1e-5)
    assert not torch.equal(block.ffn(values), lm.layers[0].mlp(values))


@pytest.mark.parametrize("option", ["position_bias", "head_mask"])
def test_an_option_of_attention_that_would_be_dropped_is_refused(option: str) -> None:
    lm = make(LlamaConfig(**LLAMA))
    inner = lm.layers[0].self_attn
    hidden, positions = torch.randn(1, 3, 16), torch.arange(3)
    attend = MaskedAttention(torch.ones(1, 1, 3, 3, dtype=torch.bool).tril(), positions)
    lm.decoder.run(hidden, positions[None], range(1), attend=attend)
    forward = inner.forward
    inner.forward = lambda *args, **options: forward(*args, **options, **{option: 1.0})
    with pytest.raises(LanguageModelError, match=f"LlamaAttention: its attention asks for {option}, which is not supp"):
        lm.decoder.run(hidden, positions[None], range(1), attend=attend)
