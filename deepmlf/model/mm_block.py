"""The MM block: gated cross-attention from fusion tokens to audiovisual frames, then a gated FFN."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from deepmlf.config import ModelConfig
from deepmlf.model.av_encoder import AudioVisualStates
from deepmlf.model.dropout import Dropout, dropout
from deepmlf.model.language_model import LanguageModel


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
        query, key, value = (
            self._split_heads(linear(states))
            for linear, states in ((self.query, fusion), (self.key, av.frames), (self.value, av.frames))
        )
        attended = F.scaled_dot_product_attention(
            query, key, value, attn_mask=self._visible(av), dropout_p=self.dropout if self.training else 0.0
        )
        return dropout(self.output(attended.transpose(1, 2).flatten(2)), self.dropout, self.training)

    def attention_weights(self, fusion: Tensor, av: AudioVisualStates) -> Tensor:
        """What each fusion token takes from each frame, [batch, heads, n, A]: rows sum to 1, absent frames have 0.

        Of the same inputs as `forward`, whose kernel never lays these weights down in memory.
        """
        query, key = self._split_heads(self.query(fusion)).float(), self._split_heads(self.key(av.frames)).float()
        scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
        return scores.masked_fill(~self._visible(av), -math.inf).softmax(-1)

    def _split_heads(self, states: Tensor) -> Tensor:
        return states.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, T, D)

    @staticmethod
    def _visible(av: AudioVisualStates) -> Tensor:
        # Without any frame, values are zero (masked frames are), so attending to all of them yields zero, not NaN.
        return (av.mask | ~av.mask.any(1, keepdim=True))[:, None, None, :]


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


class MMBlock(nn.Module):
    """A multimodal block after one LM layer (DeepMLF, MM block).

    u = h_f + σ(α₁)·CrossAttention(Norm₁(h_f), c);  z = [h_t ; u];  out = z + σ(α₂)·FFN(Norm₂(z)).
    A gate driven to -inf gives the language model back, bit for bit.
    """

    def __init__(self, language_model: LanguageModel, layer: int, config: ModelConfig) -> None:
        super().__init__()
        self.attention_gate = nn.Parameter(torch.tensor([config.gate_init]))
        self.ffn_gate = nn.Parameter(torch.tensor([config.gate_init]))
        self.attention_norm = language_model.new_norm()
        self.ffn_norm = language_model.new_norm()
        self.attention = GatedCrossAttention(
            language_model.width, config.av_width, config.cross_attention_heads, config.dropout
        )
        self.ffn = FeedForward(language_model.ffn_weights(layer), language_model.activation(layer), config)

    def forward(self, text: Tensor, fusion: Tensor, av: AudioVisualStates) -> tuple[Tensor, Tensor]:
        """Text rows [rows, d], of all utterances together, and fusion tokens [batch, n, d] to the same."""
        fusion = fusion + self._open(self.attention_gate, fusion) * self.attention(self.attention_norm(fusion), av)
        joined = torch.cat([text, fusion.flatten(0, 1)])  # (rows + B·n, d)
        joined = joined + self._open(self.ffn_gate, joined) * self.ffn(self.ffn_norm(joined))
        return joined[: len(text)], joined[len(text) :].view_as(fusion)

    @staticmethod
    def _open(gate: Tensor, states: Tensor) -> Tensor:
        # In the states' own type, or a float32 gate would lift a bfloat16 residual stream to float32.
        return gate.sigmoid().to(states.dtype)
