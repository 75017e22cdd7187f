"""The configuration of one trial, and the overrides that users and search spaces apply to it.

A hyperparameter's name is its dotted path here (``model.num_fusion_tokens``), everywhere.
No heavy imports: the CLI reads this module to answer ``--help``.
"""

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from deepmlf.config.model import Frozen, ModelConfig
from deepmlf.errors import ConfigError
from deepmlf.seal import sealed

Part = Literal["av_encoder", "fusion", "heads"]
LossTerm = Literal["task", "fusion", "av", "text", "lm"]

SEED_LIMIT = 2**32
"""Seeds of trials, searches and samplers are below it."""
_WARMUP_SHARE = 0.2  # of a stage's epochs, at most so much is warm-up


class DataConfig(Frozen):
    path: str = ""
    """Folder of an imported dataset (``deepmlf data import`` or ``data synthetic``)."""
    standardize: bool = True
    """Subtract each feature's mean and divide by its standard deviation, both of the train split (the authors do
    not)."""
    train_share: float = Field(1.0, gt=0.0, le=1.0)
    """Share of the train split's utterances that are trained on. They are drawn once for all, not by ``training.seed``,
    and those of a smaller share are among those of a larger one."""


class TrainingConfig(Frozen):
    epochs: int = Field(15, ge=1)
    """Fusion epochs: the fidelity that a scheduler counts."""
    batch_size: int = Field(32, ge=2)
    """Utterances per batch (batch norm needs two)."""
    accumulation_steps: int = Field(1, ge=1)
    """Batches whose gradients make one optimiser step."""
    accumulation: Literal["mean", "sum"] = "mean"
    """How they make it, which decides what ``clip_value`` cuts; the authors sum."""
    lr_fusion: float = Field(1e-4, gt=0.0)
    """Peak learning rate of fusion tokens, MM blocks and heads."""
    lr_av: float = Field(1e-3, gt=0.0)
    """Peak learning rate of the audiovisual encoder."""
    min_lr: float = Field(1e-7, ge=0.0)
    """Learning rate at the end of the cosine."""
    cosine_epochs: int = Field(0, ge=0)
    """Epochs after which the cosine of a fusion stage is at its end, however many the stage has; 0: those that it has
    (the authors set a number and stop earlier)."""
    warmup_epochs: float = Field(1.0, ge=0.0)
    """Epochs of linear warm-up at the start of each stage, but at most a fifth of it."""
    weight_decay: float = Field(1e-2, ge=0.0)
    """AdamW's decay."""
    decayed: Literal["matrices", "all_but_biases"] = "matrices"
    """What it reaches: ``all_but_biases`` takes in gates and the weights of norms (the authors')."""
    clip_value: float = Field(5.0, gt=0.0)
    """Gradients are clipped to this absolute value."""
    clip_av: bool = True
    """Whether those of the audiovisual encoder are, too (the authors' are not)."""
    loss_fusion: float = Field(1.0, ge=0.0)
    """λ_f: weight of the fusion tokens' L1 loss."""
    loss_av: float = Field(1.0, ge=0.0)
    """λ_av: weight of the audiovisual head's L1 loss."""
    loss_text: float = Field(1.0, ge=0.0)
    """λ_t: weight of the text head's L1 loss."""
    loss_lm: float = Field(0.0, ge=0.0)
    """γ: weight of the next-token loss."""
    ulgm: bool = False
    """Text, AV and fusion heads learn unimodal labels that training generates (ULGM of Self-MM), not the task's."""
    ulgm_from_epoch: int = Field(2, ge=2)
    """First fusion epoch that generates labels (Self-MM: 2); heads are trained on them from the next one on."""
    ulgm_limit: float | None = Field(None, gt=0.0)
    """Largest generated label by absolute value, H; None takes that of the labels trained on (3, of CH-SIMS 1)."""
    select_by: str = "MAE"
    """Validation metric, one of the dataset's task, that picks the best epoch and that patience watches."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many fusion epochs without a better value of ``select_by``; None never stops."""
    language_loss: bool = False
    """Report the next-token loss on validation texts after each fusion epoch (``language/loss``), beside that of the
    language model by itself (``language/frozen_loss``)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """``bfloat16`` runs the forward pass under autocast."""
    device: str = Field("auto", pattern=r"^(auto|cpu|cuda|mps|xpu)(:\d+)?$")
    """``auto`` takes a GPU if there is one, in a search if the trial holds one; else a torch device."""
    seed: int = Field(0, ge=0, lt=SEED_LIMIT)
    """Seed of initial weights, batches, dropout and SoftPerm."""

    def warmup_of(self, epochs: int) -> float:
        """Epochs of warm-up of a stage of so many."""
        return min(self.warmup_epochs, epochs * _WARMUP_SHARE)


class Stage(Frozen):
    name: str
    """Shown in TensorBoard and logs."""
    trains: tuple[Part, ...]
    """Parts whose weights change; of the heads those whose loss counts."""
    losses: tuple[LossTerm, ...]
    """Loss terms that count."""
    epochs: int = Field(ge=1)
    """Epochs of this stage."""
    lr: float | None = Field(None, gt=0.0)
    """Peak learning rate of all that trains; None takes ``training.lr_fusion`` and ``training.lr_av``."""
    active_blocks: int | None = Field(None, ge=1)
    """MM blocks in use, counted from the top; None uses all."""
    batch_size: int | None = Field(None, ge=1)
    """Utterances per batch; None takes ``training.batch_size``, as the next two take their namesakes."""
    accumulation_steps: int | None = Field(None, ge=1)
    """Batches whose gradients make one optimiser step."""
    weight_decay: float | None = Field(None, ge=0.0)
    """AdamW's decay."""

    @property
    def is_fusion(self) -> bool:
        """Whether its epochs count as fidelity."""
        return "fusion" in self.trains

    @property
    def is_av_alone(self) -> bool:
        """Whether it trains the audiovisual encoder and its head on the labels, without the language model."""
        return self.losses == ("av",)


