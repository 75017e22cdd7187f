"""What a language model's folder must hold, by its small files and the headers of its large ones; no torch."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmlf.errors import LanguageModelError

COMPARED = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
"""Values of ``model_type`` in config.json whose layers are known from the inside; any other's are looked at first."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""One of them makes a tokenizer."""
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Ends of the names of constants that older checkpoints keep beside their weights."""

INDEX = "model.safetensors.index.json"
"""Says which file holds which weight, where there are several."""

_WEIGHTS = "model.safetensors"
_POINTER = b"version https://git-lfs"
_FLOATS = ("F64", "F32", "F16", "BF16")
_AGAIN = "fetch the language model again"
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
_WIDTH = ("hidden_size", "n_embd", "n_embed", "d_model")
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


@dataclass(frozen=True)
class Positions:
    """How many text and fusion tokens a language model reads as it was trained to."""

    count: int
    within: str
    """What ends there, for messages; empty if its positions do."""


@dataclass(frozen=True)
class Weight:
    """Where a tensor lies."""

    file: Path
    dtype: str
    """As safetensors writes it: F32, BF16, …"""
    shape: tuple[int, ...]
    begin: int
    """First byte in the file."""
    end: int


def check_folder(folder: Path, *, tokenizer: bool = True) -> dict[str, Any]:
    """Check a language model's folder without opening its weights, and return its config.json.

    Raises:
        LanguageModelError: If a file is missing, cut short or a mere pointer, or the model is of a kind that cannot be
            used.
    """
    config = read_config(folder)
    if tokenizer:
        _check_tokenizer(folder)
    floats = [weight for name, weight in weights_of(folder).items() if not name.endswith(BUFFERS)]
    foreign = next((weight for weight in floats if weight.dtype not in _FLOATS), None)
    if foreign is not None:
        raise LanguageModelError(
            f"{foreign.file}: holds quantised weights (type {foreign.dtype}); get the language model unquantised"
        )
    return config


def read_config(folder: Path) -> dict[str, Any]:
    """A language model's config.json.

    Raises:
        LanguageModelError: If there is none, or it is of a kind that cannot be used.
    """
    path = folder / "config.json"
    try:
        config = json.loads(_text(path))
    except OSError:
        raise LanguageModelError(
            f"{folder}: no config.json; give the folder of a Hugging Face language model"
        ) from None
    except ValueError as error:
        raise LanguageModelError(f"{path}: not JSON ({error}); {_AGAIN}") from None
    if not isinstance(config, dict):
        raise LanguageModelError(f"{path}: expected a JSON object; {_AGAIN}")
    if (fault := _unsupported(config)) is not None:
        raise LanguageModelError(f"{folder}: model_type={config.get('model_type')!r} is not supported: {fault}")
    if config.get("quantization_config"):
        quantised = config["quantization_config"]
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise LanguageModelError(f"{folder}: is quantised ({method}); get the language model unquantised")
    try:
        sizes_of(config)
    except (IndexError, TypeError, ValueError):
        raise LanguageModelError(f"{path}: gives no number of layers or no width; fetch it again") from None
    return config


def _unsupported(config: Mapping[str, Any]) -> str | None:
    """Why a language model cannot be used, as far as its config.json tells."""
    text = text_config_of(config)
    if not config.get("model_type"):
        return "it must name one of transformers' decoders"
    if config.get("is_encoder_decoder") or "encoder_layers" in text:
        return "it has an encoder; give a decoder alone"
    if text.get("hidden_size_per_layer_input"):
        return "its layers read token ids, which fusion tokens have not"
    if any(text.get(name) for name in _EXPERTS):
        return "its FFN is a mixture of experts, of which an MM block's would be a copy"
    return None


def text_config_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a config.json says of the decoder: all of it or, of a model that reads pictures too, a part."""
    part = config.get("text_config")
    return part if isinstance(part, Mapping) else config


def sizes_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """Layers and width by a config.json."""
    text = text_config_of(config)
    num_layers, width = ([int(text[name]) for name in names if name in text] for names in (_LAYERS, _WIDTH))
    return num_layers[0], width[0]


