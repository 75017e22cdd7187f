"""Behaviour of the assembled model on the tiny random language models of both families."""

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig

from deepmlf.errors import ConfigError, LanguageModelError
from deepmlf.model.av_encoder import pool_frames
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import Family, LanguageModel, tiny_random
from deepmlf.model.lm.attention import MaskedAttention, attention_mask_of
from deepmlf.training.losses import LossWeights, compute_losses
from tests.model.tiny import FAMILIES, assert_same, close_gates, make_batch, make_model


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("pooling", ["consecutive", "strided"])
@pytest.mark.parametrize("normalised", ["frames", "pooled"])
def test_outputs_do_not_depend_on_padding_or_company(family: Family, pooling: str, normalised: str) -> None:
    model = make_model(family, av_pooling=pooling, av_batch_norm="both", av_batch_norm_on=normalised).eval()
    for encoder in (model.av_encoder.audio, model.av_encoder.vision):
        assert encoder.batch_norm is not None
        encoder.batch_norm.running_mean.fill_(0.5)
    lengths, frames = [3, 9, 1, 4], [20, 5, 0, 1]
    with torch.no_grad():
        together = model(**make_batch(lengths, frames))
        assert_same(together, model(**make_batch(lengths, frames, pad_text=6, pad_frames=13)))
        for row in range(4):
            batch = {name: tensor[row : row + 1] for name, tensor in make_batch(lengths, frames).items()}
            length, count = lengths[row], max(1, frames[row])
            batch |= {
                "input_ids": batch["input_ids"][:, :length],
                "attention_mask": batch["attention_mask"][:, :length],
            }
            batch |= {"audio": batch["audio"][:, :count], "vision": batch["vision"][:, :count]}
            assert_same(together, model(**batch), slice(row, row + 1))


@pytest.mark.parametrize("family", FAMILIES)
def test_closed_gates_give_the_language_model_back_bit_for_bit(family: Family) -> None:
    model = make_model(family).eval()
    close_gates(model)
    batch = make_batch([6, 6], [4, 4])
    with torch.no_grad():
        states = model(**batch, plain=True).text_states
        lm = model.language_model
        # Same shapes as inside the model, so that the same kernels run.
        embedded = torch.cat([lm.embed(batch["input_ids"]), model.fusion_tokens.expand(2, -1, -1)], 1)
        positions = torch.cat([torch.arange(6), torch.arange(20, 28)])
        attend = MaskedAttention(attention_mask_of(batch["attention_mask"], 8), positions)
        _, normed = lm.decoder.run(embedded, positions[None], range(lm.num_layers), attend=attend)
        assert torch.equal(states, normed[:, :6].flatten(0, 1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [(0,), (1, 3), (0, 1, 2, 3), (2,)])
def test_the_packed_path_equals_the_plain_one(family: Family, layers: tuple[int, ...]) -> None:
    """Outputs, losses and gradients of all weights, with ragged texts, absent frames and an empty text."""
    batch = make_batch([3, 9, 1, 0], [20, 5, 0, 7], pad_text=2)
    labels = torch.tensor([[1.0], [-2.0], [0.5], [0.0]])
    results = []
    for plain in (False, True):
        model = make_model(family, fusion_layers=layers, ffn="full", dropout=0.0, av_dropout=0.0)
        output = model(**batch, plain=plain)
        weights = LossWeights(fusion=0.4, av=0.8, text=0.6, lm=0.7)
        losses = compute_losses(model, output, batch["input_ids"], labels, weights, pad_token_id=256)
        losses["total"].backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        results.append((output, losses, gradients))
    (fast, fast_losses, fast_gradients), (slow, slow_losses, slow_gradients) = results
    assert_same(fast, slow)
    torch.testing.assert_close(fast.text_states, slow.text_states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast_losses, slow_losses, atol=1e-5, rtol=1e-5)
    assert fast_gradients.keys() == slow_gradients.keys() >= {"fusion_tokens", f"mm_blocks.{layers[0]}.ffn.up"}
    largest = max(float(gradient.abs().max()) for gradient in slow_gradients.values())
    for name, gradient in fast_gradients.items():
        torch.testing.assert_close(gradient, slow_gradients[name], atol=1e-6 * largest, rtol=1e-4, msg=name)


def test_a_text_that_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="must have at most max_text_len=20 tokens, but got 21"):
        make_model().eval()(**make_batch([21, 3], [2, 2]))


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_take_states_in_float32_from_a_language_model_in_bfloat16(family: Family) -> None:
    """What CUDA's autocast makes of a norm; that of a CPU leaves it in bfloat16."""
    lm = tiny_random(family)
    lm.embedding.to(torch.bfloat16)
    lm.head.weight.data = lm.head.weight.bfloat16()
    states = torch.randn(3, lm.width, requires_grad=True)
    logits = lm.logits(states)
    assert logits.dtype == torch.bfloat16
    logits.sum().backward()
    assert states.grad is not None
    assert states.grad.dtype == torch.float32


