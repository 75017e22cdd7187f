"""How much faster a whole search is than the same one without its shortcuts; one JSON line.

Eight fixed settings, two fusion epochs each, on the synthetic set with SmolLM2-135M, two trials at a time: once as
`deepmlf search` runs them, once on the plain path, in the same run. The plain path pads texts to the longest that is
allowed, runs every layer over all positions with gradients, makes logits of every position, pools audiovisual frames in
every step, keeps no text prefixes, no audiovisual encoder and no language model from trial to trial, and takes
PyTorch's own dropout and AdamW. Both train the same settings; their losses differ by random numbers alone.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.trial_overhead import importable_by_workers
from deepmlf.config.trial import Stage, TrialConfig
from deepmlf.data.batch import Batch
from deepmlf.data.synthetic import make_synthetic
from deepmlf.model.decode import TextPrefix
from deepmlf.model.deepmlf import DeepMLFOutput
from deepmlf.model.language_model import load_language_model
from deepmlf.training.losses import compute_losses, next_token_targets
from deepmlf.training.metrics import compute_metrics
from deepmlf.training.trainer import Trainer
from deepmlf.tune.search import run_search
from deepmlf.tune.settings import SearchSettings

EPOCHS = 2
SPACE = """
BASE = {"training.batch_size": 16, "model.fusion_start": 0.4, "curriculum.av_epochs": 2, "training.loss_lm": 0.1}


def space(trial):
    return {
        "model.fusion_depth": trial.suggest_categorical("model.fusion_depth", [3, 5]),
        "model.num_fusion_tokens": trial.suggest_categorical("model.num_fusion_tokens", [8, 12]),
        "curriculum.name": trial.suggest_categorical("curriculum.name", ["joint", "av_first"]),
    }
"""


class PlainTrainer(Trainer):
    """The trainer with every shortcut off."""

    def __init__(self, config: TrialConfig, out_dir: Path) -> None:
        load_language_model.cache_clear()
        super().__init__(config, out_dir)
        for loader in (self.train_loader, self.valid_loader):
            loader._pooled.clear()
        for module in self.model.mm_blocks.modules():
            for name, child in module.named_children():
                if isinstance(child, nn.Dropout):
                    setattr(module, name, nn.Dropout(child.p))
        for group in self.optimizer.param_groups:
            group["fused"] = False

    def _losses(self, stage: Stage, batch: Batch, prefix: TextPrefix | None) -> dict[str, Tensor]:
        if not stage.is_fusion:
            return super()._losses(stage, batch, prefix)
        padded = self._padded(batch)
        output = self._forward(padded, lm_logits=True)
        losses = compute_losses(
            self.model,
            output,
            padded.input_ids,
            batch.targets,
            replace(self.weights, lm=0.0),
            pad_token_id=self.pad_token_id,
        )
        mask, longest = padded.attention_mask, self.config.model.max_text_len
        targets = next_token_targets(padded.input_ids, mask, longest, self.pad_token_id)
        assert output.lm_logits is not None
        each = F.cross_entropy(output.lm_logits[:, :longest].transpose(1, 2), targets, reduction="none")
        losses["lm"] = (each * mask).sum() / mask.sum()
        return losses | {"total": losses["total"] + self.weights.lm * losses["lm"]}

    def _validate(self, head: str) -> tuple[dict[str, float], dict[str, float]]:
        if head == "av":
            return super()._validate(head)
        self.model.eval()
        predictions = torch.zeros(len(self.valid_loader.labels))
        with torch.no_grad():
            for batch in self.valid_loader.chunks(self.config.training.batch_size):
                predictions[batch.index] = self._forward(self._padded(batch)).task[:, 0]
        self.model.train()
        return compute_metrics(self.dataset.info.task, predictions.numpy(), self.valid_loader.labels), {}

    def _forward(self, batch: Batch, lm_logits: bool = False) -> DeepMLFOutput:
        output: DeepMLFOutput = self.model(
            batch.input_ids,
            batch.attention_mask,
            batch.audio,
            batch.vision,
            audio_lengths=batch.audio_lengths,
            vision_lengths=batch.vision_lengths,
            lm_logits=lm_logits,
            plain=True,
        )
        return output

    def _padded(self, batch: Batch) -> Batch:
        missing = self.config.model.max_text_len - batch.input_ids.shape[1]
        ids = F.pad(batch.input_ids, (0, missing), value=self.pad_token_id)
        return replace(batch, input_ids=ids, attention_mask=F.pad(batch.attention_mask, (0, missing)))


def plain_train(
    config: TrialConfig, report: Callable[..., None], *, out_dir: Path, resume_from: Path | None, **options: Any
) -> None:
    """`deepmlf.training.trainer.train` on the plain path."""
    PlainTrainer(config, out_dir).run(report, resume_from)


def search(folder: Path, name: str, **settings: Any) -> tuple[float, list[float]]:
    """Seconds of a whole search, Ray's start included, and each trial's best MAE."""
    started = time.perf_counter()
    summary = run_search(
        SearchSettings(
            data=str(folder / "data"),
            space=str(folder / "space.py"),
            storage=str(folder),
            name=name,
            trials=8,
            epochs=EPOCHS,
            concurrent=2,
            sampler="grid",
            scheduler="none",
            quiet=True,
            **settings,
        )
    )
    if summary.states["COMPLETE"] != 8:
        raise RuntimeError(f"{name}: {summary.states}; see {folder / name}/trials/*/error.txt")
    seconds = time.perf_counter() - started
    lines = [path.read_text().splitlines() for path in (folder / name).glob("trials/*/metrics.jsonl")]
    return seconds, [min(json.loads(line).get("valid/MAE", 9.0) for line in each) for each in lines]


def measure(folder: Path, size: int) -> dict[str, Any]:
    """Both searches."""
    make_synthetic(folder / "data", sizes=(size, size // 4, size // 4))
    (folder / "space.py").write_text(SPACE)
    seconds, errors = search(folder, "ours")
    plain_seconds, plain_errors = search(
        folder, "plain", train_function="benchmarks.search_throughput:plain_train", cache_gb=0.0
    )
    return {
        "benchmark": "search_throughput",
        "train_utterances": size,
        "seconds": round(seconds, 1),
        "plain_seconds": round(plain_seconds, 1),
        "ratio": round(plain_seconds / seconds, 2),
        "median_valid_mae": round(statistics.median(errors), 3),
        "plain_median_valid_mae": round(statistics.median(plain_errors), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="train utterances")
    importable_by_workers()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), parser.parse_args().size)))


if __name__ == "__main__":
    main()
