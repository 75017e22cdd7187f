"""Predictions of a finished model, a trial or an exported one, on any dataset with the same features."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from deepmlf.config.earlier import trial_config
from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset, Split
from deepmlf.data.loader import Loader
from deepmlf.data.task import Task
from deepmlf.errors import CheckpointError, DataError
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import dtype_of, load_tokenizer
from deepmlf.model.lm.tokenizer import ByteTokenizer, Tokenizer
from deepmlf.model.pretrained import TrainedOn, is_pretrained, read_config, tokenizer_of
from deepmlf.seal import read_document
from deepmlf.training.checkpoints.files import BEST, CONFIG, LANGUAGE_MODEL, has_best, read_metadata
from deepmlf.training.checkpoints.save import load_weights
from deepmlf.training.curriculum import silent_heads
from deepmlf.training.forward import HEADS, build_model, predict_heads
from deepmlf.training.machine.device import pick_device
from deepmlf.training.metrics import compute_metrics, sentiment_classes
from deepmlf.training.stores.token_ids import token_ids


def read_trial_config(trial: Path) -> TrialConfig:
    """The configuration of a trial's folder.

    Raises:
        CheckpointError: If the folder holds no trial.
        ConfigError: If a setting is unknown or impossible.
    """
    try:
        tree = read_document(trial / CONFIG)
    except OSError:
        where = "; its trials are in trials/" if (trial / "trials").is_dir() else ""
        raise CheckpointError(f"{trial}: not a trial's folder (no config.json there{where})") from None
    except ValueError as error:
        raise CheckpointError(f"{trial / 'config.json'}: damaged ({error})") from None
    if not isinstance(tree, dict) or not tree.keys() <= TrialConfig.model_fields.keys():
        raise CheckpointError(f"{trial}: not a trial's folder (its config.json is of something else)")
    return trial_config(tree)


def require_best(trial: Path) -> None:
    """Refuse a trial that has no best weights.

    Raises:
        CheckpointError: If it has none.
    """
    if not has_best(trial):
        raise CheckpointError(f"{trial}: has no best weights; let it train for one fusion epoch with all MM blocks")


def unchecked(trial: Path) -> list[str]:
    """What is to be said of a trial that does not tell which weights its language model had."""
    if read_metadata(trial / BEST).get(LANGUAGE_MODEL) is not None:
        return []
    return [f"{trial}: does not say which weights its language model had, so it is not known whether they still are"]


def _notes_on(model: DeepMLF, trained_on: TrainedOn) -> tuple[str, ...]:
    silent = [
        f"the {head} head says nothing: its loss did not count (training.loss_{head}=0)"
        for head in trained_on.silent_heads
        if head != "fusion" or model.fusion_head is not None
    ]
    if model.fusion_head is None:
        silent += [
            "there is no fusion head: the model has no fusion tokens (model.num_fusion_tokens=0)",
            "the text head does not speak for the words alone: without fusion tokens they attend to audio and vision",
        ]
    return tuple(silent)


@dataclass(frozen=True)
class Predictor:
    """A model in eval mode with all that prepares its inputs.

    Features are scaled by the statistics of the training data, whatever dataset is predicted.

    >>> predictor = Predictor.open("runs/model")
    >>> table = predictor.predict(Dataset.open("runs/mosi"), "test")
    >>> table.num_rows, table.column_names[:2]
    (24, ['id', 'text'])
    """

    name: str
    """Of the folder that it was read from."""
    model: DeepMLF
    """In eval mode, on its device."""
    tokenizer: Tokenizer | ByteTokenizer
    """The language model's."""
    trained_on: TrainedOn
    """What is known of the dataset of the training."""
    notes: tuple[str, ...] = ()
    """What a reader of its predictions must know, a line each."""

    @classmethod
    def open(cls, folder: str | Path, language_model: str | None = None, device: str = "auto") -> "Predictor":
        """Read an exported folder, or a trial's.

        Args:
            folder: What ``deepmlf export`` wrote, or a trial with best weights, whose dataset must be in place.
            language_model: Another copy of the language model than the one that the folder names.
            device: A torch device, or ``auto`` for a GPU if there is one, whatever the training had.

        Raises:
            ConfigError: If the device cannot be used.
            CheckpointError: If the folder is neither, or damaged.
            LanguageModelError: If the language model is not on this machine, or is another one.
            DataError: If a trial's dataset is not in place.
        """
        folder = Path(folder)
        if is_pretrained(folder):
            return cls._open_pretrained(folder, language_model, device)
        return cls.open_trial(folder, language_model, device=device)

    @classmethod
    def _open_pretrained(cls, folder: Path, language_model: str | None, device: str) -> "Predictor":
        config = read_config(folder)
        if config.trained_on is None:
            raise CheckpointError(
                f"{folder}: does not say what it was trained on, so inputs cannot be prepared; "
                "make it with `deepmlf export TRIAL OUT`"
            )
        model = DeepMLF.from_pretrained(
            folder,
            language_model=language_model,
            device=pick_device(device),
            dtype=dtype_of(config.trained_on.precision),
        )
        notes = _notes_on(model, config.trained_on)
        return cls(folder.absolute().name, model, tokenizer_of(folder, config), config.trained_on, notes)

    @classmethod
    def open_trial(
        cls, folder: Path, language_model: str | None = None, data: str | Path | None = None, device: str = "auto"
    ) -> "Predictor":
        """Read a trial's best epoch.

        Args:
            folder: The trial's.
            language_model: Another copy of the language model than the one that the trial names.
            data: Where the dataset of the training is now; None: where it was.
            device: As `open` takes it.

        Raises:
            CheckpointError, LanguageModelError, DataError, ConfigError: As `open`.
        """
        config = read_trial_config(folder)
        require_best(folder)
        if language_model is not None:
            changed = config.model.model_copy(update={"language_model": language_model})
            config = config.model_copy(update={"model": changed})
        config = config.placed(device=device)  # that of the training may be another machine's
        dataset = Dataset.open(data if data is not None else config.data.path)
        model, _, _ = build_model(config, dataset)
        load_weights(folder / BEST, model)
        training = config.training
        tokenizer = load_tokenizer(config.model.language_model, config.model.special_tokens)
        trained_on = TrainedOn.of(
            dataset.info,
            standardize=config.data.standardize,
            precision=training.precision,
            batch_size=2 * training.batch_size,
            silent_heads=silent_heads(config),
        )
        notes = (*unchecked(folder), *_notes_on(model, trained_on))
        return cls(folder.absolute().name, model.eval(), tokenizer, trained_on, notes)

    def loader(self, dataset: Dataset, split: str, share: float = 1.0) -> Loader:
        """Batches of a split, or of a share of it, prepared as in training.

        Raises:
            DataError: If its features have other sizes than the model's, or there is no such split or nothing in it.
        """
        info, model, ours = dataset.info, self.model, self.trained_on.dataset
        if (info.audio_dim, info.vision_dim) != (model.audio_dim, model.vision_dim):
            raise DataError(
                f"{dataset.path}: has {info.audio_dim} audio and {info.vision_dim} vision features, "
                f"but the model takes {model.audio_dim} and {model.vision_dim}"
            )
        if not info.splits.get(split, 1):
            filled = ", ".join(name for name, count in info.splits.items() if count)
            raise DataError(f"{dataset.path}: {split} is empty; it has {filled}")
        scaling = {name: getattr(ours, name) for name in ("audio_mean", "audio_std", "vision_mean", "vision_std")}
        prepared = Dataset(dataset.path, info.model_copy(update=scaling))
        return Loader(
            prepared,
            split,
            lambda name: token_ids(dataset, name, self.tokenizer, model.config.max_text_len),
            self.tokenizer.pad_token_id,
            self.trained_on.batch_size,
            standardize=self.trained_on.standardize,
            share=share,
        )

    def predict(self, dataset: Dataset, split: str) -> pa.Table:
        """Predict every utterance of a split, in its order.

        Returns:
            Columns ``id``, ``text``, ``label`` (null where there is none), ``sentiment`` (the final prediction),
            ``sentiment_text``, ``sentiment_av`` and ``sentiment_fusion`` (those of the auxiliary heads; null if its
            loss did not count, or there is no such head), ``sentiment_class`` and ``label_class`` (``negative``,
            ``neutral`` or ``positive``).
            Of a model that predicts classes: ``id``, ``text``, ``label_class``, ``predicted_class``,
            ``predicted_class_text``, ``predicted_class_av``, ``predicted_class_fusion``, and
            ``probability_…`` of each class.

        Raises:
            DataError: If the dataset does not fit the model, or there is no such split.
        """
        return self.table(dataset, split, self.values(dataset, split))

    def values(self, dataset: Dataset, split: str) -> dict[str, np.ndarray]:
        """What each head says of a split, as `Task.values` does.

        Raises:
            DataError: As `predict`.
        """
        dataset.require_whole(split)
        loader = self.loader(dataset, split)
        outputs = predict_heads(self.model, loader, self.trained_on.precision)
        nothing = np.zeros((len(loader.labels), self.model.outputs), np.float32)  # of a head that there is not
        return {head: self.task.values(outputs.get(head, nothing)) for head in HEADS}

    def table(self, dataset: Dataset, split: str, values: Mapping[str, np.ndarray]) -> pa.Table:
        """What `predict` returns, of what `values` did; the final prediction is what ``task`` says."""
        rows, said = dataset.split(split), dict(values)
        of_task = (
            self._classes(dataset, rows, said) if self.task.is_classification else self._numbers(dataset, rows, said)
        )
        return pa.table({"id": rows.ids, "text": rows.texts} | of_task)

    @property
    def has_text_alone(self) -> bool:
        """Whether the text head says what words alone tell; see `deepmlf.training.curriculum.has_text_alone`."""
        return self.model.fusion_head is not None and "text" not in self.trained_on.silent_heads

    @property
    def task(self) -> Task:
        """What the model predicts."""
        return self.trained_on.dataset.task

    def _numbers(self, dataset: Dataset, rows: Split, said: dict[str, np.ndarray]) -> dict[str, Any]:
        sentiment, theirs = said.pop("task"), dataset.info.task
        labels = np.full(len(rows), np.nan, np.float32) if theirs.is_classification else rows.labels
        known = np.isfinite(labels)
        # By the data's own range, which need not be that of the training.
        label_classes = sentiment_classes(theirs, np.where(known, labels, 0))
        return {
            "label": pa.array(labels, from_pandas=True),
            "sentiment": sentiment,
            **{f"sentiment_{head}": self._said(head, values, pa.float32()) for head, values in said.items()},
            "sentiment_class": sentiment_classes(self.task, sentiment),
            "label_class": pa.array(label_classes, mask=~known),
        }

    def _classes(self, dataset: Dataset, rows: Split, said: dict[str, np.ndarray]) -> dict[str, Any]:
        names = {head: [self.task.classes[index] for index in values.argmax(1)] for head, values in said.items()}
        return {
            "label_class": pa.array([class_of(dataset, label) for label in rows.labels], pa.string()),
            "predicted_class": names.pop("task"),
            **{f"predicted_class_{head}": self._said(head, values, pa.string()) for head, values in names.items()},
            **{f"probability_{name}": said["task"][:, index] for index, name in enumerate(self.task.classes)},
        }

    def _said(self, head: str, values: Sequence[Any] | np.ndarray, kind: pa.DataType) -> pa.Array:
        return pa.nulls(len(values), kind) if head in self.trained_on.silent_heads else pa.array(values, kind)

    def metrics(self, dataset: Dataset, table: pa.Table, *, may_be_undefined: bool = False) -> dict[str, float] | None:
        """Metrics of what `predict` returned; None without all labels, or with labels of another range or class.

        Args:
            dataset: What was predicted.
            table: What was returned.
            may_be_undefined: Leave out those of the user's own metrics that are not finite.
        """
        task, theirs = self.task, dataset.info.task
        if task.is_classification:
            labels = table["label_class"].to_pylist()
            if not set(labels) <= set(task.classes):
                return None
            predictions = np.stack([table[f"probability_{name}"].to_numpy() for name in task.classes], axis=1)
            positions = np.array([task.classes.index(label) for label in labels])
            own = dataset.own_metrics
            return compute_metrics(task, predictions, positions, own, may_be_undefined=may_be_undefined)
        if theirs.is_classification or (task.low, task.high) != (theirs.low, theirs.high) or table["label"].null_count:
            return None
        predictions, own = table["sentiment"].to_numpy(), dataset.own_metrics
        return compute_metrics(task, predictions, table["label"].to_numpy(), own, may_be_undefined=may_be_undefined)


def class_of(dataset: Dataset, label: float) -> str | None:
    """The class that a label of a dataset is; None if there is no label, or it is a number."""
    task = dataset.info.task
    return task.classes[int(label)] if task.is_classification and np.isfinite(label) else None
