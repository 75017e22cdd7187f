"""A DeepMLF as a folder in Hugging Face's manner: config.json, model.safetensors, tokenizer files, a model card.

The frozen language model stays out: the folder names it, with a fingerprint of its weights.
"""

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import save_file
from torch import Tensor

from deepmlf.config.earlier import model_section, trained_on_section
from deepmlf.config.model import ModelConfig
from deepmlf.config.trial import first_fault
from deepmlf.data.dataset import DatasetInfo
from deepmlf.errors import CheckpointError, LanguageModelError
from deepmlf.files import new_folder
from deepmlf.model import lm_store
from deepmlf.model.language_model import LanguageModel, load_language_model
from deepmlf.model.lm.tokenizer import ByteTokenizer, Tokenizer
from deepmlf.model.weights import read_tensors
from deepmlf.seal import file_sum, read_document, sealed
from deepmlf.version import __version__

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
MODEL_TYPE = "deepmlf"
FORMAT_VERSION = 2  # 1: releases up to 0.1, whose models predict a number


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class LanguageModelRecord(_Frozen):
    """The frozen language model that the weights belong to; its name is ``model.language_model``."""

    num_layers: int
    """Layers in use, from the first."""
    width: int
    """Features of a hidden state."""
    vocab_size: int
    """Rows of the token embedding."""
    fingerprint: str
    """What `LanguageModel.fingerprint` returns."""

    @classmethod
    def of(cls, language_model: LanguageModel) -> "LanguageModelRecord":
        """The record of the layers in use."""
        return cls(
            num_layers=language_model.num_layers,
            width=language_model.width,
            vocab_size=language_model.vocab_size,
            fingerprint=language_model.fingerprint(),
        )


class TrainedOn(_Frozen):
    """The data of the training, and how inputs are prepared for the model as they were there."""

    dataset: DatasetInfo
    """Name, fingerprint, splits, the task, and the train split's feature statistics."""
    standardize: bool
    """Features are scaled by those statistics."""
    precision: str
    """``training.precision``"""
    batch_size: int = Field(ge=1)
    """Utterances per batch when predicting."""
    silent_heads: tuple[str, ...] = ()
    """Auxiliary heads whose loss did not count: what they predict says nothing. Releases up to 0.1 did not keep it."""

    @classmethod
    def of(
        cls,
        info: DatasetInfo,
        *,
        standardize: bool,
        precision: str,
        batch_size: int,
        silent_heads: tuple[str, ...] = (),
    ) -> "TrainedOn":
        """The record of a dataset."""
        return cls(
            dataset=info,
            standardize=standardize,
            precision=precision,
            batch_size=batch_size,
            silent_heads=silent_heads,
        )


class PretrainedConfig(_Frozen):
    """What ``config.json`` of the folder holds."""

    model_type: str = MODEL_TYPE
    format_version: int = FORMAT_VERSION
    deepmlf_version: str = __version__
    """Release that wrote the folder."""
    weights_sum: str | None = None
    """Checksum of the file of weights; None if a release up to 0.1 wrote it."""
    audio_dim: int
    """Features per audio frame."""
    vision_dim: int
    """Features per vision frame."""
    outputs: int = Field(1, ge=1)
    """Outputs of each head."""
    active_layers: tuple[int, ...]
    """Fused layers whose MM blocks are in use."""
    language_model: LanguageModelRecord
    model: ModelConfig
    trained_on: TrainedOn | None = None
    """None for a model whose training is not known; it can be loaded, but not asked to predict a dataset."""


def refuse_occupied(out: Path) -> None:
    """Refuse a folder that holds anything.

    Raises:
        CheckpointError: If it does, or is no folder.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"{out}: exists and is not empty; choose another folder")


def write_pretrained(out: Path, config: PretrainedConfig, weights: Mapping[str, Tensor], card: str | None) -> None:
    """Write the folder, whole or not at all.

    Args:
        out: A folder that is empty or missing.
        config: Of the model.
        weights: Trained tensors by name.
        card: Text of ``README.md``; None writes none.

    Raises:
        CheckpointError: If `out` holds something or cannot be written.
        LanguageModelError: If the language model, whose tokenizer is copied, is not on this machine.
    """
    name = config.model.language_model
    tokenizer = None if name == lm_store.TINY_RANDOM else Tokenizer(lm_store.resolve(name))
    with new_model_folder(out) as folder:
        write_parts(folder, config, weights)
        if tokenizer is not None:
            tokenizer.save(folder)
        if card is not None:
            (folder / CARD).write_text(card)


def write_parts(folder: Path, config: PretrainedConfig, weights: Mapping[str, Tensor]) -> None:
    """Write what `DeepMLF.from_pretrained` reads: configuration and weights."""
    save_file(
        {key: tensor.detach().cpu().contiguous() for key, tensor in weights.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    (folder / WEIGHTS).chmod(0o644)  # safetensors lets nobody else read it
    config = config.model_copy(update={"weights_sum": file_sum(folder / WEIGHTS)})
    (folder / CONFIG).write_text(json.dumps(sealed(config.model_dump(mode="json")), indent=2) + "\n")


@contextlib.contextmanager
def new_model_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` if the block succeeds, and vanishes otherwise.

    Raises:
        CheckpointError: If `out` holds something or cannot be written.
    """
    refuse_occupied(out)
    try:
        with new_folder(out.absolute()) as folder:
            yield folder
    except OSError as error:
        raise CheckpointError(f"{out}: cannot be written ({error.strerror or error})") from error


