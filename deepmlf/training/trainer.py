"""Train one trial: plain PyTorch that knows of a search only the function it reports to."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deepmlf.config.trial import Stage, TrialConfig
from deepmlf.data.batch import Batch
from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.errors import ConfigError, NonFiniteLossError
from deepmlf.locks import locked
from deepmlf.model.decode import TextPrefix
from deepmlf.training.av_stage import BestEncoder
from deepmlf.training.checkpoints.files import BEST
from deepmlf.training.checkpoints.save import CheckpointWriter, load_checkpoint, save_weights
from deepmlf.training.curriculum import has_stalled, has_text_alone, stages_of
from deepmlf.training.forward import (
    Head,
    LanguageLosses,
    build_model,
    pooling,
    predict,
    predict_av,
    predict_heads,
    run_model,
)
from deepmlf.training.frame_attention import attention_over_frames
from deepmlf.training.losses import LossWeights, compute_losses, prediction_loss
from deepmlf.training.machine.memory import give_back_freed_memory
from deepmlf.training.machine.prefetch import on_device
from deepmlf.training.machine.speed import SpeedMeter, without_measurements
from deepmlf.training.metrics import compute_metrics, direction_of, error_metric, is_better, metric_names
from deepmlf.training.model_baselines import language_model_metrics, text_head_metrics
from deepmlf.training.optim import (
    clipped_parameters,
    count_in_use,
    make_optimizer,
    schedule_of,
    set_rates,
    start_stage,
    trained_parameters,
)
from deepmlf.training.reports import AV_REUSED, FIDELITY, MISSING_BLOCKS, TRAINED_PARAMETERS, VALID  # fmt: skip
from deepmlf.training.stores.av_encoders import StoredEncoder
from deepmlf.training.stores.av_key import key_of
from deepmlf.training.stores.text_prefixes import PrefixCache, open_prefix_cache
from deepmlf.training.ulgm.labels import UnimodalLabels

Report = Callable[[dict[str, Any], Path | None], None]

_CHECKED_STEPS = 20  # batches between looks at a GPU's loss, each of which waits for it


@dataclass
class Position:
    """Where a trial stands; stored in its checkpoints."""

    stage: int = 0
    """Index of the stage in position."""
    stage_epoch: int = 0
    """Finished epochs of that stage."""
    stage_step: int = 0
    """Optimiser steps taken in that stage."""
    epoch: int = 0
    """Finished epochs of all stages."""
    fusion_epoch: int = 0
    """Finished fusion epochs: the fidelity."""
    best_value: float | None = None
    """Best ``training.select_by`` of a fusion epoch with the whole model."""
    best_epoch: int = 0
    """The fusion epoch that had it."""
    av_maes: list[float] = field(default_factory=list)
    """Validation error (MAE or cross-entropy) of each finished epoch of a stage in position that trains the audiovisual
    encoder alone."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What the last finished epoch reported."""


