"""The stage that trains the audiovisual encoder alone: which of its epochs stays."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from deepmlf.config.trial import CurriculumConfig
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.weights import read_tensors
from deepmlf.training.checkpoints.save import load_optimizer_state
from deepmlf.training.stores.av_encoders import av_state

BEST_AV = "best_av"
"""Part of a checkpoint within the stage: weights and moments of its best epoch so far."""


class BestEncoder:
    """Weights and moments of the stage's best epoch so far, if ``curriculum.av_weights`` asks for them.

    Args:
        config: The curriculum.
        model: Has the audiovisual encoder and its head.
        parameters: Trained parameters by name.
        optimizer: Of these parameters.
    """

    def __init__(
        self,
        config: CurriculumConfig,
        model: DeepMLF,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self.is_wanted = config.av_weights == "best"
        self._model, self._parameters, self._optimizer = model, parameters, optimizer
        self._tensors: dict[str, Tensor] = {}

    def look(self, maes: Sequence[float]) -> None:
        """Take the epoch that ended last, if no earlier one was as good."""
        if self.is_wanted and maes.index(min(maes)) == len(maes) - 1:
            weights, moments = av_state(self._model, self._parameters, self._optimizer)
            self._tensors = {name: tensor.detach().clone() for name, tensor in (weights | moments).items()}

    def restore(self) -> None:
        """Put the best epoch's state in place of the last one's, and forget it."""
        self._model.load_state_dict(self._tensors, strict=False)
        load_optimizer_state(self._tensors, self._parameters, self._optimizer)
        self.forget()

    def forget(self) -> None:
        """Give up what was taken."""
        self._tensors = {}

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint needs of it."""
        return {BEST_AV: self._tensors} if self._tensors else {}

    def resume(self, checkpoint: Path) -> None:
        """Take what a checkpoint has of it.

        Raises:
            CheckpointError: If that is torn.
        """
        path = checkpoint / f"{BEST_AV}.safetensors"
        self._tensors = read_tensors(path) if path.is_file() else {}
