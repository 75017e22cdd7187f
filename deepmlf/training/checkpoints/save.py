"""Checkpoints: trained tensors only, as safetensors and JSON; nothing is unpickled.

A checkpoint is written to a temporary folder, then renamed; it counts only if its ``state.json`` is there.
"""

import json
import os
import shutil
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from deepmlf.errors import CheckpointError
from deepmlf.files import new_folder, publish_folder
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.weights import read_tensors, trained_state
from deepmlf.seal import file_sum, sealed
from deepmlf.training.checkpoints.files import (
    LANGUAGE_MODEL,
    STATE,
    SUMS,
    check_files,
    checkpoint_name,
    checkpoints_of,
    complete_checkpoints,
    read_metadata,
)

_ACTIVE_LAYERS = "active_layers"
_Sums = dict[str, str]
"""Checksums of files by their names."""


def save_weights(folder: Path, model: DeepMLF, metadata: dict[str, Any]) -> None:
    """Write ``model.safetensors`` and ``state.json`` into `folder`, in a trial's folder, whole or not at all.

    Which MM blocks are active, and which language model they belong to, goes with the weights: without it they would
    make another model.
    """
    for left_over in folder.parent.glob(".unfinished.*"):  # a trial has one writer, so it is of one that was killed
        shutil.rmtree(left_over, ignore_errors=True)
    publish(folder, {"model": trained_state(model)}, metadata | _belonging(model))


def load_weights(folder: Path, model: DeepMLF) -> dict[str, Any]:
    """Read what `save_weights` wrote into `model`, active MM blocks included, and return its metadata.

    Raises:
        CheckpointError: If it is missing, damaged, or of another model or language model. Releases up to 0.1 kept
            neither checksums nor which language model that was; theirs are not checked.
    """
    metadata = read_metadata(folder)
    check_files(folder, metadata)
    metadata.pop(SUMS, None)
    trained_on, found = metadata.pop(LANGUAGE_MODEL, None), model.language_model.identity
    if trained_on is not None and found is not None and found != trained_on:
        raise CheckpointError(
            f"{folder}: was trained on another language model than {model.config.language_model} is now "
            f"(fingerprint {trained_on[:12]}, now {found[:12]}); put that one back, or train anew"
        )
    weights = read_tensors(folder / "model.safetensors")
    expected = trained_state(model)
    for name, tensor in expected.items():
        if name not in weights or weights[name].shape != tensor.shape:
            raise CheckpointError(f"{folder}: is of another model ({name} differs)")
    model.load_state_dict(weights, strict=False)
    model.active_layers = tuple(metadata.pop(_ACTIVE_LAYERS, model.fusion_layers))
    return metadata


