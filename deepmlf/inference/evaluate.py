"""Metrics of a finished trial on a split of its own choosing, the test split included."""

from pathlib import Path

from deepmlf.data.dataset import Dataset
from deepmlf.errors import DataError
from deepmlf.inference.predictor import Predictor, read_trial_config
from deepmlf.training.baselines import Baselines, baselines


def evaluate_trial(
    trial: Path,
    data: str | Path | None = None,
    split: str = "test",
    language_model: str | None = None,
    trained_on: str | Path | None = None,
    device: str = "auto",
) -> dict[str, float]:
    """Metrics of a trial's best epoch.

    Args:
        trial: The trial's folder, with ``config.json`` and ``best/``.
        data: Dataset to evaluate on, its features scaled as those of the training; None takes the training's own.
        split: ``train``, ``valid`` or ``test``.
        language_model: Where it is on this machine; None takes what the trial names.
        trained_on: Where the dataset of the training is now; None: where it was.
        device: A torch device, or ``auto`` for a GPU if there is one.

    Raises:
        CheckpointError: If the folder holds no trained trial.
        DataError: If a dataset cannot be read, or its features or labels are not such as the trial's.
        ConfigError: If the device cannot be used.
    """
    training = trained_on if trained_on is not None else read_trial_config(trial).data.path
    predictor = Predictor.open_trial(trial, language_model, data=training, device=device)
    dataset = Dataset.open(data if data is not None else training)
    metrics = predictor.metrics(dataset, predictor.predict(dataset, split))
    if metrics is None:
        raise DataError(
            f"{dataset.path}: labels of {split} are missing or of another {_kind(predictor)} than in training"
        )
    return metrics


def baselines_beside(
    trial: Path, split: str, data: str | Path | None = None, trained_on: str | Path | None = None
) -> Baselines:
    """What simple models of the trial's training data reach on the same split; none on other data, or on train."""
    if data is not None or split == "train":
        return {}
    return baselines(Dataset.open(trained_on if trained_on is not None else read_trial_config(trial).data.path), split)


def _kind(predictor: Predictor) -> str:
    return "class" if predictor.task.is_classification else "range"
