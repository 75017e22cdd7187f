"""Metrics of a finished trial on a split of its own choosing, the test split included."""

from dataclasses import dataclass, field
from pathlib import Path

from deepmlf.data.dataset import Dataset
from deepmlf.errors import DataError
from deepmlf.inference.predictor import Predictor, read_trial_config
from deepmlf.training.baselines import baselines
from deepmlf.training.model_baselines import language_model_baselines
from deepmlf.training.reports import TEXT_HEAD, Baselines


@dataclass(frozen=True)
class Evaluation:
    """What a trial reaches on a split."""

    metrics: dict[str, float]
    """Of its best epoch."""
    utterances: int = 0
    """How many they are measured on."""
    of_language_model: Baselines = field(default_factory=dict)
    """What its frozen language model does, see `deepmlf.training.model_baselines`."""
    of_trial: Baselines = field(default_factory=dict)
    """What its own text head does, where that says what words alone tell."""


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
    predictor, dataset = _opened(trial, data, language_model, trained_on, device)
    return _evaluated(predictor, dataset, split).metrics


def evaluate_beside(
    trial: Path,
    data: str | Path | None = None,
    split: str = "test",
    language_model: str | None = None,
    trained_on: str | Path | None = None,
    device: str = "auto",
) -> Evaluation:
    """Metrics of a trial's best epoch, and of what stands beside it; see `evaluate_trial`.

    On other data than the training's, or on train, nothing is said of the language model.
    """
    predictor, dataset = _opened(trial, data, language_model, trained_on, device)
    found = _evaluated(predictor, dataset, split)
    if data is not None or split == "train":
        return found
    share = read_trial_config(trial).data.train_share
    loaders = predictor.loader(dataset, "train", share), predictor.loader(dataset, split)
    simple = language_model_baselines(predictor.model.language_model, dataset, *loaders)
    return Evaluation(found.metrics, found.utterances, simple, found.of_trial)


def _opened(
    trial: Path, data: str | Path | None, language_model: str | None, trained_on: str | Path | None, device: str
) -> tuple[Predictor, Dataset]:
    training = trained_on if trained_on is not None else read_trial_config(trial).data.path
    predictor = Predictor.open_trial(trial, language_model, data=training, device=device)
    return predictor, Dataset.open(data if data is not None else training)


def _evaluated(predictor: Predictor, dataset: Dataset, split: str) -> Evaluation:
    said = predictor.values(dataset, split)
    table = predictor.table(dataset, split, said)
    metrics = predictor.metrics(dataset, table)
    if metrics is None:
        raise DataError(
            f"{dataset.path}: labels of {split} are missing or of another {_kind(predictor)} than in training"
        )
    if not predictor.has_text_alone:
        return Evaluation(metrics, len(table))
    of_text = predictor.table(dataset, split, said | {"task": said["text"]})
    text = predictor.metrics(dataset, of_text, may_be_undefined=True)
    return Evaluation(metrics, len(table), of_trial={} if text is None else {TEXT_HEAD: text})


def baselines_beside(
    trial: Path, split: str, data: str | Path | None = None, trained_on: str | Path | None = None
) -> Baselines:
    """What simple models of the trial's training data reach on the same split; none on other data, or on train."""
    if data is not None or split == "train":
        return {}
    return baselines(Dataset.open(trained_on if trained_on is not None else read_trial_config(trial).data.path), split)


def _kind(predictor: Predictor) -> str:
    return "class" if predictor.task.is_classification else "range"
