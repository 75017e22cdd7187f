"""What each command prints with `--json`. Numbers that are undefined (NaN, infinite) are null.

`docs/schemas.json` has the same as JSON Schema, by command. Fields are never taken away or given another meaning within
a major version; new ones may come.
"""

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

Metrics = dict[str, float | None]
"""Values by name, as ``MAE`` or ``Corr``."""
Count = dict[str, int]
"""Numbers of trials by state, or of utterances by split."""


class Said(BaseModel):
    """One JSON object."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


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


class Searched(Said):
    """`deepmlf search` and `deepmlf resume`. Exit status 130 if it was interrupted, 2 if something stopped it."""

    experiment: str
    """Path or URI."""
    best_trial: int | None
    """Number of the best one by the first objective."""
    best_folder: str | None
    """Its path or URI."""
    metric: str
    """The first objective, as ``valid/MAE``."""
    value: float | None
    """Its best value."""
    front: list[int]
    """Trials that no other one beats."""
    config: dict[str, Any]
    """The best trial's settings by dotted name, those that the space sets."""
    states: Count
    """Trials in each state."""
    seconds: float
    """That this command took."""
    fusion_epochs_spent: int
    """Of all trials."""
    fusion_epochs_full: int
    """What full training of all would take."""
    trial_seconds: float
    """What trials took together."""
    trial_seconds_before_fusion: float
    """The part of stages before fusion."""
    interrupted: bool
    """Whether trials are left to do."""
    out_of_time: bool
    """Whether the time budget ended it."""
    stop_reason: str | None
    """What stopped it before its end, if anything did."""
    exhausted: bool
    """Whether no setting was left that no trial has."""


class Difference(Said):
    """The search's choice minus another setting, paired by seed."""

    mean: float
    """Over the seeds that both have."""
    low: float | None
    """Lower end of its interval; null where all differences are the same."""
    high: float | None
    """Upper end."""


class Confirmed(Said):
    """One setting, trained again."""

    model_config = ConfigDict(alias_generator=lambda name: name.rstrip("_"))

    trial: int
    """Of the search."""
    stopped_at: int | None
    """Fusion epoch at which the search stopped it."""
    seeds: list[int]
    """Those that finished."""
    mean: Metrics
    """Test metrics over seeds."""
    std: Metrics
    """Their sample standard deviation."""
    difference: dict[str, Difference] | None = None
    """By metric, of all settings but the first."""
    is_: Literal["worse", "better", "undecided"] | None = None
    """``is``: how it compares with the search's choice; not there for the choice itself."""


class Verdict(Said):
    """`deepmlf confirm`."""

    settings: list[Confirmed]
    """The search's choice first."""
    differences: dict[str, Difference]
    """Of the first of the others that can be compared."""
    verdict: Literal["holds", "undecided", "fails"]
    """Whether the choice is better than each other, or another is better than it, beyond what seeds may do."""
    objective: str
    """The metric that decides."""
    asked: int
    """Seeds of each setting."""
    baselines: dict[str, Metrics]
    """Test metrics of simple models."""
    unbeaten: list[str]
    """Those that the choice's mean does not beat."""


class CommonFidelity(Said):
    """Where trials are compared."""

    fusion_epochs: int
    """That many of each trial's."""
    reached_by: int
    """Trials that got there."""
    of: int
    """Trials in all."""


class Row(Said):
    """A trial on the leaderboard."""

    rank: int | None
    """1 is the best; null of trials that failed, still run, or repeat another."""
    trial: int
    """Its number."""
    state: str
    """``COMPLETE``, ``PRUNED``, ``FAIL`` or ``RUNNING``."""
    values: list[float]
    """The objectives in its best epoch; none before its first one."""
    epochs: int
    """Fusion epochs that it reached."""
    is_whole: bool
    """Whether it was trained to its end."""
    at_common: float | None
    """The first objective where trials are compared."""
    params: dict[str, Any]
    """What was drawn for it."""
    repeats: int | None
    """The trial whose training it repeats."""
    on_front: bool
    """Whether no other one beats it in all objectives."""


class Point(Said):
    """One setting of a grid, over its seeds."""

    setting: dict[str, Any]
    """What was varied."""
    mean: float
    """Of the first objective."""
    std: float
    """Sample standard deviation; 0 of one seed."""
    seeds: int
    """That finished."""


class Analysed(Said):
    """`deepmlf analyze`."""

    experiment: str
    """Path or URI."""
    report: str | None
    """The page's path or URI; null if the experiment cannot be written."""
    recipe: str | None
    """That the search began with."""
    best_trial: int | None
    """Number of the best one by the first objective."""
    best_folder: str | None
    """Its path or URI."""
    metric: str
    """The first objective."""
    value: float | None
    """Its best value."""
    common_fidelity: CommonFidelity
    """Fusion epochs by which all can be compared, and how many got there."""
    leaderboard: list[Row]
    """All trials, best first."""
    baselines: Metrics
    """The first objective of simple models."""
    unbeaten: list[str]
    """Those that the best trial does not beat."""
    front: list[int]
    """Trials that no other one beats."""
    repeats: Count
    """Trials that train what another one trains, and that one's number."""
    states: Count
    """Trials in each state."""
    trials_unfinished: int
    """That the search has yet to end."""
    failures: dict[str, str]
    """Why trials failed, by number."""
    restarts: dict[str, list[str]]
    """Why trials started again, by number."""
    curve: list[Point]
    """Of a grid over seeds."""
    fusion_epochs_spent: int
    """Of all trials."""
    fusion_epochs_full: int
    """What full training of all would take."""
    fusion_epochs_saved: int
    """What stopped trials did not train."""
    seconds: float
    """What trials took together."""
    seconds_before_fusion: float
    """The part of stages before fusion."""


class Served(Said):
    """`deepmlf tensorboard`, printed as soon as it listens; the command goes on until Ctrl-C."""

    url: str
    """Where it listens."""


BY_COMMAND: dict[str, type[Said]] = {
    "data import": Imported, "data metrics": OwnMetrics, "data extract": Extracted, "data synthetic": Synthetic,
    "data info": Dataset, "lm get": LanguageModel, "train": Trained, "search": Searched, "resume": Searched,
    "confirm": Verdict, "analyze": Analysed, "tensorboard": Served, "evaluate": Evaluated, "export": Exported,
    "predict": Predicted, "explain": Explained, "import-reference": ReferenceImported,
}  # fmt: skip
"""The object that each command prints."""


def json_schemas() -> dict[str, Any]:
    """JSON Schema of what each command prints, by command; see ``docs/schemas.json``."""
    return {command: said.model_json_schema() for command, said in BY_COMMAND.items()}


if __name__ == "__main__":
    print(json.dumps(json_schemas(), indent=1))