class CheckpointWriter:
    """Writes a trial's checkpoints, ``checkpoints/epoch_NNNNNN`` with weights, optimiser, random states and position.

    Tensors are written in a thread while the trial validates: they do not change from an epoch's last step to the next
    epoch's first, so they need no copy, and what is reported after validation has its checkpoint whole on disk.

    Args:
        out_dir: The trial's folder.
        model: Its trained weights are written.
        parameters: Trained parameters by name.
        optimizer: Of these parameters.
        keep: Newest checkpoints that stay on disk.
    """

    def __init__(
        self,
        out_dir: Path,
        model: DeepMLF,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        keep: int = 1,
    ) -> None:
        self._root, self._keep = checkpoints_of(out_dir), keep
        self._model, self._parameters, self._optimizer = model, parameters, optimizer
        self._temporary = self._root / f".unfinished.{os.getpid()}"
        self._thread = ThreadPoolExecutor(max_workers=1)
        self._writing: Future[_Sums] | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown()
        shutil.rmtree(self._temporary, ignore_errors=True)

    def start(self) -> None:
        """Begin to write weights and moments, which must not change until `finish`."""
        self._writing = self._begin()

    def drop(self) -> None:
        """Give up what `start` began, so that weights and moments may change; `finish` writes them anew."""
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    def finish(
        self, epoch: int, metadata: dict[str, Any], parts: Mapping[str, dict[str, Tensor]] | None = None
    ) -> Path:
        """Complete the checkpoint that `start` began, or write it now, and drop old ones.

        Args:
            epoch: Finished epochs, for its name.
            metadata: For its ``state.json``.
            parts: Further tensors, each in a file ``<name>.safetensors``.

        Returns:
            Its folder.

        Raises:
            OSError, SafetensorError: If anything could not be written, also by the thread.
        """
        writing, self._writing = self._writing or self._begin(), None
        sums = writing.result()
        random = {"cpu": torch.get_rng_state()}
        device = self._model.fusion_tokens.device
        if device.type == "cuda":  # a trial on the CPU must not so much as open the GPU
            random["cuda"] = torch.cuda.get_rng_state(device)
        sums |= _write(self._temporary, {"random": random, **(parts or {})})
        folder = self._root / checkpoint_name(epoch)
        _write_metadata(self._temporary, metadata | _belonging(self._model), sums)
        publish_folder(self._temporary, folder)
        older = [path for path in complete_checkpoints(self._root) if path.name < folder.name]
        kept = {folder, *older[max(0, len(older) - self._keep + 1) :]}
        for other in set(self._root.iterdir()) - kept:
            shutil.rmtree(other, ignore_errors=True)
        return folder

    def _begin(self) -> "Future[_Sums]":
        moments = optimizer_state(self._parameters, self._optimizer)
        return self._thread.submit(
            _write_new, self._temporary, {"model": trained_state(self._model), "optimizer": moments}
        )


def load_checkpoint(
    folder: Path, model: DeepMLF, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> dict[str, Any]:
    """Restore everything that a `CheckpointWriter` wrote and return its metadata.

    Raises:
        CheckpointError: If it is missing, torn, or of another model.
    """
    metadata = load_weights(folder, model)
    load_optimizer_state(read_tensors(folder / "optimizer.safetensors"), parameters, optimizer)
    random = read_tensors(folder / "random.safetensors")
    torch.set_rng_state(random["cpu"])
    device = model.fusion_tokens.device
    if "cuda" in random and device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"], device)
    return metadata


def optimizer_state(parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """AdamW's moments and step counts by parameter: ``{"fusion_tokens.exp_avg": ..., ...}``."""
    return {
        f"{name}.{key}": value
        for name, parameter in parameters.items()
        for key, value in optimizer.state.get(parameter, {}).items()
    }


def load_optimizer_state(
    moments: dict[str, Tensor], parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer
) -> None:
    """Restore what `optimizer_state` returned; parameters it does not name stay as they are."""
    for name, parameter in parameters.items():
        state = {key.removeprefix(f"{name}."): t for key, t in moments.items() if key.rpartition(".")[0] == name}
        if state:
            # Weights that are float32 now had moments in bfloat16 once.
            optimizer.state[parameter] = {key: t.to(parameter.device, parameter.dtype) for key, t in state.items()}


def _belonging(model: DeepMLF) -> dict[str, Any]:
    """What must hold for weights to make the same model again."""
    return {_ACTIVE_LAYERS: model.active_layers, LANGUAGE_MODEL: model.language_model.identity}


def publish(folder: Path, parts: dict[str, dict[str, Tensor]], metadata: dict[str, Any]) -> None:
    """Write one safetensors file per part and ``state.json`` into `folder`, whole or not at all."""
    with new_folder(folder) as temporary:
        _write_metadata(temporary, metadata, _write(temporary, parts))


def _write_new(temporary: Path, parts: dict[str, dict[str, Tensor]]) -> _Sums:
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return _write(temporary, parts)


def _write(temporary: Path, parts: dict[str, dict[str, Tensor]]) -> _Sums:
    sums = {}
    for name, tensors in parts.items():
        path = temporary / f"{name}.safetensors"
        save_file({key: t.detach().contiguous() for key, t in tensors.items()}, path)
        sums[path.name] = file_sum(path)
    return sums


def _write_metadata(temporary: Path, metadata: dict[str, Any], sums: _Sums) -> None:
    (temporary / STATE).write_text(json.dumps(sealed(metadata | {SUMS: sums})))