def positions_of(config: Mapping[str, Any]) -> Positions | None:
    """The longest text with fusion tokens that means the same to the model in every form in which it is run.

    LongRoPE would turn the text otherwise once the fusion tokens are there, which is not done here.

    Args:
        config: A config.json, as it was published or with all defaults filled in.

    Returns:
        None if it does not say.
    """
    text = text_config_of(config)
    rope = text.get("rope_parameters") or text.get("rope_scaling") or {}
    limits = [Positions(int(text[name]), "") for name in _POSITIONS if text.get(name)]
    original = rope.get("original_max_position_embeddings") or text.get("original_max_position_embeddings")
    if rope.get("rope_type", rope.get("type")) in ("longrope", "su") and original:
        limits.append(Positions(int(original), "before LongRoPE changes its frequencies"))
    return min(limits, key=lambda limit: limit.count, default=None)


def weight_files(folder: Path) -> list[str]:
    """Names of the files that hold a language model's weights, whether they are there or not yet.

    Raises:
        LanguageModelError: If its index is damaged.
    """
    return sorted(set(_places(folder).values())) if _is_there(folder / INDEX) else [_WEIGHTS]


def _places(folder: Path) -> dict[str, str]:
    """The file of each weight, by the index."""
    try:
        places: dict[str, str] = json.loads(_text(folder / INDEX))["weight_map"]
        sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LanguageModelError(f"{folder / INDEX}: damaged ({error}); {_AGAIN}") from None
    return places


def weights_of(folder: Path) -> dict[str, Weight]:
    """The tensors of a language model by name, from the headers of its safetensors files.

    Raises:
        LanguageModelError: If a file is missing, cut short or a mere pointer.
    """
    if _is_there(folder / _WEIGHTS):
        return _header_of(folder / _WEIGHTS)
    if not _is_there(folder / INDEX):
        found = "; its .safetensors files have other names" if any(folder.glob("*.safetensors")) else ""
        raise LanguageModelError(
            f"{folder}: no .safetensors weights ({_WEIGHTS} or {INDEX}){found}; save the model with save_pretrained "
            "first"
        )
    places = _places(folder)
    held = {shard: _header_of(folder / shard) for shard in set(places.values())}
    for name, shard in places.items():
        if name not in held[shard]:
            raise LanguageModelError(f"{folder / shard}: {name} is missing, which {INDEX} says is there; {_AGAIN}")
    return {name: held[shard][name] for name, shard in places.items()}


def parameters_of(folder: Path) -> int:
    """Numbers that a language model's weights have.

    Raises:
        LanguageModelError: As `weights_of`.
    """
    return sum(math.prod(weight.shape) for weight in weights_of(folder).values())


def _is_there(path: Path) -> bool:
    """Whether there is a file; a link that leads nowhere is refused."""
    if path.is_symlink() and not path.exists():
        raise LanguageModelError(f"{path}: is a link to {path.readlink()}, which is not there; {_AGAIN}")
    return path.is_file()


def _header_of(path: Path) -> dict[str, Weight]:
    if not _is_there(path):
        raise LanguageModelError(f"{path}: is missing; {_AGAIN}")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        _refuse_pointer(path, start + file.read(len(_POINTER)))
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > size:
            raise LanguageModelError(f"{path}: torn or not safetensors; {_AGAIN}")
        file.seek(8)
        header = file.read(length)
    try:
        entries = {name: entry for name, entry in json.loads(header).items() if name != "__metadata__"}
        weights = {
            name: Weight(
                path, entry["dtype"], tuple(entry["shape"]), *(8 + length + place for place in entry["data_offsets"])
            )
            for name, entry in entries.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LanguageModelError(f"{path}: torn or not safetensors ({error}); {_AGAIN}") from None
    needed = max((weight.end for weight in weights.values()), default=0)
    if size < needed:
        raise LanguageModelError(f"{path}: is cut short, {size} of {needed} bytes; {_AGAIN}")
    return weights


def _check_tokenizer(folder: Path) -> None:
    found = [folder / name for name in TOKENIZER_FILES if _is_there(folder / name)]
    if not found:
        raise LanguageModelError(f"{folder}: no tokenizer ({', '.join(TOKENIZER_FILES)}); save it beside the weights")
    for path in found:
        with path.open("rb") as file:
            _refuse_pointer(path, file.read(len(_POINTER)))


def _text(path: Path) -> str:
    content = path.read_bytes()
    _refuse_pointer(path, content)
    return content.decode()


def _refuse_pointer(path: Path, start: bytes) -> None:
    if start.startswith(_POINTER):
        raise LanguageModelError(f"{path}: is a Git LFS pointer, not the file itself; run `git lfs pull` there")
