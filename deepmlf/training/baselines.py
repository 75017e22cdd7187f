"""What can be had without training a DeepMLF: a result that does not beat it says nothing for its model.

Here is what needs no language model, and what baselines of all kinds have in common.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from deepmlf.data.dataset import Dataset, Split
from deepmlf.data.features import MODALITIES
from deepmlf.data.task import Task
from deepmlf.data.values import words_of
from deepmlf.files import new_file
from deepmlf.places import home
from deepmlf.seal import read_document, sealed
from deepmlf.training.metrics import compute_metrics
from deepmlf.training.reports import Baselines

FOLDER = "baselines"
CONSTANT, WORDS, FEATURES = "constant", "words", "audio and vision"
_WORDS_AT_MOST = 20_000
_OF_WORDS = np.array([1.0])
_STRENGTHS = np.logspace(0, 4, 9)
"""Penalties on the weights of features to choose from."""


def baselines(dataset: Dataset, split: str = "valid") -> Baselines:
    """Metrics of simple models of the train split on another split of the dataset.

    ``constant`` says the same of every utterance: the median label, or of classes how often each is there. ``words`` is
    a ridge (of classes, a logistic) regression on the words and pairs of words of a text, weighted by TF-IDF;
    ``audio and vision`` one on the mean over each modality's frames. Where there is nothing to learn from, as no
    utterance has frames, there is no such baseline. What was computed once is kept on this machine.

    Args:
        dataset: With labels in `split` and train.
        split: What they are judged on.
    """
    return kept(name_of(dataset, split), lambda: _computed(dataset, split))


def _computed(dataset: Dataset, split: str) -> Baselines:
    task, train, judged = dataset.info.task, dataset.split("train"), dataset.split(split)
    if task.is_classification:
        shares = np.bincount(train.labels.astype(int), minlength=task.outputs) / len(train)
        said = {CONSTANT: np.tile(shares, (len(judged), 1))}
    else:
        said = {CONSTANT: np.full(len(judged), np.median(train.labels))}
    if (inputs := _words(train, judged)) is not None:
        said[WORDS] = fitted(task, train.labels, *inputs, _OF_WORDS)
    if (inputs := scaled(mean_frames(train), mean_frames(judged))) is not None:
        said[FEATURES] = fitted(task, train.labels, *inputs, _STRENGTHS)
    return measured(dataset, split, said)


def _words(train: Split, judged: Split) -> tuple[Any, Any] | None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(
        tokenizer=words_of, token_pattern=None, ngram_range=(1, 2), max_features=_WORDS_AT_MOST, sublinear_tf=True
    )
    try:
        return counter.fit_transform(train.texts), counter.transform(judged.texts)
    except ValueError:  # no text has a word
        return None


def baselines_line(metric: str, values: Mapping[str, float]) -> str:
    """Baselines' values of a metric on one line, e.g. ``baselines, valid/MAE: constant 1.3000; words 1.0000``."""
    return f"baselines, {metric}: " + "; ".join(f"{name} {value:.4f}" for name, value in values.items())


def name_of(dataset: Dataset, split: str) -> str:
    """Differs between any two datasets, splits and files of the user's own metrics."""
    own = f"-{dataset.own_metrics.fingerprint[:16]}" if dataset.own_metrics else ""
    return f"{dataset.info.fingerprint}{own}-{split}"


def kept(name: str, compute: Callable[[], Baselines]) -> Baselines:
    """What is kept under a name, or computed and kept; a home that cannot be written costs the work each time."""
    path = home() / FOLDER / f"{name}.json"
    with suppress(OSError, ValueError):
        found: Baselines = read_document(path)
        return found
    found = compute()
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with new_file(path) as temporary:
            temporary.write_text(json.dumps(sealed(found)))
    return found


def fitted(task: Task, labels: np.ndarray, train: Any, judged: Any, strengths: np.ndarray) -> np.ndarray:
    """What a ridge regression says, of classes a logistic one, as `Task.values` does.

    Args:
        task: The task.
        labels: Of train, [N].
        train: Inputs [N, inputs].
        judged: Inputs [M, inputs].
        strengths: Of the penalty on weights, to choose from: of numbers by leaving out one utterance at a time, of
            classes by the likelihood of a fifth of train.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    if task.is_classification:
        return _probabilities(train, labels.astype(int), judged, strengths, task.outputs)
    model = Ridge(strengths[0]) if len(strengths) == 1 else RidgeCV(strengths)
    return np.clip(model.fit(train, labels).predict(judged), task.low, task.high)


def _probabilities(train: Any, labels: np.ndarray, judged: Any, strengths: np.ndarray, classes: int) -> np.ndarray:
    """Of a logistic regression, [M, classes]."""
    from sklearn.linear_model import LogisticRegression

    def said(rows: np.ndarray, of: Any, strength: float) -> np.ndarray:
        probabilities = np.zeros((of.shape[0], classes))
        if len(known := np.unique(labels[rows])) < 2:
            probabilities[:, known] = 1.0
            return probabilities
        model = LogisticRegression(C=1.0 / strength, max_iter=1000).fit(train[rows], labels[rows])
        probabilities[:, model.classes_] = model.predict_proba(of)
        return probabilities

    def unlikeliness(strength: float) -> float:
        likelihoods = said(rest, train[held], strength)[np.arange(len(held)), labels[held]]
        return float(-np.log(np.maximum(likelihoods, 1e-6)).sum())

    order = np.random.default_rng(0).permutation(len(labels))
    held, rest = np.split(order, [len(order) // 5])
    best = float(strengths[0]) if len(strengths) == 1 else min(map(float, strengths), key=unlikeliness)
    return said(order, judged, best)


def scaled(train: np.ndarray, judged: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Inputs [N, inputs] and [M, inputs] at the mean and standard deviation of train, but for those that are the same
    all over it; None if no other ones are left."""
    from sklearn.preprocessing import StandardScaler

    varied = train.std(0) > 0
    if not varied.any():
        return None
    scaler = StandardScaler().fit(train[:, varied])
    return scaler.transform(train[:, varied]), scaler.transform(judged[:, varied])


def mean_frames(split: Split) -> np.ndarray:
    """The mean over each utterance's frames, audio's beside vision's, [N, features]; zero where there are none."""
    return np.hstack([_mean_frames(split, modality) for modality in MODALITIES])


def _mean_frames(split: Split, modality: str) -> np.ndarray:
    frames = [getattr(split, modality)(row) for row in range(len(split))]
    return np.array([of.mean(0, dtype=np.float64) if len(of) else np.zeros(of.shape[1]) for of in frames])


def measured(dataset: Dataset, split: str, said: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Metrics of what several models say of a split, as `Task.values` does; without the user's own that are undefined.

    Args:
        dataset: With labels in that split.
        split: Its name.
        said: By the models' names.
    """
    task, labels, own = dataset.info.task, dataset.split(split).labels, dataset.own_metrics
    return {name: compute_metrics(task, values, labels, own, may_be_undefined=True) for name, values in said.items()}
