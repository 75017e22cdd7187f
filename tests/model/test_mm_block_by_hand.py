"""One MM block under each of its settings, in float64, against the equations written out token by token."""

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

from deepmlf.config.model import ModelConfig
from deepmlf.model.av_encoder import AudioVisualStates
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.packing import Packing
from deepmlf.model.mm_block import MMBlock

D, E, HEADS, FRAMES, LENGTHS = 16, 6, 2, 4, (3, 1, 2)
SHARED: dict[str, Any] = {"cross_attention_heads": HEADS, "av_width": E, "av_heads": 2, "dropout": 0.0, "ffn": "full"}
SETTINGS: list[dict[str, Any]] = [
    {},
    {"gate": "tanh", "gate_init": 0.7},
    {"gate": "none"},
    {"ffn_on": "fusion"},
    {"fusion_groups": "separate"},
    {"fusion_groups": "separate", "gate": "tanh", "gate_init": -0.4, "ffn_on": "fusion"},
    {"num_fusion_tokens": 0},
    {"num_fusion_tokens": 0, "gate": "none"},
]


def language_model(family: str) -> LanguageModel:
    common = {"vocab_size": 9, "bos_token_id": 0, "eos_token_id": 0}
    config = (
        GPT2Config(n_embd=D, n_layer=1, n_head=2, **common)
        if family == "gpt2"
        else LlamaConfig(hidden_size=D, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, **common)
    )
    return LanguageModel(AutoModelForCausalLM.from_config(config).double())


@dataclass
class Case:
    """A block with weights of no special value, and what goes in; every tensor wants a gradient."""

    block: MMBlock
    config: ModelConfig
    text: Tensor
    """[rows, d]"""
    fusion: Tensor
    """[batch, n, d]"""
    frames: dict[str, Tensor]
    """[batch, frames, e] of ``audio``, ``vision`` and ``joint``."""
    masks: dict[str, Tensor]
    """[batch, frames]; the last utterance has no audio, the second neither."""

    @classmethod
    def of(cls, family: str, settings: dict[str, Any]) -> "Case":
        torch.manual_seed(3)
        config = ModelConfig.model_validate(SHARED | {"num_fusion_tokens": 4} | settings)
        block = MMBlock(language_model(family), 0, config).double()
        for name, parameter in block.named_parameters():
            if not name.endswith("gate"):
                torch.nn.init.normal_(parameter, std=0.4)
        audio = torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
        vision = torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
        masks = {"audio": audio, "vision": vision, "joint": audio | vision}
        frames = {name: torch.randn(3, FRAMES, E).double() * mask[..., None] for name, mask in masks.items()}
        text = torch.randn(sum(LENGTHS), D).double()
        fusion = torch.randn(3, config.num_fusion_tokens, D).double()
        for tensor in (text, fusion, *frames.values()):
            tensor.requires_grad_()
        return cls(block, config, text, fusion, frames, masks)

    def states(self) -> AudioVisualStates:
        audio, vision = (AudioVisualStates(self.frames[name], self.masks[name]) for name in ("audio", "vision"))
        return AudioVisualStates(self.frames["joint"], self.masks["joint"], audio, vision)

    def gradients(self, outputs: tuple[Tensor, ...]) -> dict[str, Tensor | None]:
        weights = torch.randn(sum(map(torch.numel, outputs)), generator=torch.Generator().manual_seed(5)).double()
        loss = (torch.cat([output.flatten() for output in outputs]) * weights).sum()
        wanted = dict(self.block.named_parameters()) | {"text": self.text, "fusion": self.fusion} | self.frames
        return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values()), allow_unused=True), strict=True))


def ours(case: Case) -> tuple[Tensor, ...]:
    """Text rows and fusion tokens, as the model computes them on packed rows."""
    if case.config.num_fusion_tokens:
        return case.block(case.text, case.fusion, case.states())
    packing = Packing(torch.tensor(LENGTHS), max(LENGTHS), 0, torch.device("cpu"), fusion_start=max(LENGTHS))
    attended = case.block.cross_attend(packing.unfold_text(case.text), case.states())
    return case.block.feed_forward(packing.fold_text(attended)), case.fusion


def by_hand(case: Case) -> tuple[Tensor, ...]:
    """The same, one token of one utterance after another."""
    block, config = case.block, case.config
    text = list(case.text)
    starts = [sum(LENGTHS[:row]) for row in range(3)]
    if config.num_fusion_tokens == 0:
        of_row = [row for row, length in enumerate(LENGTHS) for _ in range(length)]
        return torch.stack([fed(block, looked(case, h, of_row[i], "joint")) for i, h in enumerate(text)]), case.fusion
    if config.ffn_on == "all":
        text = [fed(block, h) for h in text]
    own = config.num_fusion_tokens // 3 if config.fusion_groups == "separate" else 0
    kinds = ["audio"] * own + ["vision"] * own + ["joint"] * (config.num_fusion_tokens - 2 * own)
    fusion = [
        torch.stack([fed(block, looked(case, case.fusion[row, i], row, kind)) for i, kind in enumerate(kinds)])
        for row in range(len(starts))
    ]
    return torch.stack(text), torch.stack(fusion)


