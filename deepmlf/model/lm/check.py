"""What a language model's folder must hold, by its small files and the headers of its large ones; no torch."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deepmlf.errors import LanguageModelError

SUPPORTED = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
"""Values of ``model_type`` in config.json whose decoder layers can be wrapped."""
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")
"""One of them makes a tokenizer."""
BUFFERS = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")
"""Ends of the names of constants that older checkpoints keep beside their weights."""

_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_POINTER = b"version https://git-lfs"
_FLOATS = ("F64", "F32", "F16", "BF16")
_AGAIN = "fetch the language model again"


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
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        raise LanguageModelError(
            f"{folder}: model_type={kind!r} is not supported; supported are {', '.join(SUPPORTED)}"
        )
    if config.get("quantization_config"):
        quantised = config["quantization_config"]
        method = quantised.get("quant_method", "unknown") if isinstance(quantised, dict) else quantised
        raise LanguageModelError(f"{folder}: is quantised ({method}); get the language model unquantised")
    try:
        sizes_of(config)
    except (KeyError, TypeError, ValueError):
        raise LanguageModelError(f"{path}: gives no number of layers or no width; fetch it again") from None
    return config


def sizes_of(config: Mapping[str, Any]) -> tuple[int, int]:
    """Layers and width by a config.json."""
    names = ("n_layer", "n_embd") if config["model_type"] == "gpt2" else ("num_hidden_layers", "hidden_size")
    num_layers, width = (int(config[name]) for name in names)
    return num_layers, width


def positions_of(config: Mapping[str, Any]) -> Positions | None:
    """The longest text with fusion tokens that means the same to the model in every form in which it is run.

    Beyond a sliding window its layers would attend to less than all that came before, and LongRoPE would turn the
    text otherwise once the fusion tokens are there. Neither is done here.

    Args:
        config: A config.json, as it was published or with all defaults filled in.

    Returns:
        None if it does not say.
    """
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    limits = [Positions(int(config[name]), "") for name in ("max_position_embeddings", "n_positions") if name in config]
    if _slides(config):
        limits.append(Positions(int(config["sliding_window"]), "within its sliding window"))
    original = rope.get("original_max_position_embeddings") or config.get("original_max_position_embeddings")
    if rope.get("rope_type", rope.get("type")) in ("longrope", "su") and original:
        limits.append(Positions(int(original), "before LongRoPE changes its frequencies"))
    return min(limits, key=lambda limit: limit.count, default=None)


def _slides(config: Mapping[str, Any]) -> bool:
    """Whether any layer has a sliding window."""
    if not config.get("sliding_window") or config["model_type"] not in ("mistral", "qwen2", "qwen3"):
        return False
    if config.get("layer_types"):
        return "sliding_attention" in config["layer_types"]
    return config["model_type"] == "mistral" or bool(config.get("use_sliding_window"))


def weights_of(folder: Path) -> dict[str, Weight]:
    """The tensors of a language model by name, from the headers of its safetensors files.

    Raises:
        LanguageModelError: If a file is missing, cut short or a mere pointer.
    """
    if _is_there(folder / _WEIGHTS):
        return _header_of(folder / _WEIGHTS)
    if not _is_there(folder / _INDEX):
        found = "; its .safetensors files have other names" if any(folder.glob("*.safetensors")) else ""
        raise LanguageModelError(
            f"{folder}: no .safetensors weights ({_WEIGHTS} or {_INDEX}){found}; save the model with save_pretrained "
            "first"
        )
    try:
        places: dict[str, str] = json.loads(_text(folder / _INDEX))["weight_map"]
        shards = sorted(set(places.values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LanguageModelError(f"{folder / _INDEX}: damaged ({error}); {_AGAIN}") from None
    held = {shard: _header_of(folder / shard) for shard in shards}
    for name, shard in places.items():
        if name not in held[shard]:
            raise LanguageModelError(f"{folder / shard}: {name} is missing, which {_INDEX} says is there; {_AGAIN}")
    return {name: held[shard][name] for name, shard in places.items()}


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
