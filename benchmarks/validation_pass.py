"""A validation pass against bare forward passes of the same utterances, with SmolLM2-135M; one JSON line.

The pass is what the trainer does at the end of an epoch: batches, predictions of the split, metrics; with and without
text prefixes from the cache. The bare passes run on batches that were made before, of several sizes; the fastest size
counts. All in one run, turn by turn.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.train_step import seconds
from deepmlf.config.trial import TrialConfig
from deepmlf.data.batch import Batch
from deepmlf.data.synthetic import make_synthetic
from deepmlf.training.forward import predict, run_model
from deepmlf.training.metrics import compute_metrics
from deepmlf.training.stores.text_prefixes import PrefixCache, open_prefix_cache
from deepmlf.training.trainer import Trainer

SIZES = (16, 32, 64, 128, 256)


def make_trainer(folder: Path, utterances: int, precision: str) -> Trainer:
    """A trial with MM blocks after every third layer from the middle on, as the published settings have."""
    config = TrialConfig.from_overrides(
        {
            "data.path": str(folder / "data"),
            "model.language_model": "smollm2-135m",
            "model.fusion_layers": [11, 14, 17, 20, 23],
            "training.precision": precision,
            "training.epochs": 1,
            "curriculum.name": "joint",
        }
    )
    make_synthetic(folder / "data", sizes=(8, utterances, 2))
    return Trainer(config, folder / "trial")


def measure(folder: Path, utterances: int, precision: str, repeats: int) -> dict[str, Any]:
    """Median seconds of each."""
    trainer = make_trainer(folder, utterances, precision)
    model, loader = trainer.model, trainer.valid_loader
    prefixes = open_prefix_cache(model, loader, 10.0, trainer.device)
    order = np.argsort([len(tokens) for tokens in loader.tokens], kind="stable")
    batches = {
        size: [loader.batch(order[start : start + size]) for start in range(0, len(order), size)]
        for size in SIZES
        if size <= len(order)
    }

    def validate(prefixes: PrefixCache | None) -> None:
        task = trainer.dataset.info.task
        compute_metrics(task, task.values(predict(model, loader, precision, prefixes=prefixes)), loader.labels)

    @torch.no_grad()
    def forward(of: list[Batch]) -> None:
        model.eval()
        for batch in of:
            run_model(model, batch, precision)

    works: dict[str, Callable[[], object]] = {
        "validation": lambda: validate(None),
        "validation_cached": lambda: validate(prefixes),
    } | {str(size): lambda of=of: forward(of) for size, of in batches.items()}
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            spent = seconds(work, trainer.device)
            if turn > 0:  # the first one warms up
                times[name].append(spent)
    medians = {name: statistics.median(values) for name, values in times.items()}
    size = min((name for name in medians if name.isdigit()), key=medians.__getitem__)
    return {
        "benchmark": "validation_pass",
        "utterances": utterances,
        "precision": precision,
        "prefixes_are_faster": prefixes is not None,
        "validation_seconds": round(medians["validation"], 3),
        "validation_cached_seconds": round(medians["validation_cached"], 3),
        "forward_seconds": {int(name): round(value, 3) for name, value in medians.items() if name.isdigit()},
        "best_batch_size": int(size),
        "ratio": round(medians["validation"] / medians[size], 3),
        "ratio_cached": round(medians["validation_cached"] / medians[size], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=256)
    parser.add_argument("--precision", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        print(json.dumps(measure(Path(scratch), options.utterances, options.precision, options.repeats)))


if __name__ == "__main__":
    main()