class CurriculumConfig(Frozen):
    name: Literal["joint", "av_first", "av_frozen", "unimodal_first", "grow_depth"] = "av_first"
    """``joint``: none. ``av_first``: AV encoder alone, then all. ``av_frozen``: then all but the AV encoder.
    ``unimodal_first``: AV encoder alone, text head alone, then all. ``grow_depth``: MM blocks join one by one from the
    top; all of it is fusion."""
    av_epochs: int = Field(5, ge=1)
    """Epochs of the audiovisual encoder alone (``av_first``, ``av_frozen``, ``unimodal_first``); the most, if
    ``av_patience`` may end them."""
    av_share: float | None = Field(None, ge=0.0, lt=1.0)
    """The same as a share of ``training.epochs``, at least one epoch; overrides ``av_epochs``."""
    av_lr: float = Field(1e-3, gt=0.0)
    """Peak learning rate of that stage."""
    av_schedule: Literal["cosine", "plateau"] = "cosine"
    """Warm-up and cosine, or ``av_lr`` from the start and a tenth of it after each plateau of the validation MAE (the
    authors')."""
    av_plateau: int = Field(5, ge=0)
    """Epochs without a better one that a plateau may last."""
    av_patience: int | None = Field(None, ge=1)
    """End that stage after so many epochs without a better validation MAE (the authors: 8); None runs all of them."""
    av_weights: Literal["last", "best"] = "last"
    """Epoch whose weights go on: the last one, or that of the best validation MAE (the authors')."""
    av_readout: Literal["mean", "last"] = "mean"
    """What the head reads in that stage: the mean over frames as in fusion, or the last frame (the authors')."""
    av_batch_size: int | None = Field(None, ge=1)
    """Utterances per batch of that stage; None takes ``training.batch_size``, as the next two take their namesakes.
    Trials that differ in fusion alone then share the stage."""
    av_accumulation_steps: int | None = Field(None, ge=1)
    """Batches whose gradients make one optimiser step of that stage."""
    av_weight_decay: float | None = Field(None, ge=0.0)
    """AdamW's decay in that stage."""
    text_epochs: int = Field(2, ge=1)
    """Epochs of the text head alone (``unimodal_first``)."""
    text_share: float | None = Field(None, ge=0.0, lt=1.0)
    """The same as a share of ``training.epochs``, at least one epoch; overrides ``text_epochs``."""
    text_lr: float = Field(1e-3, gt=0.0)
    """Peak learning rate of that stage."""
    grow_share: float = Field(0.5, ge=0.0, lt=1.0)
    """Share of ``training.epochs`` in which MM blocks are still missing (``grow_depth``); the rest, at least one epoch,
    has them all. With fewer growing epochs than blocks to join, several join at once."""


