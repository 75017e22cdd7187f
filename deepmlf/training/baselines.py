"""What can be had without any language model: a result that does not beat it says nothing for its model."""

import json
from contextlib import suppress
from typing import Any

import numpy as np

from deepmlf.data.dataset import Dataset, Split, words_of
from deepmlf.data.features import MODALITIES
from deepmlf.files import new_file
from deepmlf.places import home
from deepmlf.training.metrics import compute_metrics

CONSTANT, WORDS, FEATURES = "constant", "words", "audio and vision"
_WORDS_AT_MOST = 20_000
_OF_WORDS = np.array([1.0])
_STRENGTHS = np.logspace(0, 4, 9)
"""Penalties on the weights of features to choose from: of numbers by leaving out one utterance at a time."""

Baselines = dict[str, dict[str, float]]
"""Metrics of each baseline by its name."""


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
    own = f"-{dataset.own_metrics.fingerprint[:16]}" if dataset.own_metrics else ""
    kept = home() / "baselines" / f"{dataset.info.fingerprint}{own}-{split}.json"
    with suppress(OSError, ValueError):
        found: Baselines = json.loads(kept.read_text())
        return found
    found = _computed(dataset, split)
    with suppress(OSError):  # a home that cannot be written costs seconds each time
        kept.parent.mkdir(parents=True, exist_ok=True)
        with new_file(kept) as temporary:
            temporary.write_text(json.dumps(found))
    return found


def _computed(dataset: Dataset, split: str) -> Baselines:
    task, train, judged = dataset.info.task, dataset.split("train"), dataset.split(split)
    if task.is_classification:
        shares = np.bincount(train.labels.astype(int), minlength=task.outputs) / len(train)
        said = {CONSTANT: np.tile(shares, (len(judged), 1))}
    else:
        said = {CONSTANT: np.full(len(judged), np.median(train.labels))}
    if (inputs := _words(train, judged)) is not None:
        said[WORDS] = _fitted(dataset, *inputs, _OF_WORDS)
    if (inputs := _means(train, judged)) is not None:
        said[FEATURES] = _fitted(dataset, *inputs, _STRENGTHS)
    found = {name: compute_metrics(task, values, judged.labels) for name, values in said.items()}
    if dataset.own_metrics is not None:
        for name, values in said.items():
            found[name] |= dataset.own_metrics.compute(values, judged.labels, may_be_undefined=True)
    return found


def _words(train: Split, judged: Split) -> tuple[Any, Any] | None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    counter = TfidfVectorizer(
        tokenizer=words_of, token_pattern=None, ngram_range=(1, 2), max_features=_WORDS_AT_MOST, sublinear_tf=True
    )
    try:
        return counter.fit_transform(train.texts), counter.transform(judged.texts)
    except ValueError:  # no text has a word
        return None


def _means(train: Split, judged: Split) -> tuple[np.ndarray, np.ndarray] | None:
    from sklearn.preprocessing import StandardScaler

    means = [np.hstack([_mean_frames(split, modality) for modality in MODALITIES]) for split in (train, judged)]
    varied = means[0].std(0) > 0
    if not varied.any():
        return None
    scaler = StandardScaler().fit(means[0][:, varied])
    return scaler.transform(means[0][:, varied]), scaler.transform(means[1][:, varied])


def _mean_frames(split: Split, modality: str) -> np.ndarray:
    """[N, features], zero where there are no frames."""
    frames = [getattr(split, modality)(row) for row in range(len(split))]
    return np.array([of.mean(0, dtype=np.float64) if len(of) else np.zeros(of.shape[1]) for of in frames])


def _fitted(dataset: Dataset, train: Any, judged: Any, strengths: np.ndarray) -> np.ndarray:
    """What a linear model says, as `Task.values` does.

    Args:
        dataset: For the labels of train.
        train: Inputs [N, inputs].
        judged: Inputs [M, inputs].
        strengths: Of the penalty on weights, to choose from.
    """
    from sklearn.linear_model import Ridge, RidgeCV

    task, labels = dataset.info.task, dataset.split("train").labels
    if task.is_classification:
        return _probabilities(train, labels.astype(int), judged, strengths, task.outputs)
    model = Ridge(strengths[0]) if len(strengths) == 1 else RidgeCV(strengths)
    return np.clip(model.fit(train, labels).predict(judged), task.low, task.high)


def _probabilities(train: Any, labels: np.ndarray, judged: Any, strengths: np.ndarray, classes: int) -> np.ndarray:
    """Of a logistic regression, [M, classes]; its penalty is chosen by the likelihood of a fifth of train."""
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
