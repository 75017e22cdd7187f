"""Train one trial: plain PyTorch that knows of a search only the function it reports to."""

import contextlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from deepmlf.config import Stage, TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Batch, Loader, TokensOf
from deepmlf.errors import ConfigError, NonFiniteLossError
from deepmlf.model.av_encoder import pool_frames
from deepmlf.model.deepmlf import DeepMLF, DeepMLFOutput
from deepmlf.model.language_model import load_language_model
from deepmlf.training.av_store import StoredEncoder, key_of
from deepmlf.training.checkpoint import CheckpointWriter, load_checkpoint, save_weights
from deepmlf.training.curriculum import stages_of
from deepmlf.training.losses import LossWeights, compute_losses
from deepmlf.training.memory import give_back_freed_memory, keep_freed_memory
from deepmlf.training.metrics import METRIC_NAMES, compute_metrics, is_better
from deepmlf.training.optim import learning_rate, make_optimizer, start_stage, trained_parameters
from deepmlf.training.prefix_cache import PrefixCache, open_prefix_cache
from deepmlf.training.token_store import token_ids

Report = Callable[[dict[str, Any], Path | None], None]
Head = Literal["task", "av", "text"]


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


def build_model(config: TrialConfig, dataset: Dataset) -> tuple[DeepMLF, TokensOf, int]:
    """The model of a trial on its device, the token ids of each of the dataset's splits, and the pad token.

    Raises:
        LanguageModelError: If the language model is not available.
        ConfigError: If the model does not fit the language model.
    """
    keep_freed_memory()
    device = pick_device(config.training.device)
    dtype = torch.bfloat16 if config.training.precision == "bfloat16" else torch.float32
    language_model, tokenizer = load_language_model(config.model.language_model, str(device), dtype)
    language_model = language_model.first_layers(config.model.lm_layers)
    torch.manual_seed(config.training.seed)
    model = DeepMLF(language_model, dataset.info.audio_dim, dataset.info.vision_dim, config.model).to(device)
    tokens_of = partial(token_ids, dataset, tokenizer=tokenizer, max_length=config.model.max_text_len)
    return model, tokens_of, tokenizer.pad_token_id


def run_model(model: DeepMLF, batch: Batch, precision: str, prefixes: PrefixCache | None = None) -> DeepMLFOutput:
    """One forward pass of a batch, under bf16 autocast if asked; predictions come back in float32."""
    prefix = None if prefixes is None else prefixes.lookup(batch.index).to(batch.input_ids.device)
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
            prefix=prefix,
        )
    predictions = {name: getattr(output, name).float() for name in ("task", "text", "av", "fusion")}
    return replace(output, **predictions)


@torch.no_grad()
def predict(
    model: DeepMLF, loader: Loader, precision: str, *, head: Head = "task", prefixes: PrefixCache | None = None
) -> np.ndarray:
    """Predictions of a split by one head, in the split's own order, [N]."""
    was_training = model.training
    model.eval()
    predictions = np.zeros(len(loader.labels), np.float32)
    device = model.fusion_tokens.device
    for batch in loader.in_order():
        moved = batch.to(device)
        if head == "av":
            output = _predict_av(model, moved)
        else:
            output = getattr(run_model(model, moved, precision, prefixes), head)
        predictions[batch.index.numpy()] = output[:, 0].cpu().numpy()
    model.train(was_training)
    return predictions


def _predict_av(model: DeepMLF, batch: Batch) -> Tensor:
    return model.predict_av(batch.audio, batch.vision, batch.audio_lengths, batch.vision_lengths)


def _pooling(model: DeepMLF, *, training: bool) -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """What a loader may do once in place of the audiovisual encoder."""
    encoders = {"audio": model.av_encoder.audio, "vision": model.av_encoder.vision}
    return {
        modality: partial(pool_frames, frames=encoder.frames, pooling=encoder.pooling)
        for modality, encoder in encoders.items()
        if encoder.pools_first(training)
    }


