"""Tiny random checkpoints of many decoder families, as the reference material's script makes them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

PACKED = (
    "gpt2", "gpt2-scale-by-layer", "gpt2-noscale", "gpt2-relu", "llama", "llama-gelu", "llama-headdim32", "llama3-rope",
    "llama-linear-rope", "llama-yarn", "llama-dynamic512", "mistral", "mistral-window4096", "mistral-window8", "qwen2",
    "qwen2-window8", "qwen3", "gemma", "gemma3", "phi", "phi3", "opt", "gpt_neox", "gptj", "gpt_bigcode", "smollm3",
    "olmo", "olmo2", "granite", "stablelm", "cohere", "nanochat",
)  # fmt: skip
"""Attention is ours, over packed rows."""
BY_THEIR_OWN_CODE = ("gpt_neo", "bloom", "falcon", "mpt", "lfm2", "xglm", "qwen3_5")
"""Attention, or what mixes tokens in its place, is the model's."""


def builder(shared: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module that builds into a folder: ``build(name)``, for any name of ``FAM``."""
    monkeypatch.setenv("FAMILIES", str(root))
    spec = importlib.util.spec_from_file_location("families_build", shared / "families" / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