def test_gates_start_half_open() -> None:
    assert make_model().gates() == {f"gate/{layer}/{name}": 0.5 for layer in (1, 3) for name in ("attention", "ffn")}


def test_text_states_do_not_depend_on_fusion_tokens() -> None:
    model = make_model().eval()
    batch = make_batch([6, 3], [4, 2])
    with torch.no_grad():
        before = model(**batch)
        model.fusion_tokens.add_(1.0)
        after = model(**batch)
    torch.testing.assert_close(before.text, after.text, atol=0, rtol=0)
    assert not torch.equal(before.task, after.task)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("ffn", ["full", "lora"])
def test_language_model_is_shared_and_never_changes(family: Family, ffn: str) -> None:
    model = make_model(family, ffn=ffn)
    lm = model.language_model
    before = [weight.clone() for layer in lm.layers for weight in layer.parameters()]
    other = DeepMLF(lm, 5, 7, model.config)
    model(**make_batch([6, 3], [4, 2])).task.sum().backward()
    torch.optim.SGD([p for p in model.parameters() if p.requires_grad], 1.0).step()
    assert other.language_model.layers[0] is lm.layers[0]
    after = [weight for layer in lm.layers for weight in layer.parameters()]
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
    assert not any("language_model" in name for name in model.state_dict())


def test_absent_modalities_give_finite_outputs_and_gradients() -> None:
    model = make_model()
    output = model(**make_batch([6, 3], [0, 0]))
    (output.task.sum() + output.fusion.sum() + output.av.sum()).backward()
    assert torch.isfinite(output.task).all()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_settings_that_do_not_fit_the_language_model_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model.cross_attention_heads=7: must divide the language model's width 64"):
        make_model(cross_attention_heads=7)
    with pytest.raises(ConfigError, match=r"fusion_layers=\[1, 9\]: the language model has layers 0 to 3"):
        make_model(fusion_layers=(1, 9))
    with pytest.raises(ConfigError, match="the language model has 512 positions"):
        make_model(max_text_len=510)
    with pytest.raises(LanguageModelError, match="model.lm_layers=9: the language model has 4 layers"):
        tiny_random().first_layers(9)


def test_attention_mask_hides_pads_and_fusion_tokens_from_text() -> None:
    mask = attention_mask_of(torch.tensor([[1, 1, 0]]), 2)[:, 0].int().tolist()
    assert mask[0] == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 0, 0], [1, 1, 0, 1, 0], [1, 1, 0, 1, 1]]


@pytest.mark.parametrize("pooling", ["consecutive", "strided"])
@pytest.mark.parametrize("time", [3, 8, 13, 40])
def test_frames_pooled_beforehand_give_the_same_outputs(pooling: str, time: int) -> None:
    model = make_model(av_pooling=pooling, av_frames=8).eval()
    batch = make_batch([4, 6], [time, time - 2])
    pooled = dict(batch)
    for name in ("audio", "vision"):
        parts = [
            torch.from_numpy(pool_frames(batch[name][row, :length].numpy(), 8, pooling))
            for row, length in enumerate((time, time - 2))
        ]
        pooled[name] = torch.nn.utils.rnn.pad_sequence(parts, batch_first=True)
        pooled[f"{name}_lengths"] = torch.tensor([len(part) for part in parts])
    with torch.no_grad():
        assert_same(model(**batch), model(**pooled))


def test_a_language_model_that_is_wrapped_twice_runs_each_block_once() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    causal_lm = AutoModelForCausalLM.from_config(LlamaConfig(num_hidden_layers=4, **sizes))
    first, second = LanguageModel(causal_lm), LanguageModel(causal_lm)
    calls: list[int] = []

    def after(index: int, hidden: Tensor) -> Tensor:
        calls.append(index)
        return hidden

    rows, positions = torch.randn(1, 3, first.width), torch.arange(3)[None]
    attend = MaskedAttention(torch.ones(1, 1, 3, 3, dtype=torch.bool).tril(), positions[0])
    second.decoder.run(rows, positions, range(4), attend=attend, after=after)
    assert calls == [0, 1, 2, 3]
