"""Metrics of a finished trial on a split of its own choosing, the test split included."""

from pathlib import Path

from deepmlf.config import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.training.checkpoint import load_weights
from deepmlf.training.forward import build_model, predict
from deepmlf.training.metrics import compute_metrics
from deepmlf.training.predictor import read_trial_config


def evaluate_trial(
    trial: Path, data: str | Path | None = None, split: str = "test", language_model: str | None = None
) -> dict[str, float]:
    """Metrics of a trial's best epoch.

    Args:
        trial: The trial's folder, with ``config.json`` and ``best/``.
        data: Dataset to evaluate on; None takes the one it was trained on.
        split: ``train``, ``valid`` or ``test``.
        language_model: Where it is on this machine; None takes what the trial names.

    Raises:
        CheckpointError: If the folder holds no trained trial.
        DataError: If the dataset cannot be read or its features have other dimensions.
    """
    config = read_trial_config(trial)
    if language_model is not None:
        config = TrialConfig.from_overrides(config.flat(), {"model.language_model": language_model})
    dataset = Dataset.open(data if data is not None else config.data.path)
    model, tokens_of, pad_token_id = build_model(config, dataset)
    load_weights(trial / "best", model)
    size = 2 * config.training.batch_size
    loader = Loader(dataset, split, tokens_of, pad_token_id, size, standardize=config.data.standardize)
    return compute_metrics(dataset.info.name, predict(model, loader, config.training.precision), loader.labels)
