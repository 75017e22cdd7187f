"""Families of decoders, each from its checkpoint to predictions: a row of docs/language-models.md, or why not.

Builds tiny random checkpoints of many families by the reference material's script, and of each makes: admission
(`deepmlf lm get`), one epoch of training on a small synthetic set, an export, predictions from it.

    DEEPMLF_SHARED=../shared python -m benchmarks.language_models
"""

import importlib.util
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.synthetic import make_synthetic
from deepmlf.errors import DeepMLFError
from deepmlf.inference.export import export_trial
from deepmlf.inference.predictor import Predictor
from deepmlf.model import lm_store
from deepmlf.model.admission import Comparison, compare
from deepmlf.training.trainer import train

SETTINGS = {
    "model.fusion_layers": (1, 3), "model.num_fusion_tokens": 3, "model.max_text_len": 16, "model.av_frames": 6,
    "model.av_layers": 1, "model.lora_rank": 4, "training.epochs": 1, "training.batch_size": 16,
    "training.loss_lm": 0.1, "curriculum.name": "joint",
}  # fmt: skip


@dataclass(frozen=True)
class Checked:
    """What came of a language model."""

    comparison: Comparison
    """Its states against Hugging Face's."""
    mae: float
    """Of the trained trial on the validation split."""
    moved: float
    """The largest difference between the trial's validation MAE and that of the exported model's predictions."""


def check(language_model: Path, data: Path, out: Path) -> Checked:
    """Take a language model from its folder to predictions.

    Args:
        language_model: Folder of a checkpoint of at least four layers.
        data: A dataset with labels.
        out: An empty folder for trial and export.

    Raises:
        DeepMLFError: If it is refused.
    """
    found: list[Comparison] = []

    def look(folder: Path) -> str:
        compared = compare(folder)
        found.extend([compared] if compared is not None else [])
        return str(compared)

    folder = lm_store.get(str(language_model), compare=look)
    overrides = SETTINGS | {"model.language_model": str(folder)}
    config = TrialConfig.from_overrides({"data.path": str(data)}, overrides, {})
    reports: list[dict[str, Any]] = []
    trial = out / "trial"
    trial.mkdir(parents=True)
    (trial / "config.json").write_text(config.to_json())
    train(config, lambda metrics, checkpoint: reports.append(dict(metrics)), out_dir=trial)
    export_trial(trial, out / "export")
    predictor, dataset = Predictor.open(str(out / "export")), Dataset.open(data)
    table = predictor.predict(dataset, "valid")
    said = np.abs(np.array(table["sentiment"]) - dataset.split("valid").labels).mean()
    mae = float(reports[-1]["valid/MAE"])
    return Checked(found[0], mae, abs(float(said) - mae))


def families(root: Path) -> Any:
    """The reference material's script as a module that builds into a folder: ``build(name)``, for any of ``FAM``."""
    shared = Path(os.environ.get("DEEPMLF_SHARED", Path(__file__).resolve().parents[2] / "shared"))
    os.environ["FAMILIES"] = str(root)
    spec = importlib.util.spec_from_file_location("families_build", shared / "families" / "build.py")
    if spec is None or spec.loader is None:
        raise SystemExit(f"{shared / 'families' / 'build.py'}: not there; set DEEPMLF_SHARED")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Print a table of all families."""
    print("| checkpoint | runs | states | trained, exported, predicted |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make_synthetic(root / "data", seed=1, sizes=(32, 16, 16))
        module = families(root / "families")
        for name in module.FAM:
            (root / "families").mkdir(exist_ok=True)
            module.build(name)
            try:
                of = check(root / "families" / name, root / "data", root / name)
            except DeepMLFError as error:
                print(f"| {name} | no: {str(error).partition('is not supported: ')[2] or error} | | |", flush=True)
                continue
            how = "packed" if of.comparison.is_packed else "by its own code"
            print(f"| {name} | {how} | {of.comparison.difference:.0e} | yes, equal within {of.moved:.0e} |", flush=True)


if __name__ == "__main__":
    main()
