"""The settings of the model: sizes, which parts it has, where and how they meet.

No heavy imports: the CLI reads this module to answer ``--help``.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from deepmlf.errors import ConfigError


class Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(Frozen):
    language_model: str = Field("smollm2-135m", min_length=1)
    """A name that ``deepmlf lm get`` has made available, a local folder, or ``tiny-random``."""
    lm_layers: int | None = Field(None, ge=1)
    """Keep only the first so many layers of the language model; None keeps all."""
    max_text_len: int = Field(50, ge=1)
    """Longest text in tokens; fusion tokens sit at the positions that follow it."""
    special_tokens: Literal["tokenizer", "none"] = "tokenizer"
    """``tokenizer``: texts have the special tokens that the tokenizer gives them by itself (BERT's ``[CLS]`` and
    ``[SEP]``, Llama's ``<s>``; GPT-2 and SmolLM2 have none); ``none``: no text has any."""
    num_fusion_tokens: int = Field(8, ge=1, le=256)
    """Learnable fusion tokens appended to the text."""
    fusion_depth: int = Field(5, ge=1)
    """Number of MM blocks."""
    fusion_start: float = Field(0.45, ge=0.0, lt=1.0)
    """First fused layer, as a fraction of the language model's layers."""
    fusion_spacing: Literal["even", "top"] = "even"
    """``even``: from the first fused layer to the last layer; ``top``: the last layers, one after another."""
    fusion_layers: tuple[int, ...] | None = None
    """Explicit 0-based fused layers, ascending; overrides depth, start and spacing."""
    gate_init: float = 0.0
    """Initial value of the gates before the sigmoid (0 opens a gate by half)."""
    cross_attention_heads: int = Field(16, ge=1)
    """Heads of the gated cross-attention; must divide the language model's width."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Dropout inside the MM blocks."""
    ffn: Literal["full", "lora"] = "lora"
    """MM block's FFN: all weights trained, or the copied weights frozen with LoRA beside them."""
    lora_rank: int = Field(64, ge=1)
    """Rank of LoRA in the MM blocks' FFN."""
    lora_alpha: float = Field(128.0, gt=0.0)
    """LoRA's scale is ``lora_alpha / lora_rank``."""
    lora_dropout: float = Field(0.05, ge=0.0, lt=1.0)
    """Dropout on LoRA's input."""
    swiglu: Literal["multiply", "sum"] = "multiply"
    """How a Llama FFN joins gate and up; the authors' LoRA branch sums them."""
    head_width: int = Field(64, ge=1)
    """Hidden width of the task head."""
    av_width: int = Field(30, ge=2)
    """Width of the audiovisual encoder."""
    av_layers: int = Field(3, ge=0)
    """Transformer layers of each audiovisual encoder."""
    av_heads: int = Field(6, ge=1)
    """Attention heads of the audiovisual encoders; must divide ``av_width``."""
    av_frames: int = Field(50, ge=1)
    """Frames each modality is pooled to."""
    av_dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Dropout of the audiovisual encoders."""
    av_pooling: Literal["consecutive", "strided"] = "consecutive"
    """Mean over neighbouring frames (keeps time order) or over strided frames (the authors')."""
    av_batch_norm: Literal["none", "audio", "vision", "both"] = "none"
    """Modalities whose features pass through BatchNorm1d."""
    av_batch_norm_on: Literal["frames", "pooled"] = "frames"
    """What that normalises: frames as they come, or after pooling (the authors')."""
    softperm_text_features: float = Field(0.0, ge=0.0, le=1.0)
    """SoftPerm on text embeddings: probability that a feature of a sample is permuted in time."""
    softperm_text_apply: float = Field(0.0, ge=0.0, le=1.0)
    """SoftPerm on text embeddings: probability that a batch is augmented at all."""
    softperm_av_features: float = Field(0.0, ge=0.0, le=1.0)
    """SoftPerm on raw audio and vision features: probability per sample and feature."""

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.av_width % self.av_heads:
            raise ValueError(
                f"`av_heads` must divide `av_width`, but got (av_heads={self.av_heads}, av_width={self.av_width})"
            )
        layers = self.fusion_layers
        if layers is not None and (not layers or list(layers) != sorted(set(layers)) or layers[0] < 0):
            raise ValueError(f"`fusion_layers` must be ascending 0-based layers, but got {list(layers)}")
        return self

    @property
    def num_mm_blocks(self) -> int:
        """MM blocks, given explicitly or by depth."""
        return self.fusion_depth if self.fusion_layers is None else len(self.fusion_layers)

    def check_fits(self, num_layers: int, width: int) -> None:
        """Check fused layers and cross-attention heads against a language model's depth and width.

        Raises:
            ConfigError: If a fused layer lies outside it, or the heads do not divide its width.
        """
        self.resolve_fusion_layers(num_layers)
        if width % self.cross_attention_heads:
            raise ConfigError(
                f"model.cross_attention_heads={self.cross_attention_heads}: "
                f"must divide the language model's width {width}"
            )

    def check_positions(self, count: int, within: str = "") -> None:
        """Check text and fusion tokens against a language model's positions.

        Args:
            count: Positions that it reads as it was trained to.
            within: What ends there, if not the positions themselves.

        Raises:
            ConfigError: If there are more tokens.
        """
        if self.max_text_len + self.num_fusion_tokens > count:
            where = f" {within}" if within else ""
            raise ConfigError(
                f"model.max_text_len={self.max_text_len} and model.num_fusion_tokens={self.num_fusion_tokens}: "
                f"the language model has {count} positions{where}"
            )

    def resolve_fusion_layers(self, num_layers: int) -> tuple[int, ...]:
        """The 0-based layers of a language model with `num_layers` layers that get an MM block.

        Raises:
            ConfigError: If the depth or an explicit layer does not fit the language model.
        """
        if self.fusion_layers is not None:
            if self.fusion_layers[-1] >= num_layers:
                raise ConfigError(
                    f"model.fusion_layers={list(self.fusion_layers)}: "
                    f"the language model has layers 0 to {num_layers - 1}"
                )
            return self.fusion_layers
        first = int(self.fusion_start * num_layers)
        if self.fusion_spacing == "top":
            first = max(first, num_layers - self.fusion_depth)
        if self.fusion_depth > num_layers - first:
            raise ConfigError(
                f"model.fusion_depth={self.fusion_depth}: at most {num_layers - first} of the language model's "
                f"{num_layers} layers lie at or above model.fusion_start={self.fusion_start}"
            )
        if self.fusion_spacing == "top":
            return tuple(range(num_layers - self.fusion_depth, num_layers))
        if self.fusion_depth == 1:
            return (num_layers - 1,)
        step = (num_layers - 1 - first) / (self.fusion_depth - 1)
        return tuple(round(first + i * step) for i in range(self.fusion_depth))
