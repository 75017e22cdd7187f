"""Unimodal labels that training generates by itself: the ULGM of Self-MM (arXiv:2102.04830).

An utterance's words may be glad where its face is not, but a dataset has one label for both. How much nearer a
representation lies to the centre of positive utterances than to that of negative ones says how positive it is; where a
modality says so more, or less, than the whole does, its label moves away from the task's.

Formulas and the order of steps are those of its authors' code, as MMSA 2.2.1 has it.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from deepmlf.config.trial import TrainingConfig, TrialConfig
from deepmlf.data.batch import to_device
from deepmlf.data.loader import Loader
from deepmlf.data.task import Task
from deepmlf.errors import CheckpointError
from deepmlf.model.weights import read_tensors
from deepmlf.training.ulgm.checks import check_ulgm

HEADS = ("text", "av", "fusion")
"""Heads whose labels are generated; the fusion tokens of an utterance share one, from their mean."""
PART = "ulgm"
"""Part of a checkpoint: labels, centres, and the representation of each utterance when it was last seen."""
METRICS = "ulgm/"
"""Section of a report: mean absolute difference between the generated labels of each head and the task's."""
_TASK = "task"
_EPSILON = 1e-8


class Generated(NamedTuple):
    """What a head is trained on."""

    labels: Tensor
    """[batch, 1]"""
    weights: Tensor | None
    """[batch, 1], tanh of how far each label is from the task's; None: all count the same."""


