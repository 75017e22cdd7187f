"""The MM block: gated cross-attention from fusion tokens, or text, to audiovisual frames, then a gated FFN."""

import copy
import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmlf.config.model import ModelConfig
from deepmlf.model.av_encoder import AudioVisualStates
from deepmlf.model.dropout import Dropout, dropout
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.ffn import linears_of


class GatedCrossAttention(nn.Module):
    """Cross-attention of fusion tokens [batch, n, d] over audiovisual frames [batch, A, e]; no biases."""

    def __init__(self, width: int, av_width: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"`heads` must divide the language model's width, but got (heads={heads}, width={width})")
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(av_width, width, bias=False)
        self.value = nn.Linear(av_width, width, bias=False)
        self.output = nn.Linear(width, width, bias=False)

    def forward(self, fusion: Tensor, av: AudioVisualStates) -> Tensor:
        """[batch, n, d] from [batch, n, d]; zero where a sample has no audiovisual frame."""
        attended = self._attended(self._split_heads(self.query(fusion)), av)
        return dropout(self.output(attended.transpose(1, 2).flatten(2)), self.dropout, self.training)

    def _attended(self, query: Tensor, av: AudioVisualStates) -> Tensor:
        return self._attend(query, self.key, self.value, av)

    def _attend(self, query: Tensor, key: nn.Linear, value: nn.Linear, av: AudioVisualStates) -> Tensor:
        return F.scaled_dot_product_attention(
            query,
            self._split_heads(key(av.frames)),
            self._split_heads(value(av.frames)),
            attn_mask=self._visible(av),
            dropout_p=self.dropout if self.training else 0.0,
        )

    def attention_weights(self, fusion: Tensor, av: AudioVisualStates) -> Tensor:
        """What each fusion token takes from each frame, [batch, heads, n, A]: rows sum to 1, absent frames have 0.

        Of the same inputs as `forward`, whose kernel never lays these weights down in memory.
        """
        return self._weights(self._split_heads(self.query(fusion)), av)

    def _weights(self, query: Tensor, av: AudioVisualStates) -> Tensor:
        return self._weigh(query, self.key, av)

    def _weigh(self, query: Tensor, key: nn.Linear, av: AudioVisualStates) -> Tensor:
        keys = self._split_heads(key(av.frames)).float()
        scores = query.float() @ keys.transpose(-2, -1) / math.sqrt(query.shape[-1])
        return scores.masked_fill(~self._visible(av), -math.inf).softmax(-1)

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D)

    @staticmethod
    def _visible(av: AudioVisualStates) -> Tensor:
        # Without any frame, values are zero (masked frames are), so attending to all of them yields zero, not NaN.
        return (av.mask | ~av.mask.any(1, keepdim=True))[:, None, None, :]


class GroupedCrossAttention(GatedCrossAttention):
    """The same of groups of fusion tokens: those of audio attend to audio's frames, those of vision to vision's.

    Each kind of frames has keys and values of its own; queries and output are those of all tokens.

    Args:
        width: d
        av_width: e
        heads: Of the attention.
        dropout: On weights and output.
        group_sizes: ``ModelConfig.group_sizes``
    """

    def __init__(
        self, width: int, av_width: int, heads: int, dropout: float, group_sizes: tuple[int, int, int]
    ) -> None:
        super().__init__(width, av_width, heads, dropout)
        self.group_sizes = group_sizes
        self.audio_key, self.audio_value = (nn.Linear(av_width, width, bias=False) for _ in range(2))
        self.vision_key, self.vision_value = (nn.Linear(av_width, width, bias=False) for _ in range(2))

    def _attended(self, query: Tensor, av: AudioVisualStates) -> Tensor:
        return torch.cat([self._attend(*group) for group in self._groups(query, av)], dim=2)

    def _weights(self, query: Tensor, av: AudioVisualStates) -> Tensor:
        groups = self._groups(query, av)
        return torch.cat([self._weigh(own, key, frames) for own, key, _, frames in groups], dim=2)

    def _groups(
        self, query: Tensor, av: AudioVisualStates
    ) -> list[tuple[Tensor, nn.Linear, nn.Linear, AudioVisualStates]]:
        """Queries of each group, and the keys, values and frames that they attend to."""
        if av.audio is None or av.vision is None:
            raise ValueError("`av` must have the frames of audio and of vision, but has joint ones alone")
        audio, vision, shared = query.split(self.group_sizes, dim=2)
        return [
            (audio, self.audio_key, self.audio_value, av.audio),
            (vision, self.vision_key, self.vision_value, av.vision),
            (shared, self.key, self.value, av),
        ]


