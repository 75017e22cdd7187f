"""Train one trial: plain PyTorch that knows of a search only the function it reports to."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmlf.config import Stage, TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Batch, Loader
from deepmlf.errors import ConfigError, NonFiniteLossError
from deepmlf.model.deepmlf import DeepMLF, DeepMLFOutput
from deepmlf.model.language_model import load_language_model
from deepmlf.training.checkpoint import load_checkpoint, save_checkpoint, save_weights
from deepmlf.training.curriculum import stages_of
from deepmlf.training.losses import LossWeights, compute_losses
from deepmlf.training.metrics import compute_metrics, is_better
from deepmlf.training.optim import learning_rate, make_optimizer, start_stage, trained_parameters

Report = Callable[[dict[str, Any], Path | None], None]


@dataclass
class Progress:
    """Where a trial stands; stored in its checkpoints."""

    stage: int = 0
    """Index of the stage in progress."""
    stage_epoch: int = 0
    """Finished epochs of that stage."""
    stage_step: int = 0
    """Optimiser steps taken in that stage."""
    epoch: int = 0
    """Finished epochs of all stages."""
    fusion_epoch: int = 0
    """Finished fusion epochs: the fidelity."""
    best_value: float | None = None
    """Best ``training.select_by`` of a fusion epoch."""
    best_epoch: int = 0
    """The fusion epoch that had it."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What the last finished epoch reported."""


def pick_device(name: str) -> torch.device:
    """The device of ``training.device``; ``auto`` takes a GPU if there is one."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(name)


def build_model(config: TrialConfig, dataset: Dataset) -> tuple[DeepMLF, Callable[[str], list[int]], int]:
    """The model of a trial on its device, its text encoder and its pad token.

    Raises:
        LanguageModelError: If the language model is not available.
        ConfigError: If the model does not fit the language model.
    """
    device = pick_device(config.training.device)
    language_model, tokenizer = load_language_model(config.model.language_model, str(device))
    language_model = language_model.first_layers(config.model.lm_layers)
    torch.manual_seed(config.training.seed)
    model = DeepMLF(language_model, dataset.info.audio_dim, dataset.info.vision_dim, config.model).to(device)
    longest = config.model.max_text_len
    return model, lambda text: tokenizer.encode(text, longest), tokenizer.pad_token_id


def run_model(model: DeepMLF, batch: Batch, precision: str) -> DeepMLFOutput:
    """One forward pass of a batch, under bf16 autocast if asked; predictions come back in float32."""
    device = batch.input_ids.device.type
    half = torch.autocast(device, torch.bfloat16) if precision == "bfloat16" else contextlib.nullcontext()
    with half:
        output: DeepMLFOutput = model(
            batch.input_ids,
            batch.attention_mask,
            batch.audio,
            batch.vision,
            audio_lengths=batch.audio_lengths,
            vision_lengths=batch.vision_lengths,
        )
    predictions = {name: getattr(output, name).float() for name in ("task", "text", "av", "fusion")}
    return DeepMLFOutput(**predictions, text_states=output.text_states, lm_logits=output.lm_logits)


@torch.no_grad()
def predict(model: DeepMLF, loader: Loader, precision: str, *, av_only: bool = False) -> np.ndarray:
    """Task predictions of a split in its own order, [N]; with `av_only` the audiovisual head's."""
    was_training = model.training
    model.eval()
    predictions = np.zeros(len(loader.labels), np.float32)
    device = model.fusion_tokens.device
    for batch in loader.in_order():
        moved = batch.to(device)
        output = _predict_av(model, moved) if av_only else run_model(model, moved, precision).task
        predictions[batch.index.numpy()] = output[:, 0].cpu().numpy()
    model.train(was_training)
    return predictions


def _predict_av(model: DeepMLF, batch: Batch) -> Tensor:
    return model.predict_av(batch.audio, batch.vision, batch.audio_lengths, batch.vision_lengths)