class Trainer:
    """One trial in progress.

    Args:
        config: The trial.
        out_dir: Its folder, for checkpoints.
        cache_gb: Disk budget of text prefixes on this machine, in gigabytes; 0 keeps none.
        av_store: Folder of audiovisual encoders shared with other trials, if any.
        keep: Newest checkpoints that stay on disk.

    Raises:
        DataError, LanguageModelError, ConfigError: If the trial cannot be built.
    """

    def __init__(
        self, config: TrialConfig, out_dir: Path, av_store: Path | None = None, cache_gb: float = 0.0, keep: int = 1
    ) -> None:
        self.config, self.out_dir, self.av_store, self._cache_gb = config, out_dir, av_store, cache_gb
        self._prefixes: dict[tuple[str, int], PrefixCache | None] = {}
        self.dataset = Dataset.open(config.data.path)
        selected, known = config.training.select_by, METRIC_NAMES[self.dataset.info.name]
        if selected not in known:
            raise ConfigError(f"training.select_by={selected}: the dataset's metrics are {', '.join(known)}")
        self.model, tokens_of, self.pad_token_id = build_model(config, self.dataset)
        self.device = self.model.fusion_tokens.device
        size, scaled = config.training.batch_size, config.data.standardize
        self.train_loader, self.valid_loader = (
            Loader(
                self.dataset,
                split,
                tokens_of,
                self.pad_token_id,
                factor * size,
                standardize=scaled,
                pool=_pooling(self.model, training=split == "train"),
            )
            for split, factor in (("train", 1), ("valid", 2))
        )
        self.stages = stages_of(config)
        self.parameters = trained_parameters(self.model)
        self.optimizer = make_optimizer(self.parameters, config.training)
        self.weights = LossWeights.from_config(config.training)
        self.checkpoints = CheckpointWriter(out_dir, self.model, self.parameters, self.optimizer, keep)
        self.progress = Progress()

    def run(self, report: Report, resume_from: Path | None) -> None:
        """Train to the end, reporting every epoch; see `train`."""
        if resume_from is not None:
            metadata = load_checkpoint(resume_from, self.model, self.parameters, self.optimizer)
            self.progress = Progress(**metadata)
            report(self.progress.metrics, resume_from)
        while "finished" not in self.progress.metrics:
            stage = self.stages[self.progress.stage]
            if stage.is_av_alone and self.av_store is not None:
                self._share_av_stage(self.av_store, stage, report)
            else:
                self._run_epoch(stage, report)

    def _share_av_stage(self, av_store: Path, stage: Stage, report: Report) -> None:
        """Take the first stage's outcome from the store; or train it, while others that need it wait, and store it."""
        stored = StoredEncoder(av_store, key_of(self.config, stage, self.dataset.info))
        with stored.lock():
            metrics = stored.load(self.model, self.parameters, self.optimizer)
            if metrics is None:
                while self.progress.stage == 0:
                    self._run_epoch(stage, report)
                stored.save(self.model, self.parameters, self.optimizer, self.progress.metrics)
                return
        metrics = {name: value for name, value in metrics.items() if not name.startswith("time/")}
        metrics["curriculum/av_reused"] = 1
        self.progress = Progress(stage=1, epoch=stage.epochs, metrics=metrics)
        self._save_and_report(report)

    def _run_epoch(self, stage: Stage, report: Report) -> None:
        started = time.perf_counter()
        if self.progress.stage_epoch == 0:
            # Each stage draws from its own seed: what came before, or was taken from the store, makes no difference.
            seed = np.random.SeedSequence((self.config.training.seed, self.progress.stage)).generate_state(1)
            torch.manual_seed(int(seed[0]))
        start_stage(self.model, self.parameters, stage)
        losses, rates = self._train_epoch(stage)
        self.checkpoints.start()
        self._finish_epoch(stage, losses, rates, started)
        self._save_and_report(report)

    def _save_and_report(self, report: Report) -> None:
        checkpoint = self.checkpoints.finish(self.progress.epoch, asdict(self.progress))
        report(self.progress.metrics, checkpoint)

    def _train_epoch(self, stage: Stage) -> tuple[dict[str, float], dict[str, float]]:
        """One pass over the train split; mean of each loss term and the last learning rates."""
        training = self.config.training
        batches = len(self.train_loader)
        per_epoch = math.ceil(batches / training.accumulation_steps)
        warmup = round(training.warmup_epochs * per_epoch)
        sums: dict[str, float] = {}
        rates: dict[str, float] = {}
        # The audiovisual stage's batches must not depend on how a language model cuts the texts.
        epoch = self.train_loader.epoch((training.seed, self.progress.epoch), by_length=not stage.is_av_alone)
        for index, batch in enumerate(epoch):
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
        if stage.is_av_alone:
            loss = F.l1_loss(_predict_av(self.model, batch), batch.labels)
            return {"av": loss, "total": loss}
        # SoftPerm changes the text of every batch anew.
        prefixes = None if self.model.text_softperm.is_active else self._prefix_cache(self.train_loader)
        output = run_model(self.model, batch, self.config.training.precision, prefixes)
        if not stage.is_fusion:
            loss = F.l1_loss(output.text, batch.labels)
            return {"text": loss, "total": loss}
        return compute_losses(
            self.model,
            output,
            batch.input_ids,
            batch.labels,
            self.weights,
            pad_token_id=self.pad_token_id,
        )

    def _prefix_cache(self, loader: Loader) -> PrefixCache | None:
        key = loader.split, self.model.active_layers[0]
        if key not in self._prefixes:
            self._prefixes[key] = open_prefix_cache(self.model, loader, self._cache_gb, self.device)
        return self._prefixes[key]

    def _step(self, stage: Stage, steps: int, warmup: int) -> dict[str, float]:
        training = self.config.training
        peaks = {"fusion": training.lr_fusion, "av": training.lr_av}
        rates = {
            name: learning_rate(stage.lr or peak, self.progress.stage_step, steps, warmup, training.min_lr)
            for name, peak in peaks.items()
        }
        for group in self.optimizer.param_groups:
            group["lr"] = rates[group["rate"]]
        torch.nn.utils.clip_grad_value_(self.parameters.values(), training.clip_value)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.progress.stage_step += 1
        return rates

    def _finish_epoch(self, stage: Stage, losses: dict[str, float], rates: dict[str, float], started: float) -> None:
        """Validate, advance the position, keep the best weights, and compose what is reported."""
        progress, trained = self.progress, time.perf_counter()
        labels = self.valid_loader.labels
        head: Head = "task" if stage.is_fusion else "av" if stage.is_av_alone else "text"
        prefixes = None if head == "av" else self._prefix_cache(self.valid_loader)
        predictions = predict(
            self.model, self.valid_loader, self.config.training.precision, head=head, prefixes=prefixes
        )
        if not np.isfinite(predictions).all():
            raise NonFiniteLossError(f"a validation prediction became non-finite in epoch {progress.epoch + 1}")
        valid = compute_metrics(self.dataset.info.name, predictions, labels)
        progress.epoch += 1
        progress.stage_epoch += 1
        metrics: dict[str, Any] = {"stage": stage.name, "epoch": progress.epoch}
        metrics["curriculum/stage"] = progress.stage
        if stage.is_fusion:
            metrics["curriculum/active_blocks"] = len(self.model.active_layers)
            progress.fusion_epoch += 1
            metrics["fusion_epoch"] = progress.fusion_epoch
            metrics |= {f"valid/{name}": value for name, value in valid.items()} | self.model.gates()
            metrics["model/trained_parameters"] = sum(parameter.numel() for parameter in self.parameters.values())
            selected = self.config.training.select_by
            if is_better(selected, valid[selected], progress.best_value):
                progress.best_value, progress.best_epoch = valid[selected], progress.fusion_epoch
                save_weights(self.out_dir / "best", self.model, {"fusion_epoch": progress.fusion_epoch, "valid": valid})
        else:
            metrics[f"train/valid_mae_{head}"] = valid["MAE"]
        metrics["train/loss"] = losses.pop("total")
        metrics |= {f"loss/{name}": value for name, value in losses.items()}
        metrics |= {f"lr/{name}": value for name, value in rates.items()}
        metrics["time/train_seconds"] = trained - started
        metrics["time/valid_seconds"] = time.perf_counter() - trained
        metrics["time/epoch_seconds"] = time.perf_counter() - started
        self._advance(stage, metrics)
        progress.metrics = metrics

    def _advance(self, stage: Stage, metrics: dict[str, Any]) -> None:
        progress, patience = self.progress, self.config.training.patience
        # Patience counts in the last stage alone: no trial ends before all its MM blocks had their chance.
        is_last = progress.stage == len(self.stages) - 1
        without_better = min(progress.stage_epoch, progress.fusion_epoch - progress.best_epoch)
        if is_last and patience is not None and without_better >= patience:
            metrics["finished"] = "patience"
        elif progress.stage_epoch == stage.epochs:
            progress.stage, progress.stage_epoch, progress.stage_step = progress.stage + 1, 0, 0
            if progress.stage == len(self.stages):
                metrics["finished"] = "full"