class TrialConfig(Frozen):
    """One trial, whole.

    >>> config = TrialConfig.from_overrides({"model.fusion_depth": 3, "training.epochs": 5})
    >>> config.model.fusion_depth, config.flat()["curriculum.name"]
    (3, 'av_first')
    >>> config.model.resolve_fusion_layers(30)
    (13, 21, 29)
    """

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    curriculum: CurriculumConfig = CurriculumConfig()

    @model_validator(mode="after")
    def _check(self) -> "TrialConfig":
        if self.curriculum.name == "unimodal_first" and self.model.num_fusion_tokens == 0:
            raise ValueError(
                "curriculum.name=unimodal_first: with model.num_fusion_tokens=0 the text attends to audio and vision, "
                "so that its head cannot be trained alone; take another curriculum, or fusion tokens"
            )
        return self

    @classmethod
    def from_overrides(cls, *layers: Mapping[str, Any]) -> "TrialConfig":
        """Build a config from dotted overrides; a later layer wins.

        Raises:
            ConfigError: With the path, the value and what is allowed.
        """
        tree: dict[str, Any] = {}
        for overrides in layers:
            for path, value in overrides.items():
                section, _, field = path.partition(".")
                known = cls.model_fields.get(section)
                fields = known.annotation.model_fields if known and field else {}  # type: ignore[union-attr]
                if field not in fields:
                    there = (
                        f"{section} has {', '.join(fields)}"
                        if fields
                        else f"sections are {', '.join(cls.model_fields)}"
                    )
                    raise ConfigError(f"{path}: no such setting{_meant(path, cls().flat())}; {there}")
                tree.setdefault(section, {})[field] = value
        return cls.from_dict(tree)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "TrialConfig":
        """Build a config from nested plain values, e.g. a parsed JSON or TOML file.

        Raises:
            ConfigError: With the path, the value and what is allowed.
        """
        try:
            return cls.model_validate(tree)
        except ValidationError as error:
            raise ConfigError(first_fault(error)) from None

    def placed(
        self, *, data: str | None = None, language_model: str | None = None, device: str | None = None
    ) -> "TrialConfig":
        """The same trial where data or language model have another place, or on another device; None changes none."""
        moved: dict[str, Any] = {}
        if data is not None:
            moved["data"] = self.data.model_copy(update={"path": data})
        if language_model is not None:
            moved["model"] = self.model.model_copy(update={"language_model": language_model})
        if device is not None:
            moved["training"] = self.training.model_copy(update={"device": device})
        return self.model_copy(update=moved)

    def flat(self) -> dict[str, Any]:
        """All settings under their dotted names."""
        tree = self.model_dump(mode="json")
        return {f"{section}.{name}": value for section, fields in tree.items() for name, value in fields.items()}

    def to_json(self) -> str:
        """Indented JSON with a checksum; ``from_dict(unsealed(json.loads(...)))`` reads it back."""
        return json.dumps(sealed(self.model_dump(mode="json")), indent=2)


def first_fault(error: ValidationError) -> str:
    """The first thing that a model refuses, on one line: path, value, and what is allowed."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"{path}: no such setting"
    if first["type"] == "missing":
        return f"{path}: is missing"
    value = "" if isinstance(first["input"], dict) else f"={first['input']!r}"
    place = f"{path}{value}: " if path else ""
    return f"{place}{first['msg'].removeprefix('Value error, ')}"


def _meant(path: str, known: Iterable[str]) -> str:
    """A question for a name that is nearly one of those known, or nothing."""
    near = difflib.get_close_matches(path, known, n=1, cutoff=0.75)
    return f" (did you mean {near[0]}?)" if near else ""