class Trainer:
    """One trial in position.

    Args:
        config: The trial.
        out_dir: Its folder, for checkpoints; nothing is written before `run`.
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
        self.dataset.require_whole("train", "valid")
        self.dataset.require_labels("train", "valid")
        selected, known = config.training.select_by, metric_names(self.dataset.info.task)
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
                share=config.data.train_share if split == "train" else 1.0,
                pool=pooling(self.model, training=split == "train"),
            )
            for split, factor in (("train", 1), ("valid", 2))
        )
        self.stages = stages_of(config)
        self.parameters = trained_parameters(self.model)
        self.optimizer = make_optimizer(self.parameters, config.training)
        self._clipped = clipped_parameters(self.parameters, config.training)
        self._best_av = BestEncoder(config.curriculum, self.model, self.parameters, self.optimizer)
        self.weights = LossWeights.from_config(config.training)
        self.unimodal_labels = UnimodalLabels.of(config, self.dataset.info.task, self.train_loader, self.device)
        self.checkpoints = CheckpointWriter(out_dir, self.model, self.parameters, self.optimizer, keep)
        self.position = Position()
        self._language = LanguageLosses(self.model, self.valid_loader, config.training.precision, self.pad_token_id)
        self._meter = SpeedMeter(self.device, config.training.precision)
        self._lengths = np.array([len(tokens) for tokens in self.train_loader.tokens])
        self._mean_tokens = self._lengths[self.train_loader.rows].mean() + config.model.num_fusion_tokens

    def run(self, report: Report, resume_from: Path | None) -> None:
        """Train to the end, reporting every epoch; see `train`."""
        with self.checkpoints:
            if resume_from is not None:
                metadata = load_checkpoint(resume_from, self.model, self.parameters, self.optimizer)
                self.position = Position(**metadata)
                self._best_av.resume(resume_from)
                if self.unimodal_labels is not None:
                    self.unimodal_labels.resume(resume_from, self.position.fusion_epoch)
                report(self.position.metrics, resume_from)
            while "finished" not in self.position.metrics:
                stage = self.stages[self.position.stage]
                if stage.is_av_alone and self.av_store is not None:
                    self._share_av_stage(self.av_store, stage, report)
                else:
                    self._run_epoch(stage, report)

    def _share_av_stage(self, av_store: Path, stage: Stage, report: Report) -> None:
        """Take the first stage's outcome from the store; or train it, while others that need it wait, and store it."""
        stored = StoredEncoder(av_store, key_of(self.config, stage, self.dataset.info.fingerprint))
        with locked(stored.lock(), "another trial's audiovisual stage"):
            metrics = stored.load(self.model, self.parameters, self.optimizer)
            if metrics is None:
                while self.position.stage == 0:
                    self._run_epoch(stage, report)
                stored.save(self.model, self.parameters, self.optimizer, self.position.metrics)
                return
        self._best_av.forget()
        metrics = without_measurements(metrics) | {AV_REUSED: 1}
        self.position = Position(stage=1, epoch=metrics["epoch"], metrics=metrics)
        self._save_and_report(report)

    def _run_epoch(self, stage: Stage, report: Report) -> None:
        mean_tokens = 0.0 if stage.is_av_alone else self._mean_tokens
        self._meter.start_epoch(self.position.stage, mean_tokens)
        if self.position.stage_epoch == 0:
            # Each stage draws from its own seed: what came before, or was taken from the store, makes no difference.
            seed = np.random.SeedSequence((self.config.training.seed, self.position.stage)).generate_state(1)
            torch.manual_seed(int(seed[0]))
        start_stage(self.model, self.parameters, stage)
        with self._meter.phase("train"):
            losses, rates = self._train_epoch(stage)
        self.checkpoints.start()
        self._finish_epoch(stage, losses, rates)
        if self._best_av.is_wanted and stage.is_av_alone and self.position.stage_epoch == 0:  # it is over
            self.checkpoints.drop()
            self._best_av.restore()
        self._save_and_report(report)

    def _save_and_report(self, report: Report) -> None:
        with self._meter.phase("checkpoint"):
            parts = self._best_av.parts | (self.unimodal_labels.parts if self.unimodal_labels else {})
            checkpoint = self.checkpoints.finish(self.position.epoch, asdict(self.position), parts)
        report(self.position.metrics, checkpoint)

    def _train_epoch(self, stage: Stage) -> tuple[dict[str, float], dict[str, float]]:
        """One pass over the train split; mean of each loss term and the last learning rates."""
        training, meter = self.config.training, self._meter
        batch_size = stage.batch_size or training.batch_size
        accumulation_steps = stage.accumulation_steps or training.accumulation_steps
        batches = self.train_loader.batches(batch_size)
        per_epoch = math.ceil(batches / accumulation_steps)
        schedule = schedule_of(self.config, stage, per_epoch, self.position.av_maes)
        sums: dict[str, Tensor] = {}
        rates: dict[str, float] = {}
        check_every = 1 if self.device.type == "cpu" else _CHECKED_STEPS
        # The audiovisual stage's batches must not depend on how a language model cuts the texts.
        seed = training.seed, self.position.epoch
        epoch = self.train_loader.epoch(seed, by_length=not stage.is_av_alone, batch_size=batch_size)
        with meter.phase("data"):
            # Augmentation changes the text of every batch anew.
            is_cached = not (stage.is_av_alone or self.model.text_augmentation.is_active)
            prefixes = self._prefix_cache(self.train_loader) if is_cached else None
        moved = on_device(epoch, self.device, prefixes)
        for index, (batch, prefix) in enumerate(meter.timed("data", moved)):
            size, is_last = len(batch.targets), index + 1 == batches
            # The last group of an epoch may hold fewer batches than `accumulation_steps`.
            group = index // accumulation_steps
            members = min(accumulation_steps, batches - group * accumulation_steps)
            divisor = members if training.accumulation == "mean" else 1
            with meter.step(size, self._tokens(stage, batch)):
                with meter.phase("forward"):
                    losses = self._losses(stage, batch, prefix)
                with meter.phase("backward"):
                    (losses["total"] / divisor).backward()
            for name, loss in losses.items():
                sums[name] = sums.get(name, 0.0) + loss.detach().double() * size
            if ((index + 1) % check_every == 0 or is_last) and not sums["total"].isfinite():
                total = sums["total"].item()
                raise NonFiniteLossError(f"the loss became {total} in epoch {self.position.epoch + 1}")
            if (index + 1) % accumulation_steps == 0 or is_last:
                with meter.phase("optimizer"):
                    rates = self._step(stage, schedule(self.position.stage_step))
        count = len(self.train_loader.rows)
        if not stage.is_av_alone:
            meter.look_up(count, cached=prefixes is not None)
        return {name: total.item() / count for name, total in sums.items()}, rates

    def _tokens(self, stage: Stage, batch: Batch) -> int:
        """Text and fusion tokens of a batch that the language model reads."""
        if stage.is_av_alone:
            return 0
        return int(self._lengths[batch.index.numpy()].sum()) + len(batch.index) * self.config.model.num_fusion_tokens

    def _losses(self, stage: Stage, batch: Batch, prefix: TextPrefix | None) -> dict[str, Tensor]:
        if stage.is_av_alone:
            outputs = predict_av(self.model, batch, last_frame=self._reads_last_frame)
            loss = prediction_loss(outputs, batch.targets)
            return {"av": loss, "total": loss}
        output = run_model(self.model, batch, self.config.training.precision, prefix)
        if not stage.is_fusion:
            loss = prediction_loss(output.text, batch.targets)
            return {"text": loss, "total": loss}
        labels, epoch = self.unimodal_labels, self.position.fusion_epoch + 1
        return compute_losses(
            self.model,
            output,
            batch.input_ids,
            batch.targets,
            self.weights,
            pad_token_id=self.pad_token_id,
            generated=None if labels is None else labels.step(output.states, batch.index, epoch),
        )

    def _prefix_cache(self, loader: Loader) -> PrefixCache | None:
        key = loader.split, self.model.active_layers[0]
        if key not in self._prefixes:
            self._prefixes[key] = open_prefix_cache(self.model, loader, self._cache_gb, self.device)
        return self._prefixes[key]

    @property
    def _reads_last_frame(self) -> bool:
        return self.config.curriculum.av_readout == "last"

    def _step(self, stage: Stage, rates: dict[str, float]) -> dict[str, float]:
        set_rates(self.optimizer, rates, self.config.training, stage)
        torch.nn.utils.clip_grad_value_(self._clipped, self.config.training.clip_value)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.position.stage_step += 1
        return rates

    def _finish_epoch(self, stage: Stage, losses: dict[str, float], rates: dict[str, float]) -> None:
        """Validate, advance the position, keep the best weights, and compose what is reported."""
        position = self.position
        head: Head = "task" if stage.is_fusion else "av" if stage.is_av_alone else "text"
        with self._meter.phase("validation"):
            valid, beside = self._validate(head)
        position.epoch += 1
        position.stage_epoch += 1
        metrics: dict[str, Any] = {"stage": stage.name, "epoch": position.epoch}
        metrics["curriculum/stage"] = position.stage
        if stage.is_fusion:
            metrics["curriculum/active_blocks"] = len(self.model.active_layers)
            if stage.active_blocks is not None:
                metrics[MISSING_BLOCKS] = len(self.model.fusion_layers) - len(self.model.active_layers)
            position.fusion_epoch += 1
            metrics[FIDELITY] = position.fusion_epoch
            metrics |= {f"{VALID}{name}": value for name, value in valid.items()}
            metrics |= beside | self.model.gates()
            if self.config.training.language_loss:
                with self._meter.phase("validation"):
                    metrics |= self._language.metrics(self._prefix_cache(self.valid_loader))
            if self.unimodal_labels is not None:
                metrics |= self.unimodal_labels.metrics(position.fusion_epoch)
            metrics[TRAINED_PARAMETERS] = count_in_use(self.model, self.parameters)
            selected = self.config.training.select_by
            direction = direction_of(selected, self.dataset.info.task.own)
            if stage.active_blocks is None and is_better(valid[selected], position.best_value, direction):
                position.best_value, position.best_epoch = valid[selected], position.fusion_epoch
                with self._meter.phase("validation"):
                    metrics |= attention_over_frames(self.model, self.valid_loader, self.config.training.precision)
                with self._meter.phase("checkpoint"):
                    metadata = {FIDELITY: position.fusion_epoch, "valid": valid}
                    save_weights(self.out_dir / BEST, self.model, metadata)
        else:
            error = error_metric(self.dataset.info.task)
            metrics[f"unimodal/{head}_{error}"] = valid[error]
            if stage.is_av_alone:
                position.av_maes.append(valid[error])
                self._best_av.look(position.av_maes)
        metrics["train/loss"] = losses.pop("total")
        metrics |= {f"loss/{name}": value for name, value in losses.items()}
        metrics |= {f"lr/{name}": value for name, value in rates.items()}
        metrics |= self._meter.metrics()
        if stage.is_fusion and position.fusion_epoch == 1:
            lm, loaders = self.model.language_model, (self.train_loader, self.valid_loader)
            metrics |= language_model_metrics(lm, self.dataset, *loaders)
        self._advance(stage, metrics)
        position.metrics = metrics

    def _validate(self, head: Head) -> tuple[dict[str, float], dict[str, float]]:
        """Metrics of the validation split by one head; beside the task's, what is reported of the text head."""
        loader, precision, task = self.valid_loader, self.config.training.precision, self.dataset.info.task
        said: dict[str, np.ndarray] = {}
        if head == "av":
            said[head] = predict(self.model, loader, precision, head=head, last_frame=self._reads_last_frame)
        else:
            heads = ("task", "text") if head == "task" and has_text_alone(self.config) else (head,)
            prefixes = self._prefix_cache(loader)
            said = predict_heads(self.model, loader, precision, heads, prefixes=prefixes)
            self._meter.look_up(len(loader.labels), cached=prefixes is not None)
        if not all(np.isfinite(outputs).all() for outputs in said.values()):
            raise NonFiniteLossError(f"a validation prediction became non-finite in epoch {self.position.epoch + 1}")
        valid = compute_metrics(task, task.values(said[head]), loader.labels, self.dataset.own_metrics)
        return valid, text_head_metrics(self.dataset, loader.split, said["text"]) if len(said) > 1 else {}

    def _advance(self, stage: Stage, metrics: dict[str, Any]) -> None:
        position, patience = self.position, self.config.training.patience
        # Patience counts in the last stage alone: no trial ends before all its MM blocks had their chance.
        is_last = position.stage == len(self.stages) - 1
        without_better = min(position.stage_epoch, position.fusion_epoch - position.best_epoch)
        if is_last and patience is not None and without_better >= patience:
            metrics["finished"] = "patience"
        elif self._is_over(stage):
            position.stage, position.stage_epoch, position.stage_step = position.stage + 1, 0, 0
            position.av_maes = []
            if position.stage == len(self.stages):
                metrics["finished"] = "full"

    def _is_over(self, stage: Stage) -> bool:
        if self.position.stage_epoch == stage.epochs:
            return True
        return stage.is_av_alone and has_stalled(self.position.av_maes, self.config.curriculum.av_patience)


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
            as if it had never stopped (bit-equal on CPU, if text prefixes are cached or not as before).
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
        Trainer(config, out_dir, av_store, cache_gb, keep).run(report, resume_from)
    finally:
        give_back_freed_memory()
