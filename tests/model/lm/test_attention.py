"""What layers may ask of attention beside a scale: windows, soft caps, sinks; and heads that do more than multiply."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from deepmlf.config.model import ModelConfig
from deepmlf.errors import LanguageModelError
from deepmlf.model.admission import compare
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.attention import MaskedAttention, Scores
from deepmlf.training.losses import lm_loss, next_token_targets

SIZES: dict[str, Any] = {
    "vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1,
    "pad_token_id": 2,
}  # fmt: skip
HEADS: dict[str, dict[str, Any]] = {
    "llama": {},
    "granite": {"logits_scaling": 8.0, "embedding_multiplier": 12.0, "residual_multiplier": 0.22},
    "cohere": {"logit_scale": 0.0625},
    "gemma2": {"attn_logit_softcapping": 0.5, "final_logit_softcapping": 0.3, "sliding_window": 6},
}


def make(kind: str) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(kind, **SIZES | HEADS[kind])
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    for parameter in model.parameters():  # scores and logits large enough for caps to bite
        parameter.data.mul_(8 if parameter.ndim > 1 else 1)
    return model


def by_hand(query: Tensor, key: Tensor, value: Tensor, scores: Scores) -> Tensor:
    """One query, one key and one value at a time."""
    batch, heads, rows, _ = query.shape
    out = torch.zeros_like(query)
    for b in range(batch):
        for h in range(heads):
            for i in range(rows):
                seen = [j for j in range(i + 1) if scores.window is None or i - j < scores.window]
                of = h // (heads // key.shape[1])
                products = [float(query[b, h, i] @ key[b, of, j]) * scores.scale for j in seen]
                if scores.softcap is not None:
                    products = [scores.softcap * math.tanh(product / scores.softcap) for product in products]
                shares = [math.exp(product) for product in products]
                total = sum(shares) + (0 if scores.sinks is None else math.exp(float(scores.sinks[h])))
                out[b, h, i] = sum(share / total * value[b, of, j] for share, j in zip(shares, seen, strict=True))
    return out


@pytest.mark.parametrize(
    "scores",
    [
        Scores(0.5),
        Scores(0.5, window=3),
        Scores(0.5, softcap=0.7),
        Scores(0.5, sinks=torch.tensor([0.0, 1.0, -1.0, 2.0])),
        Scores(0.5, window=2, softcap=0.7, sinks=torch.tensor([0.0, 1.0, -1.0, 2.0])),
    ],
    ids=["plain", "window", "softcap", "sinks", "all"],
)
def test_attention_is_what_its_formula_says(scores: Scores) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    attend = MaskedAttention(torch.ones(2, 1, 6, 6, dtype=torch.bool).tril(), torch.arange(6))
    torch.testing.assert_close(attend(query, key, value, scores), by_hand(query, key, value, scores))


@pytest.mark.parametrize("kind", HEADS)
def test_logits_and_states_are_those_of_hugging_face(tmp_path: Path, kind: str) -> None:
    reference, ids = make(kind), torch.randint(3, 64, (1, 5), generator=torch.Generator().manual_seed(0))
    reference.save_pretrained(tmp_path)
    compared = compare(tmp_path)
    assert compared is not None
    assert compared.is_packed
    assert compared.difference <= 1e-5
    with torch.no_grad():
        output = reference(ids, output_hidden_states=True)
    states, expected = output.hidden_states[-1], output.logits
    lm = LanguageModel(reference)
    torch.testing.assert_close(lm.logits(states), expected, atol=1e-5, rtol=1e-4)
    assert (lm.head.scale is None) == (kind == "gemma2")


@pytest.mark.parametrize("kind", HEADS)
def test_the_next_token_loss_is_of_those_logits(kind: str) -> None:
    lm = LanguageModel(make(kind))
    config = ModelConfig(
        max_text_len=8, num_fusion_tokens=2, fusion_layers=(1, 3), lora_rank=2, cross_attention_heads=2
    )
    model = DeepMLF(lm, 5, 7, config).eval()
    ids, mask = torch.tensor([[3, 4, 5, 6], [7, 8, 2, 2]]), torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
    output = model(ids, mask, torch.randn(2, 3, 5), torch.randn(2, 3, 7))
    targets = next_token_targets(ids, output.text_mask, 8, 2).flatten()[output.text_rows]
    expected = torch.nn.functional.cross_entropy(lm.logits(output.text_states), targets)
    loss = lm_loss(model, output, ids, 2)
    torch.testing.assert_close(loss, expected)
    trained = [block.ffn.lora.parameters() for block in model.mm_blocks.values()]
    weights = [weight for of_block in trained for weight in of_block]
    found = torch.autograd.grad(loss, weights, retain_graph=True, materialize_grads=True)
    torch.testing.assert_close(found, torch.autograd.grad(expected, weights, materialize_grads=True))
    assert any(gradient.abs().sum() > 0 for gradient in found)


def test_what_mixes_tokens_beside_attention_is_seen_however_little_it_does(tmp_path: Path) -> None:
    """Falcon-H1 has a state space beside the attention of each layer, which our attention would leave out."""
    torch.manual_seed(0)
    sizes = SIZES | {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}
    AutoModelForCausalLM.from_config(AutoConfig.for_model("falcon_h1", **sizes)).save_pretrained(tmp_path)
    compared = compare(tmp_path)
    assert compared is not None
    assert not compared.is_packed
    assert compared.difference <= 1e-5


def test_states_that_differ_are_refused_by_how_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("llama").save_pretrained(tmp_path)
    monkeypatch.setattr(MaskedAttention, "__call__", lambda self, query, key, value, scores: value[:, [0, 0, 1, 1]])
    message = r"is not read as Hugging Face reads it \(packed rows; states within .e.00 of Hugging Face's in float32\)"
    with pytest.raises(LanguageModelError, match=message):
        compare(tmp_path)