class LoRA(nn.Module):
    """A low-rank update x·A·B·(α/r); B starts at zero, so it starts as no update."""

    def __init__(self, inputs: int, outputs: int, config: ModelConfig) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.empty(inputs, config.lora_rank))
        self.b = nn.Parameter(torch.zeros(config.lora_rank, outputs))
        nn.init.normal_(self.a, std=1 / math.sqrt(inputs))
        self.scale = config.lora_alpha / config.lora_rank
        self.dropout = Dropout(config.lora_dropout)

    def forward(self, values: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        return self.dropout(values) @ self.a @ (self.b * self.scale)


class FeedForward(nn.Module):
    """An FFN that starts as one of the language model's own: its weights trained, or frozen with LoRA beside them.

    GPT-2 family: up → GELU (exact) → down → dropout. Llama family: down(silu(gate) · up). Another activation of the
    language model's, and its biases, are taken over.
    Frozen weights share the language model's memory. Trained ones are float32 whatever its type: in bfloat16 most steps
    of the optimiser would be rounded away.
    """

    def __init__(self, weights: dict[str, Tensor], activation: Callable[[Tensor], Tensor], config: ModelConfig) -> None:
        super().__init__()
        trained = config.ffn == "full"
        for name, tensor in weights.items():
            data = tensor.detach()
            if trained:  # GPT-2 stores [in, out]; the optimiser is fast on contiguous weights alone
                data = data.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
            self.register_parameter(name, nn.Parameter(data, requires_grad=trained))
        matrices = [name for name in ("gate", "up", "down") if name in weights]
        self.lora = (
            None
            if trained
            else nn.ModuleDict(
                {name: LoRA(weights[name].shape[1], weights[name].shape[0], config) for name in matrices}
            )
        )
        self._activation = activation
        self.is_swiglu = "gate" in weights
        self.sums_gate = config.swiglu == "sum"
        self.dropout = Dropout(config.dropout)

    def _linear(self, name: str, values: Tensor) -> Tensor:
        output = F.linear(values, getattr(self, name), getattr(self, f"{name}_bias", None))
        return output if self.lora is None else output + self.lora[name](values)

    def forward(self, values: Tensor) -> Tensor:
        """[..., d] to [..., d]."""
        if not self.is_swiglu:
            return self.dropout(self._linear("down", self._activation(self._linear("up", values))))
        gate, up = self._activation(self._linear("gate", values)), self._linear("up", values)
        return self._linear("down", gate + up if self.sums_gate else gate * up)


class CopiedFeedForward(nn.Module):
    """An FFN of any form that starts as one of the language model's own, with LoRA beside each of its linear maps.

    It runs by the language model's code. Frozen weights share its memory; trained ones are float32.
    """

    def __init__(self, source: nn.Module, config: ModelConfig) -> None:
        super().__init__()
        trained = config.ffn == "full"
        shared = {} if trained else {id(parameter): parameter for parameter in source.parameters()}
        self.copy = copy.deepcopy(source, shared)
        if trained:
            self.copy.float().requires_grad_(True)
        self.lora = nn.ModuleDict()
        for name, (linear, inputs, outputs) in ({} if trained else linears_of(self.copy)).items():
            lora = LoRA(inputs, outputs, config)
            self.lora[name.replace(".", "_")] = lora
            linear.register_forward_hook(partial(_beside, lora))
        self.dropout = Dropout(config.dropout)

    def train(self, mode: bool = True) -> "CopiedFeedForward":
        """Dropout inside the copy stays off, as in the language model; its own is at the end."""
        super().train(mode)
        self.copy.eval()
        return self

    def forward(self, values: Tensor) -> Tensor:
        """[..., d] to [..., d]."""
        return self.dropout(self.copy(values))


def _beside(lora: LoRA, linear: nn.Module, inputs: tuple[Tensor], output: Tensor) -> Tensor:
    return output + lora(inputs[0])


def _feed_forward(language_model: LanguageModel, layer: int, config: ModelConfig) -> nn.Module:
    weights = language_model.ffn_weights(layer)
    if weights is None:
        return CopiedFeedForward(language_model.ffn(layer), config)
    return FeedForward(weights, language_model.activation(layer), config)


OPENINGS: dict[str, Callable[[Tensor], Tensor]] = {"sigmoid": torch.sigmoid, "tanh": torch.tanh}
"""What a gate α multiplies by, under ``model.gate``."""


class MMBlock(nn.Module):
    """A multimodal block after one LM layer (DeepMLF, MM block).

    u = h_f + g(α₁)·CrossAttention(Norm₁(h_f), c);  z = [h_t ; u];  out = z + g(α₂)·FFN(Norm₂(z)).

    g is the sigmoid (DeepMLF), tanh (Flamingo, arXiv:2204.14198), or 1 without any α. A sigmoid's gate driven to -inf
    and a tanh's of 0 give the language model back, bit for bit. Without fusion tokens h_t takes the place of h_f, and
    z = u.

    Args:
        language_model: Lends norms and FFN.
        layer: The LM layer that the block follows.
        config: Sizes, gates, and which states the FFN acts on.
        block: Its number among the MM blocks, from the lowest.
    """

    attention_gate: nn.Parameter | None
    ffn_gate: nn.Parameter | None

    def __init__(self, language_model: LanguageModel, layer: int, config: ModelConfig, block: int = 0) -> None:
        super().__init__()
        self.opening = OPENINGS.get(config.gate)
        for name in ("attention_gate", "ffn_gate"):
            gate = None if self.opening is None else nn.Parameter(torch.tensor([config.gate_init_of(block)]))
            self.register_parameter(name, gate)
        self.attention_norm = language_model.new_norm()
        self.ffn_norm = language_model.new_norm()
        sizes = language_model.width, config.av_width, config.cross_attention_heads, config.dropout
        self.attention = (
            GatedCrossAttention(*sizes)
            if config.fusion_groups == "shared"
            else GroupedCrossAttention(*sizes, config.group_sizes)
        )
        self.ffn = _feed_forward(language_model, layer, config)
        self.changes_text = config.ffn_on == "all"

    def forward(self, text: Tensor, fusion: Tensor, av: AudioVisualStates) -> tuple[Tensor, Tensor]:
        """Text rows [rows, d], of all utterances together, and fusion tokens [batch, n, d] to the same."""
        fusion = self.cross_attend(fusion, av)
        if not self.changes_text:
            return text, self.feed_forward(fusion)
        joined = self.feed_forward(torch.cat([text, fusion.flatten(0, 1)]))  # (rows + B·n, d)
        # Of slices, each gradient would be laid out whole, zeros included.
        text, own = joined.split([len(text), len(joined) - len(text)])
        return text, own.view_as(fusion)

    def cross_attend(self, states: Tensor, av: AudioVisualStates) -> Tensor:
        """u of fusion tokens [batch, n, d], or of text [batch, seq, d]."""
        return states + self._gated(self.attention_gate, states, self.attention(self.attention_norm(states), av))

    def feed_forward(self, states: Tensor) -> Tensor:
        """The block's output from z, [..., d]."""
        return states + self._gated(self.ffn_gate, states, self.ffn(self.ffn_norm(states)))

    def _gated(self, gate: Tensor | None, states: Tensor, update: Tensor) -> Tensor:
        if gate is None or self.opening is None:
            return update
        # In the states' own type, or a float32 gate would lift a bfloat16 residual stream to float32.
        return self.opening(gate).to(states.dtype) * update

    def gates(self) -> dict[str, float]:
        """What its gates multiply by: ``{"attention": 0.5, "ffn": 0.5}``; nothing if it has none."""
        if self.opening is None:
            return {}
        gates = self.named_parameters(recurse=False)
        return {name.removesuffix("_gate"): self.opening(gate.detach()).item() for name, gate in gates}