def train(
    config: TrialConfig,
    report: Report,
    *,
    out_dir: Path,
    resume_from: Path | None = None,
    av_store: Path | None = None,
    cache_gb: float = 0.0,
    keep: int = 1,
) -> None:
    """Train a trial to its end.

    Args:
        config: The trial, whole.
        report: Called after every epoch with flat metrics and the checkpoint written for it. ``fusion_epoch`` is
            there in fusion stages only, ``finished`` (``full`` or ``patience``) in the last report only.
        out_dir: Folder of the trial: ``checkpoints/`` for resuming, ``best/`` with the weights of the best epoch.
        resume_from: A checkpoint; its own epoch is reported again first, then training goes on with the same numbers
            as if it had never stopped (bit-equal on CPU).
        av_store: Folder that trials share. The stage that trains the audiovisual encoder alone is taken from there if
            another trial has trained the same: it is then reported once, as its last epoch, with
            ``curriculum/av_reused``. Otherwise it is trained, and stored there.
        cache_gb: Disk budget of text prefixes on this machine, in gigabytes; 0 keeps none.
        keep: Newest checkpoints that stay on disk.

    Raises:
        NonFiniteLossError: If the loss or a prediction becomes NaN or infinite.
        DataError, LanguageModelError, ConfigError, CheckpointError: If the trial cannot be built or resumed.
    """
    try:
        trainer = Trainer(config, out_dir, av_store, cache_gb, keep)
        with trainer.checkpoints:
            trainer.run(report, resume_from)
    finally:
        give_back_freed_memory()