def norm(module: Any, state: Tensor) -> Tensor:
    if isinstance(module, torch.nn.LayerNorm):
        centred = state - state.mean()
        return centred / (centred.square().mean() + 1e-5).sqrt() * module.weight + module.bias
    return state / (state.square().mean() + 1e-6).sqrt() * module.weight


def opened(case: MMBlock, gate: Tensor | None, kind: str) -> Tensor | float:
    if gate is None:
        assert kind == "none"
        return 1.0
    return 1 / (1 + (-gate).exp()) if kind == "sigmoid" else (gate.exp() - (-gate).exp()) / (gate.exp() + (-gate).exp())


def looked(case: Case, state: Tensor, row: int, kind: str) -> Tensor:
    """u of one token of an utterance, over its frames of one kind."""
    attention: Any = case.block.attention
    prefix = "" if kind == "joint" else f"{kind}_"
    key, value = (getattr(attention, f"{prefix}{name}").weight for name in ("key", "value"))
    query = attention.query.weight @ norm(case.block.attention_norm, state)
    size, parts = D // HEADS, []
    present = [frame for frame, there in zip(case.frames[kind][row], case.masks[kind][row], strict=True) if there]
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        if not present:
            parts.append(state.new_zeros(size))
            continue
        scores = torch.stack([query[part] @ (key @ frame)[part] / size**0.5 for frame in present])
        shares = scores.exp() / scores.exp().sum()
        parts.append(torch.stack([s * (value @ f)[part] for s, f in zip(shares, present, strict=True)]).sum(0))
    update = attention.output.weight @ torch.cat(parts)
    return state + opened(case.block, case.block.attention_gate, case.config.gate) * update


def fed(block: MMBlock, state: Tensor) -> Tensor:
    """The block's output from one token's z."""
    ffn: Any = block.ffn
    normed = norm(block.ffn_norm, state)
    if ffn.is_swiglu:
        update = ffn.down @ (F.silu(ffn.gate @ normed) * (ffn.up @ normed))
    else:
        update = ffn.down @ F.gelu(ffn.up @ normed + ffn.up_bias) + ffn.down_bias
    kind = "none" if block.ffn_gate is None else "tanh" if block.opening is torch.tanh else "sigmoid"
    return state + opened(block, block.ffn_gate, kind) * update


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())) or "default")
def test_a_block_is_its_equations_in_outputs_and_gradients(family: str, settings: dict[str, Any]) -> None:
    case = Case.of(family, settings)
    found, expected = ours(case), by_hand(case)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, atol=1e-12, rtol=1e-10)
    gradients, wanted = case.gradients(found), case.gradients(expected)
    for name, gradient in gradients.items():
        other = wanted[name]
        if other is None:  # unused by the equations: nothing may flow there
            assert gradient is None or not gradient.any(), name
            continue
        assert gradient is not None, name
        if name in case.masks:  # an absent frame's state is zero, and what flows back to it moves nothing
            gradient, other = (one * case.masks[name][..., None] for one in (gradient, other))
        torch.testing.assert_close(gradient, other, atol=1e-11, rtol=1e-9, msg=name)


@pytest.mark.parametrize(("kind", "closed"), [("sigmoid", float("-inf")), ("tanh", 0.0)])
def test_a_closed_gate_changes_nothing_bit_for_bit(kind: str, closed: float) -> None:
    case = Case.of("llama", {"gate": kind})
    assert case.block.attention_gate is not None
    assert case.block.ffn_gate is not None
    case.block.attention_gate.data.fill_(closed)
    case.block.ffn_gate.data.fill_(closed)
    text, fusion = ours(case)
    assert torch.equal(text, case.text)
    assert torch.equal(fusion, case.fusion)


def test_gates_tell_what_they_multiply_by() -> None:
    assert Case.of("gpt2", {}).block.gates() == {"attention": 0.5, "ffn": 0.5}
    tanh = Case.of("gpt2", {"gate": "tanh", "gate_init": 0.7}).block.gates()
    assert tanh == pytest.approx({"attention": 0.60437, "ffn": 0.60437}, abs=1e-5)
    ungated = Case.of("gpt2", {"gate": "none"}).block
    assert ungated.gates() == {}
    assert not any(name.endswith("gate") for name in ungated.state_dict())


def test_frames_of_one_modality_are_asked_for_where_they_are_missing() -> None:
    case = Case.of("gpt2", {"fusion_groups": "separate"})
    joint = AudioVisualStates(case.frames["joint"], case.masks["joint"])
    with pytest.raises(ValueError, match="must have the frames of audio and of vision, but has joint ones alone"):
        case.block(case.text, case.fusion, joint)
