"""DeepMLF, assembled: frozen LM, fusion tokens, MM blocks, audiovisual encoder, heads."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deepmlf.config import ModelConfig
from deepmlf.errors import ConfigError
from deepmlf.model.av_encoder import AudioVisualEncoder, AudioVisualStates
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.mm_block import MMBlock
from deepmlf.model.softperm import SoftPerm


@dataclass(frozen=True)
class DeepMLFOutput:
    """Predictions of one batch."""

    task: Tensor
    """[batch, 1]"""
    text: Tensor
    """[batch, 1], from the last valid text token."""
    av: Tensor
    """[batch, 1], from the mean audiovisual frame."""
    fusion: Tensor
    """[batch, n, 1], from every fusion token."""
    text_states: Tensor
    """[batch, seq, d], the LM's normed last states of the text."""
    lm_logits: Tensor | None = None
    """[batch, seq + n, vocab], on request."""


def attention_mask_of(text_mask: Tensor, num_fusion_tokens: int) -> Tensor:
    """Boolean mask [batch, 1, seq+n, seq+n] over [text ; fusion], True where a query may attend.

    Causal, pad keys hidden. For two text tokens, one pad and two fusion tokens (rows are queries)::

        t x . . .        text sees earlier text,
        t x x . .        never a fusion token
        _ x x . .        (a pad's own output is unused)
        f x x . x .      a fusion token sees the valid text
        f x x . x x      and the fusion tokens before it

    A query that would see nothing (empty text) sees itself, or softmax would give NaN.
    """
    batch, _ = text_mask.shape
    keys = torch.cat([text_mask.bool(), text_mask.new_ones(batch, num_fusion_tokens, dtype=torch.bool)], dim=1)
    size = keys.shape[1]
    causal = torch.ones(size, size, dtype=torch.bool, device=keys.device).tril()
    mask = causal & keys[:, None, :]
    blind = ~mask.any(-1, keepdim=True)
    return (mask | (blind & torch.eye(size, dtype=torch.bool, device=keys.device)))[:, None]


class DeepMLF(nn.Module):
    """Deep multimodal fusion into a frozen decoder LM (arXiv:2504.11082).

    Holds trained weights only: the language model is shared, not registered, and is not part of the state dict.
    MM blocks outside ``active_layers`` (ascending, all ``fusion_layers`` at first) are skipped.

    Args:
        language_model: The frozen decoder, already cut to the layers in use.
        audio_dim: Features per audio frame.
        vision_dim: Features per vision frame.
        config: Sizes of all parts.

    Raises:
        ConfigError: If fused layers, heads or positions do not fit the language model.
    """

    def __init__(self, language_model: LanguageModel, audio_dim: int, vision_dim: int, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.language_model = language_model
        width, n = language_model.width, config.num_fusion_tokens
        config.check_fits(language_model.num_layers, width)
        if config.max_text_len + n > language_model.max_positions:
            raise ConfigError(
                f"model.max_text_len={config.max_text_len} and model.num_fusion_tokens={n}: the language model has "
                f"{language_model.max_positions} positions"
            )
        self.fusion_layers = config.resolve_fusion_layers(language_model.num_layers)
        self.active_layers = self.fusion_layers
        # First, so that with the same seed its initial weights do not depend on the fusion that is built after it.
        self.av_encoder = AudioVisualEncoder(audio_dim, vision_dim, config)
        self.av_head = nn.Linear(config.av_width, 1)
        self.fusion_tokens = nn.Parameter(torch.randn(n, width) * 0.02)
        self.mm_blocks = nn.ModuleDict(
            {str(layer): MMBlock(language_model, layer, config) for layer in self.fusion_layers}
        )
        self.text_softperm = SoftPerm(config.softperm_text_features, config.softperm_text_apply)
        self.task_head = nn.Sequential(
            nn.Linear(2 * width + config.av_width, config.head_width),
            nn.BatchNorm1d(config.head_width),
            nn.ReLU(),
            nn.Linear(config.head_width, 1),
        )
        self.text_head = nn.Linear(width, 1)
        self.fusion_head = nn.Linear(width, 1)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        audio: Tensor,
        vision: Tensor,
        *,
        audio_lengths: Tensor | None = None,
        vision_lengths: Tensor | None = None,
        lm_logits: bool = False,
    ) -> DeepMLFOutput:
        """Predict a batch; the same utterance gives the same outputs in any batch and under any padding.

        Args:
            input_ids: [batch, seq], right-padded, seq ≤ ``max_text_len``.
            attention_mask: [batch, seq], 1 on valid tokens.
            audio: [batch, time, audio_dim], zero beyond each length.
            vision: [batch, time, vision_dim].
            audio_lengths: [batch]; None takes all frames as real, as the authors' code does.
            vision_lengths: [batch].
            lm_logits: Also compute next-token logits at every position.
        """
        n, seq = self.config.num_fusion_tokens, input_ids.shape[1]
        lm = self.language_model
        av = self.av_encoder(audio, vision, audio_lengths, vision_lengths)
        text = self.text_softperm(lm.embed(input_ids), attention_mask.bool())
        hidden = torch.cat([text, self.fusion_tokens.to(text.dtype).expand(len(text), -1, -1)], dim=1)
        start = self.config.max_text_len
        positions = torch.cat([torch.arange(seq), torch.arange(start, start + n)]).to(hidden.device)
        hidden, rotary = lm.add_positions(hidden, positions)
        mask = attention_mask_of(attention_mask, n)
        for index in range(lm.num_layers):
            hidden = lm.layer(index, hidden, mask, rotary)
            if index in self.active_layers:
                hidden = self.mm_blocks[str(index)](hidden, n, av)
        hidden = lm.final_norm(hidden)
        return self._heads(hidden, attention_mask, av, lm.logits(hidden) if lm_logits else None)

    def _heads(
        self, hidden: Tensor, attention_mask: Tensor, av: AudioVisualStates, logits: Tensor | None
    ) -> DeepMLFOutput:
        n = self.config.num_fusion_tokens
        text_states, fusion_states = hidden[:, :-n], hidden[:, -n:]
        last = (attention_mask.sum(1) - 1).clamp(min=0)
        text = text_states[torch.arange(len(hidden), device=hidden.device), last]  # (B, d)
        pooled_av = av.mean()
        return DeepMLFOutput(
            task=self.task_head(torch.cat([fusion_states.mean(1), text, pooled_av], dim=1)),
            text=self.text_head(text),
            av=self.av_head(pooled_av),
            fusion=self.fusion_head(fusion_states),
            text_states=text_states,
            lm_logits=logits,
        )

    def predict_av(
        self, audio: Tensor, vision: Tensor, audio_lengths: Tensor | None = None, vision_lengths: Tensor | None = None
    ) -> Tensor:
        """The audiovisual head alone, [batch, 1]; the language model does not run (first curriculum stage)."""
        prediction: Tensor = self.av_head(self.av_encoder(audio, vision, audio_lengths, vision_lengths).mean())
        return prediction

    def gates(self) -> dict[str, float]:
        """Open fraction of each active MM block's gates, by fused layer: ``{"gate/9/attention": 0.5, ...}``."""
        return {
            f"gate/{layer}/{name.removesuffix('_gate')}": torch.sigmoid(gate.detach()).item()
            for layer in self.active_layers
            for name, gate in self.mm_blocks[str(layer)].named_parameters(recurse=False)
        }
