"""The settings of the model: sizes, which parts it has, where and how they meet.

No heavy imports: the CLI reads this module to answer ``--help``.
"""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from deepmlf.errors import ConfigError

_GROUPS = 3  # of fusion tokens: audio, vision, both


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
    num_fusion_tokens: int = Field(8, ge=0, le=256)
    """Learnable fusion tokens appended to the text. 0: none; the text's own states attend to audio and vision, as in
    Flamingo, and the prediction is made from the last text token and the mean frame."""
    fusion_groups: Literal["shared", "separate"] = "shared"
    """``shared``: every fusion token attends to the joint audiovisual frames. ``separate``: the first third of them
    attends to audio alone, the second to vision alone, the others (a third, and what is left over) to the joint frames;
    needs 3 tokens at least, and data with both modalities."""
    fusion_depth: int = Field(5, ge=1)
    """Number of MM blocks."""
    fusion_start: float = Field(0.45, ge=0.0, lt=1.0)
    """First fused layer, as a fraction of the language model's layers."""
    fusion_spacing: Literal["even", "top"] = "even"
    """``even``: from the first fused layer to the last layer; ``top``: the last layers, one after another."""
    fusion_layers: tuple[int, ...] | None = None
    """Explicit 0-based fused layers, ascending; overrides depth, start and spacing."""
    gate: Literal["sigmoid", "tanh", "none"] = "sigmoid"
    """What multiplies the output of an MM block's cross-attention and of its FFN: the sigmoid of a trained scalar, its
    hyperbolic tangent (Flamingo's), or nothing."""
    gate_init: float | tuple[float, ...] = 0.0
    """Initial value of the gates before the sigmoid (0 opens a gate by half) or the tanh (0 closes it), or one for each
    MM block, the lowest first."""
    cross_attention_heads: int = Field(16, ge=1)
    """Heads of the gated cross-attention; must divide the language model's width."""
    dropout: float = Field(0.1, ge=0.0, lt=1.0)
    """Dropout inside the MM blocks."""
    ffn_on: Literal["all", "fusion"] = "all"
    """States that the MM blocks' FFN acts on: text and fusion tokens (the authors'), or fusion tokens alone, so that
    the text's are those of the language model."""
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
    embedding_noise: float = Field(0.0, ge=0.0)
    """NEFTune on text embeddings, in training: α of uniform noise of at most α/√(L·d) per feature, for a text of L
    tokens of width d (arXiv:2310.05914, where 5 to 15 were tried)."""
    embedding_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    """Dropout on the features of text embeddings, in training."""
    softperm_av_features: float = Field(0.0, ge=0.0, le=1.0)
    """SoftPerm on raw audio and vision features: probability per sample and feature."""

    @field_validator("gate_init", mode="wrap")
    @classmethod
    def _with_one_fault(cls, value: Any, check: ValidatorFunctionWrapHandler) -> Any:
        """Of a union pydantic names the fault of each member, under the member's name."""
        try:
            return check(value)
        except ValidationError as error:
            is_list = isinstance(value, (list, tuple))
            faults = [fault for fault in error.errors() if str(fault["loc"][0]).startswith("tuple") == is_list]
            raise ValueError(faults[0]["msg"]) from None

    @model_validator(mode="after")
    def _check(self) -> "ModelConfig":
        if self.av_width % self.av_heads:
            raise ValueError(
                f"`av_heads` must divide `av_width`, but got (av_heads={self.av_heads}, av_width={self.av_width})"
            )
        layers = self.fusion_layers
        if layers is not None and (not layers or list(layers) != sorted(set(layers)) or layers[0] < 0):
            raise ValueError(f"`fusion_layers` must be ascending 0-based layers, but got {list(layers)}")
        if isinstance(self.gate_init, tuple) and len(self.gate_init) != self.num_mm_blocks:
            raise ValueError(
                f"`gate_init` must be one number, or one for each of the {self.num_mm_blocks} MM blocks, "
                f"but got {len(self.gate_init)}"
            )
        if self.fusion_groups == "separate" and self.num_fusion_tokens < _GROUPS:
            raise ValueError(
                f"`fusion_groups`=separate needs at least {_GROUPS} fusion tokens, but got "
                f"num_fusion_tokens={self.num_fusion_tokens}"
            )
        if self.ffn_on == "fusion" and self.num_fusion_tokens == 0:
            raise ValueError("`ffn_on`=fusion needs fusion tokens, but got num_fusion_tokens=0")
        return self

    @property
    def num_mm_blocks(self) -> int:
        """MM blocks, given explicitly or by depth."""
        return self.fusion_depth if self.fusion_layers is None else len(self.fusion_layers)

    @property
    def group_sizes(self) -> tuple[int, int, int]:
        """Fusion tokens that attend to audio alone, to vision alone, and to the joint frames, in their order."""
        own = self.num_fusion_tokens // _GROUPS if self.fusion_groups == "separate" else 0
        return own, own, self.num_fusion_tokens - 2 * own

    def gate_init_of(self, block: int) -> float:
        """Initial value of the gates of an MM block, counted from the lowest."""
        return self.gate_init[block] if isinstance(self.gate_init, tuple) else self.gate_init

    def check_modalities(self, missing: Sequence[str]) -> None:
        """Check groups of fusion tokens against a dataset.

        Args:
            missing: Modalities that no utterance of it has.

        Raises:
            ConfigError: If a group would attend to one of them.
        """
        if self.fusion_groups == "separate" and missing:
            raise ConfigError(
                f"model.fusion_groups=separate: the dataset has no {' and no '.join(missing)}; take shared"
            )

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
