"""Our RMSNorm against PyTorch's own."""

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.rms_norm import RMSNorm


@pytest.mark.parametrize("trained", [True, False])
def test_values_and_gradients_equal_pytorchs(trained: bool) -> None:
    torch.manual_seed(0)
    inputs, seed = torch.randn(3, 5, 16), torch.randn(3, 5, 16)
    theirs = nn.RMSNorm(16, eps=1e-5)
    nn.init.normal_(theirs.weight)
    theirs.weight.requires_grad_(trained)
    ours = RMSNorm(16, 1e-5, nn.Parameter(theirs.weight.detach().clone(), requires_grad=trained))
    results = []
    for norm in (ours, theirs):
        values = inputs.clone().requires_grad_()
        output = norm(values)
        output.backward(seed)
        results.append((output, values.grad, norm.weight.grad))
    (output, gradient, of_weight), expected = results
    torch.testing.assert_close(output, expected[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradient, expected[1], atol=1e-6, rtol=1e-5)
    assert (of_weight is not None) == trained
    if trained:
        torch.testing.assert_close(of_weight, expected[2], atol=1e-6, rtol=1e-5)


def test_it_shares_a_given_weight_and_its_name() -> None:
    weight = nn.Parameter(torch.ones(4))
    norm = RMSNorm(4, 1e-6, weight)
    assert norm.weight is weight
    assert list(norm.state_dict()) == ["weight"]


def test_a_model_may_be_wrapped_twice() -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)
    model = AutoModelForCausalLM.from_config(config)
    first, second = LanguageModel(model), LanguageModel(model)
    assert first.layers[0] is second.layers[0]
    assert isinstance(second.layers[0].input_layernorm, RMSNorm)


def test_bfloat16_stays_bfloat16() -> None:
    assert RMSNorm(4, 1e-6)(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.bfloat16