def is_pretrained(folder: Path) -> bool:
    """Whether a folder says that it is an exported DeepMLF, whole or not."""
    try:
        return bool(json.loads((folder / CONFIG).read_text()).get("model_type") == MODEL_TYPE)
    except (OSError, ValueError, AttributeError):
        return False


def read_config(folder: Path) -> PretrainedConfig:
    """Read ``config.json``.

    Raises:
        CheckpointError: If it is missing, damaged, of another kind of model, or of a newer format.
    """
    path = folder / CONFIG
    remedy = "make one with `deepmlf export TRIAL OUT`"
    try:
        tree: Any = read_document(path)
    except OSError:
        raise CheckpointError(f"{folder}: no exported DeepMLF ({CONFIG} is missing); {remedy}") from None
    except ValueError as error:
        raise CheckpointError(f"{path}: damaged ({error}); export the model again") from None
    kind = tree.get("model_type") if isinstance(tree, dict) else None
    if kind != MODEL_TYPE:
        raise CheckpointError(f"{folder}: no exported DeepMLF ({CONFIG} has model_type {kind!r}); {remedy}")
    version = tree.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CheckpointError(
            f"{folder}: written in format {version}, but this deepmlf reads formats up to {FORMAT_VERSION}; upgrade it"
        )
    if isinstance(tree.get("model"), dict) and isinstance(tree.get("trained_on"), dict):
        tree["model"], tree["trained_on"] = model_section(tree["model"]), trained_on_section(tree["trained_on"])
    try:
        return PretrainedConfig.model_validate(tree)
    except ValidationError as error:
        raise CheckpointError(f"{path}: damaged ({first_fault(error)}); export the model again") from None


def language_model_of(config: PretrainedConfig, device: str, dtype: torch.dtype) -> LanguageModel:
    """The language model that a folder's weights belong to, from this machine.

    Args:
        config: Of the folder.
        device: Where it is to be.
        dtype: Type of its weights.

    Raises:
        LanguageModelError: If it is not here, or is another one than in training.
    """
    name, record = config.model.language_model, config.language_model
    found = load_language_model(name, device, dtype)
    for what, has, needs in (
        ("hidden size", found.width, record.width),
        ("vocabulary", found.vocab_size, record.vocab_size),
    ):
        if has != needs:
            raise LanguageModelError(f"language model {name!r}: has {what} {has}, but the exported model needs {needs}")
    if found.num_layers < record.num_layers:
        raise LanguageModelError(
            f"language model {name!r}: has {found.num_layers} layers, but the exported model needs {record.num_layers}"
        )
    found = found.first_layers(record.num_layers)
    if found.fingerprint(like=record.fingerprint) != record.fingerprint:
        raise LanguageModelError(
            f"language model {name!r}: has other weights than the one that the exported model was trained with; "
            "give the folder of that one as the language model"
        )
    return found


def tokenizer_of(folder: Path, config: PretrainedConfig) -> Tokenizer | ByteTokenizer:
    """The tokenizer that was written beside the weights.

    Raises:
        LanguageModelError: If it is missing or damaged.
    """
    if config.model.language_model == lm_store.TINY_RANDOM:
        return ByteTokenizer()
    return Tokenizer(folder, alone=True, special_tokens=config.model.special_tokens)


def read_weights(folder: Path, expected: Mapping[str, Tensor], written: str | None) -> dict[str, Tensor]:
    """Read ``model.safetensors``.

    Args:
        folder: An exported model.
        expected: Tensors of the right names and shapes.
        written: Checksum of the file as it was written; None if that is not known.

    Raises:
        CheckpointError: If the file is missing or damaged, or tensors are missing, left over or of another shape.
    """
    path = folder / WEIGHTS
    if not path.is_file():
        raise CheckpointError(f"{path}: missing; export the model again")
    if written is not None and file_sum(path) != written:
        raise CheckpointError(f"{path}: damaged (its checksum is of something else); export the model again")
    weights = read_tensors(path)
    missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    for names, fault in ((missing, "is missing"), (extra, "has no place in the model that config.json describes")):
        if names:
            others = f" ({len(names) - 1} more)" if len(names) > 1 else ""
            raise CheckpointError(f"{path}: {names[0]} {fault}{others}; export the model again")
    for name, tensor in expected.items():
        if weights[name].shape != tensor.shape:
            raise CheckpointError(
                f"{path}: {name} must have shape {list(tensor.shape)}, but got {list(weights[name].shape)}"
            )
    return weights
