"""What commands on data and language models print with `--json`."""

from typing import Any, Literal

from deepmlf.cli.schemas.base import Count, Said


class Imported(Said):
    """`deepmlf data import`."""

    name: str
    """Of the dataset."""
    fingerprint: str
    """Of its contents."""
    splits: Count
    """Utterances of ``train``, ``valid`` and ``test``."""
    missing: list[str]
    """Modalities that are absent."""
    task: dict[str, Any]
    """What is predicted: ``metrics`` (the protocol), ``low`` and ``high`` of numbers, ``classes``, ``own`` metrics."""


class OwnMetrics(Said):
    """`deepmlf data metrics`."""

    metrics: dict[str, Literal["minimize", "maximize"]]
    """The dataset's own metrics, and which way each is better."""


class Extracted(Said):
    """`deepmlf data extract`; clips by name. Exit status 2 if any failed."""

    extracted: list[str]
    """Clips whose features are new."""
    kept: list[str]
    """Clips whose features were there."""
    failed: dict[str, str]
    """Clips that could not be read, and why."""
    absent: dict[str, list[str]]
    """By modality, new clips that have none of it."""


class Synthetic(Said):
    """`deepmlf data synthetic`."""

    fingerprint: str
    """Of the dataset's contents."""
    splits: Count
    """Utterances of each split."""
    reachable_mae: dict[str, float]
    """Best MAE that can be reached, by what is looked at."""


class Spread(Said):
    """Lengths over the utterances of a split."""

    min: float
    """The shortest."""
    median: float
    """Half are shorter."""
    max: float
    """The longest."""


class Tokens(Spread):
    """Tokens per utterance of a split."""

    cut: int
    """Utterances that are longer than ``max_text_len``."""
    utterances: int
    """In all."""


class Split(Said):
    """A split of a dataset; an empty one has the first two fields alone."""

    utterances: int
    """In all."""
    unlabelled: int
    """Those without a label."""
    words: Spread | None = None
    """Words per utterance."""
    audio_frames: Spread | None = None
    """Frames per utterance."""
    vision_frames: Spread | None = None
    """Frames per utterance."""
    labels: Count | None = None
    """Utterances by class, or by the nearest of some even numbers of the range."""


class Dataset(Said):
    """`deepmlf data info`."""

    name: str
    """Of the dataset."""
    fingerprint: str
    """Of its contents."""
    task: str
    """What is predicted, in words."""
    audio_dim: int
    """Features of a frame."""
    vision_dim: int
    """Features of a frame."""
    missing: list[str]
    """Modalities that are absent."""
    lowercase: bool
    """Whether texts were lower-cased."""
    splits: dict[str, Split]
    """``train``, ``valid`` and ``test``."""
    language_model: str
    """Whose tokens are counted."""
    max_text_len: int
    """Tokens at which texts are cut."""
    tokens: dict[str, Tokens]
    """By split; none where the language model is not on this machine."""


class LanguageModel(Said):
    """`deepmlf lm get`."""

    name: str
    """Of what is there; another model may stand in for what was asked for."""
    folder: str
    """Where its files are."""
    layers: int
    """Of the decoder."""
    fingerprint: str
    """Of its contents."""
    read_as: str | None
    """How it runs and how far its states are from Hugging Face's; null where that is not recorded."""