class Trainer:
    """One trial in progress.

    Args:
        config: The trial.
        out_dir: Its folder, for checkpoints.

    Raises:
        DataError, LanguageModelError, ConfigError: If the trial cannot be built.
    """

    def __init__(self, config: TrialConfig, out_dir: Path) -> None:
        self.config, self.out_dir = config, out_dir
        self.dataset = Dataset.open(config.data.path)
        self.model, encode, self.pad_token_id = build_model(config, self.dataset)
        self.device = self.model.fusion_tokens.device
        size, scaled = config.training.batch_size, config.data.standardize
        self.train_loader = Loader(self.dataset, "train", encode, self.pad_token_id, size, standardize=scaled)
        self.valid_loader = Loader(self.dataset, "valid", encode, self.pad_token_id, 2 * size, standardize=scaled)
        self.stages = stages_of(config)
        self.parameters = trained_parameters(self.model)
        self.optimizer = make_optimizer(self.parameters, config.training)
        self.weights = LossWeights.from_config(config.training)
        self.progress = Progress()

    def run(self, report: Report, resume_from: Path | None) -> None:
        """Train to the end, reporting every epoch; see `train`."""
        if resume_from is not None:
            metadata = load_checkpoint(resume_from, self.model, self.parameters, self.optimizer)
            self.progress = Progress(**metadata)
            report(self.progress.metrics, resume_from)
        while "finished" not in self.progress.metrics:
            started = time.perf_counter()
            stage = self.stages[self.progress.stage]
            start_stage(self.model, self.parameters, stage)
            losses, rates = self._train_epoch(stage)
            metrics = self._finish_epoch(stage, losses, rates, started)
            checkpoint = save_checkpoint(
                self.out_dir, self.progress.epoch, self.model, self.parameters, self.optimizer, asdict(self.progress)
            )
            report(metrics, checkpoint)

    def _train_epoch(self, stage: Stage) -> tuple[dict[str, float], dict[str, float]]:
        """One pass over the train split; mean of each loss term and the last learning rates."""
        training = self.config.training
        batches = len(self.train_loader)
        per_epoch = math.ceil(batches / training.accumulation_steps)
        warmup = round(training.warmup_epochs * per_epoch)
        sums: dict[str, float] = {}
        rates: dict[str, float] = {}
        for index, batch in enumerate(self.train_loader.epoch((training.seed, self.progress.epoch))):
            losses = self._losses(stage, batch.to(self.device))
            # The last group of an epoch may hold fewer batches than `accumulation_steps`.
            group = index // training.accumulation_steps
            members = min(training.accumulation_steps, batches - group * training.accumulation_steps)
            (losses["total"] / members).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.item() * len(batch.labels)
            if not math.isfinite(sums["total"]):
                raise NonFiniteLossError(f"the loss became {losses['total'].item()} in epoch {self.progress.epoch + 1}")
            if (index + 1) % training.accumulation_steps == 0 or index + 1 == batches:
                rates = self._step(stage, stage.epochs * per_epoch, warmup)
        count = len(self.train_loader.labels)
        return {name: total / count for name, total in sums.items()}, rates

    def _losses(self, stage: Stage, batch: Batch) -> dict[str, Tensor]:
        if stage.losses == ("av_only",):
            loss = F.l1_loss(_predict_av(self.model, batch), batch.labels)
            return {"av": loss, "total": loss}
        output = run_model(self.model, batch, self.config.training.precision)
        return compute_losses(
            self.model,
            output,
            batch.input_ids,
            batch.attention_mask,
            batch.labels,
            self.weights,
            pad_token_id=self.pad_token_id,
        )

    def _step(self, stage: Stage, steps: int, warmup: int) -> dict[str, float]:
        training = self.config.training
        peaks = {"fusion": training.lr_fusion, "av": training.lr_av}
        rates = {
            name: learning_rate(peak * stage.lr_scale, self.progress.stage_step, steps, warmup, training.min_lr)
            for name, peak in peaks.items()
        }
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["rate"]]
        torch.nn.utils.clip_grad_value_(self.parameters.values(), training.clip_value)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.stage_step += 1
        return rates

    def _finish_epoch(
        self, stage: Stage, losses: dict[str, float], rates: dict[str, float], started: float
    ) -> dict[str, Any]:
        """Validate, advance the position, keep the best weights, and compose what is reported."""
        progress, trained = self.progress, time.perf_counter()
        labels = self.valid_loader.labels
        predictions = predict(
            self.model, self.valid_loader, self.config.training.precision, av_only=not stage.is_fusion
        )
        if not np.isfinite(predictions).all():
            raise NonFiniteLossError(f"a validation prediction became non-finite in epoch {progress.epoch + 1}")
        valid = compute_metrics(self.dataset.info.name, predictions, labels)
        progress.epoch += 1
        progress.stage_epoch += 1
        metrics: dict[str, Any] = {"stage": stage.name, "epoch": progress.epoch}
        metrics["curriculum/stage"] = progress.stage
        if stage.is_fusion:
            progress.fusion_epoch += 1
            metrics["fusion_epoch"] = progress.fusion_epoch
            metrics |= {f"valid/{name}": value for name, value in valid.items()} | self.model.gates()
            metrics["model/trained_parameters"] = sum(parameter.numel() for parameter in self.parameters.values())
            selected = self.config.training.select_by
            if selected not in valid:
                raise ConfigError(f"training.select_by={selected}: the dataset's metrics are {', '.join(valid)}")
            if is_better(selected, valid[selected], progress.best_value):
                progress.best_value, progress.best_epoch = valid[selected], progress.fusion_epoch
                save_weights(self.out_dir / "best", self.model, {"fusion_epoch": progress.fusion_epoch, "valid": valid})
        else:
            metrics["train/valid_mae_av"] = valid["MAE"]
        metrics["train/loss"] = losses.pop("total")
        metrics |= {f"loss/{name}": value for name, value in losses.items()}
        metrics |= {f"lr/{name}": value for name, value in rates.items()}
        metrics["time/train_seconds"] = trained - started
        metrics["time/valid_seconds"] = time.perf_counter() - trained
        metrics["time/epoch_seconds"] = time.perf_counter() - started
        self._advance(stage, metrics)
        progress.metrics = metrics
        return metrics

    def _advance(self, stage: Stage, metrics: dict[str, Any]) -> None:
        progress, patience = self.progress, self.config.training.patience
        if stage.is_fusion and patience is not None and progress.fusion_epoch - progress.best_epoch >= patience:
            metrics["finished"] = "patience"
        elif progress.stage_epoch == stage.epochs:
            progress.stage, progress.stage_epoch, progress.stage_step = progress.stage + 1, 0, 0
            if progress.stage == len(self.stages):
                metrics["finished"] = "full"


def train(config: TrialConfig, report: Report, *, out_dir: Path, resume_from: Path | None = None) -> None:
    """Train a trial to its end.

    Args:
        config: The trial, whole.
        report: Called after every epoch with flat metrics and the checkpoint written for it. ``fusion_epoch`` is
            there in fusion stages only, ``finished`` (``full`` or ``patience``) in the last report only.
        out_dir: Folder of the trial: ``checkpoints/`` for resuming, ``best/`` with the weights of the best epoch.
        resume_from: A checkpoint; its own epoch is reported again first, then training goes on with the same numbers
            as if it had never stopped (bit-equal on CPU).

    Raises:
        NonFiniteLossError: If the loss or a prediction becomes NaN or infinite.
        DataError, LanguageModelError, ConfigError, CheckpointError: If the trial cannot be built or resumed.
    """
    Trainer(config, out_dir).run(report, resume_from)
