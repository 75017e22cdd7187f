"""What commands on one trial or model print with `--json`."""

from pydantic import ConfigDict

from deepmlf.cli.schemas.base import Metrics, Said


class Trained(Said):
    """`deepmlf train`."""

    folder: str
    """Of the trial."""
    valid: Metrics
    """Of the best epoch, on the validation split."""
    baselines: dict[str, Metrics]
    """What simple models reach there."""


class Evaluated(Said):
    """`deepmlf evaluate`: beside the fields below each metric under its own name, as ``MAE``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float | None]

    split: str
    """What was evaluated."""
    utterances: int
    """With labels, of that split."""
    fusion_epoch: int
    """Whose weights they are: the trial's best."""
    baselines: dict[str, Metrics]
    """What simple models reach on the same split."""
    language_model: str | None
    """Fingerprint of the trial's language model; null of trials of earlier releases."""


class Predicted(Said):
    """`deepmlf predict`."""

    out: str
    """The Parquet file."""
    utterances: int
    """Its rows."""
    metrics: Metrics | None
    """Null without labels of the training's kind."""
    language_model: str
    """Fingerprint of the language model."""


class WordRemoved(Said):
    """What one word does to a prediction."""

    word: str
    """With its place."""
    change: float
    """Prediction without it less the one with all."""


class Explained(Said):
    """`deepmlf explain`."""

    out: str
    """The page."""
    predictions: dict[str, float | dict[str, float] | None]
    """By head: a number, or probabilities of classes; null of a head that was never trained."""
    label: float | str | None
    """Of the utterance."""
    change_without: dict[str, float]
    """By modality: prediction without it less the one with all; of classes the probability of the one that is said."""
    change_without_word: list[WordRemoved]
    """The same of each word, in their order."""


class Exported(Said):
    """`deepmlf export`."""

    out: str
    """The folder."""
    valid: Metrics
    """Of the exported epoch, on the validation split."""


class ReferenceImported(Said):
    """`deepmlf import-reference`."""

    out: str
    """The folder."""