def relative_distance(states: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
    """How much nearer to the positive centre than to the negative one: (Dⁿ - Dᵖ) / (Dᵖ + ε), [batch].

    Args:
        states: [batch, width].
        positive: [width], the mean of positive utterances' states.
        negative: [width].
    """
    to_positive, to_negative = ((states - centre).norm(dim=-1) for centre in (positive, negative))
    return (to_negative - to_positive) / (to_positive + _EPSILON)


def shifted_labels(task: Tensor, distance: Tensor, of_task: Tensor, limit: float) -> Tensor:
    """A modality's labels from the task's: the mean of scaling by a = α_s / α_m and of shifting by α_s - α_m, [batch].

    Args:
        task: [batch], the task's labels y_m.
        distance: [batch], relative distance α_s of the modality.
        of_task: [batch], that of the multimodal representation, α_m.
        limit: Largest label by absolute value, H.
    """
    # Self-MM adds ε, whichever sign α_m has: that could make it zero.
    divisor = torch.where(of_task.abs() < _EPSILON, _EPSILON, of_task)
    return (0.5 * task * distance / divisor + 0.5 * (task + distance - of_task)).clamp(-limit, limit)


def with_momentum(before: Tensor, new: Tensor, epoch: int) -> Tensor:
    """Mean of all epochs' labels in which the k-th weighs k: y⁽ⁱ⁾ = (i-1)/(i+1)·y⁽ⁱ⁻¹⁾ + 2/(i+1)·yⁱ."""
    return (epoch - 1) / (epoch + 1) * before + 2 / (epoch + 1) * new


class UnimodalLabels:
    """The generated labels of a trial's train utterances; they are the task's labels at first.

    In each fusion epoch an utterance is seen once: it is trained on what the epochs before made of its labels, then
    they are updated, then its representations take part in the centres of the batches to come. All of that happens on
    the trial's device, whose values are never asked for.

    Args:
        training: Of the trial.
        task: The dataset's.
        labels: [N], all labels of the train split.
        rows: Ascending positions of the utterances that are trained on.
        device: Of the trial.
        heads: Those of `HEADS` that the model has.

    Raises:
        ConfigError: If the labels have no two sides.
    """

    def __init__(
        self,
        training: TrainingConfig,
        task: Task,
        labels: np.ndarray,
        rows: np.ndarray,
        device: torch.device,
        heads: Sequence[str] = HEADS,
    ) -> None:
        check_ulgm(training, task, labels[rows])
        self._from_epoch, self._rows, self._device = training.ulgm_from_epoch, rows, device
        reach = float(np.abs(task.targets(np.array([task.low, task.high]))).max())
        self._limit = training.ulgm_limit or reach
        targets = torch.from_numpy(np.asarray(task.targets(labels[rows]), np.float32)).to(device)
        self._labels = {name: targets.clone() for name in (_TASK, *heads)}
        self._heads = heads
        self._memory: dict[str, Tensor] = {}
        self._centres: dict[str, Tensor] = {}

    @classmethod
    def of(cls, config: TrialConfig, task: Task, loader: Loader, device: torch.device) -> "UnimodalLabels | None":
        """Those of a trial; None if it generates none.

        Raises:
            ConfigError: If it would, and the labels have no two sides.
        """
        if not config.training.ulgm:
            return None
        heads = HEADS if config.model.num_fusion_tokens else HEADS[:2]
        return cls(config.training, task, loader.labels, loader.rows, device, heads)

    def step(self, states: Mapping[str, Tensor], index: Tensor, epoch: int) -> dict[str, Generated] | None:
        """What the heads are trained on in this batch, and then what its states make of that for later epochs.

        Args:
            states: What each head reads, [batch, width], of the task head its hidden layer.
            index: [batch], the utterances' positions in the train split, on the host.
            epoch: The fusion epoch in position, from 1.

        Returns:
            Labels and weights by head; None as long as the heads are trained on the task's labels.
        """
        at = to_device(torch.from_numpy(np.searchsorted(self._rows, index.numpy())), self._device)
        seen = {name: states[name].detach().float() for name in self._labels}
        generated = self._generated(at) if epoch > self._from_epoch else None
        if epoch >= self._from_epoch:
            self._update(seen, at, epoch)
        self._remember(seen, at)
        return generated

    def metrics(self, epoch: int) -> dict[str, float]:
        """How far the labels have moved from the task's after a fusion epoch; nothing before they can."""
        if epoch < self._from_epoch:
            return {}
        return {
            f"{METRICS}{head}": (self._labels[head] - self._labels[_TASK]).abs().mean().item() for head in self._heads
        }

    def labels_of(self, head: str) -> np.ndarray:
        """The present labels of one head, [utterances that are trained on], in what models are trained on."""
        return self._labels[head].cpu().numpy()

    @property
    def parts(self) -> dict[str, dict[str, Tensor]]:
        """What a checkpoint needs of it: nothing before fusion."""
        if not self._memory:
            return {}
        kept = {"labels": self._labels, "memory": self._memory, "centres": self._centres}
        return {PART: {f"{kind}.{name}": tensor for kind, of in kept.items() for name, tensor in of.items()}}

    def resume(self, checkpoint: Path, fusion_epoch: int) -> None:
        """Take what a checkpoint has of it after so many fusion epochs.

        Raises:
            CheckpointError: If it is missing, torn, or of other utterances.
        """
        if not fusion_epoch:
            return
        path = checkpoint / f"{PART}.safetensors"
        if not path.is_file():
            raise CheckpointError(f"{checkpoint}: was trained without training.ulgm; train anew to have it on")
        tensors = {name: tensor.to(self._device) for name, tensor in read_tensors(path).items()}
        kept: dict[str, dict[str, Tensor]] = {"labels": {}, "memory": {}, "centres": {}}
        for name, tensor in tensors.items():
            kind, _, head = name.partition(".")
            kept[kind][head] = tensor
        if not torch.equal(kept["labels"][_TASK], self._labels[_TASK]):
            raise CheckpointError(f"{checkpoint}: has generated labels of other utterances; train anew")
        self._labels, self._memory, self._centres = kept.values()

    def _generated(self, at: Tensor) -> dict[str, Generated]:
        task = self._labels[_TASK][at]
        labels = {head: self._labels[head][at] for head in self._heads}
        return {head: Generated(of[:, None], (of - task).abs().tanh()[:, None]) for head, of in labels.items()}

    def _update(self, seen: Mapping[str, Tensor], at: Tensor, epoch: int) -> None:
        self._find_centres()
        distances = {name: relative_distance(seen[name], *self._centres[name]) for name in seen}
        task = self._labels[_TASK][at]
        for head in self._heads:
            new = shifted_labels(task, distances[head], distances[_TASK], self._limit)
            self._labels[head][at] = with_momentum(self._labels[head][at], new, epoch)

    def _remember(self, seen: Mapping[str, Tensor], at: Tensor) -> None:
        for name, states in seen.items():
            if name not in self._memory:
                self._memory[name] = states.new_zeros(len(self._rows), states.shape[1])
                self._centres[name] = states.new_zeros(2, states.shape[1])
            self._memory[name][at] = states

    def _find_centres(self) -> None:
        for name, memory in self._memory.items():
            sides = torch.stack([self._labels[name] > 0, self._labels[name] < 0]).float()  # zero is on neither
            counts = sides.sum(1, keepdim=True)
            means = sides @ memory / counts.clamp(min=1)
            # A side that the labels of a modality have left keeps the centre that it had.
            self._centres[name] = torch.where(counts > 0, means, self._centres[name])
