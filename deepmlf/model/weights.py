"""Weights as files: what of a model is trained, and how a file of tensors is read."""

from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor, nn

from deepmlf.errors import CheckpointError


def trained_state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers to save: all but the frozen copies of the language model's weights."""
    frozen = {
        f"{name}.{weight}"
        for name, module in model.named_modules()
        if getattr(module, "lora", None) is not None
        for weight, _ in module.named_parameters(recurse=False)
    }
    return {name: tensor for name, tensor in model.state_dict().items() if name not in frozen}


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        CheckpointError: If it is missing or torn.
    """
    try:
        return load_file(path)
    except Exception as error:  # safetensors raises its own types for torn files
        raise CheckpointError(f"{path}: torn or not safetensors ({error})") from None
