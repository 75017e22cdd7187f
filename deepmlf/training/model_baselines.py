"""Baselines of what a trial has: its frozen language model, alone and beside audio and vision, and its text head."""

import hashlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress

import numpy as np
import torch
from filelock import FileLock

from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.locks import locked
from deepmlf.model.decode import text_alone
from deepmlf.model.language_model import LanguageModel
from deepmlf.model.lm.packing import Packing
from deepmlf.places import home
from deepmlf.training.baselines import FOLDER, fitted, kept, mean_frames, measured, name_of, scaled
from deepmlf.training.reports import (
    BASELINE_SECONDS,
    LM_STATES,
    LM_STATES_AND_FEATURES,
    TEXT_HEAD,
    Baselines,
    baseline_metrics,
)

_TEXTS = 64  # at a time: as many as are computed at once for the store of text prefixes
_STRENGTHS = np.logspace(0, 5, 11)
"""Penalties on the weights to choose from; states are many, so that more of it may be right than for features alone."""


def language_model_metrics(
    language_model: LanguageModel, dataset: Dataset, train: Loader, judged: Loader
) -> dict[str, float]:
    """What `language_model_baselines` finds, and the seconds it took: most trials find it computed by another one."""
    started = time.perf_counter()
    found = language_model_baselines(language_model, dataset, train, judged)
    return baseline_metrics(found) | {BASELINE_SECONDS: time.perf_counter() - started}


def text_head_metrics(dataset: Dataset, split: str, outputs: np.ndarray) -> dict[str, float]:
    """What a text head reaches on a split by its outputs [N, outputs]."""
    return baseline_metrics(measured(dataset, split, {TEXT_HEAD: dataset.info.task.values(outputs)}))


def language_model_baselines(
    language_model: LanguageModel, dataset: Dataset, train: Loader, judged: Loader
) -> Baselines:
    """Metrics of linear models of what the frozen language model makes of texts.

    ``language model`` is a ridge (of classes, a logistic) regression on the last layer's normed states, averaged over a
    text's tokens; ``language model, audio and vision`` one on these beside the mean over each modality's frames, if
    there are any. Both learn from what the trial does. What was computed once is kept on this machine; who asks at the
    same time computes it once.

    Args:
        language_model: With the layers that are in use.
        dataset: With labels in both splits.
        train: Its train split, for the tokens, and the share of it that is trained on.
        judged: The split that they are judged on.
    """
    # Without an identity two language models could not be told apart.
    if language_model.identity is None:
        return _computed(language_model, dataset, train, judged)
    digest = hashlib.sha256(f"{language_model.identity} {language_model.dtype} {language_model.num_layers}".encode())
    for row, tokens in [*((row, train.tokens[row]) for row in train.rows), *enumerate(judged.tokens)]:
        digest.update(np.array([row, len(tokens), *tokens], np.int32).tobytes())
    name = f"{name_of(dataset, judged.split)}-{digest.hexdigest()[:32]}"
    with _one_at_a_time(name):
        return kept(name, lambda: _computed(language_model, dataset, train, judged))


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """Hold what is kept under a name; the system frees it of a process that died."""
    with ExitStack() as held:
        with suppress(OSError):  # a home that cannot be written: each computes its own
            folder = home() / FOLDER
            folder.mkdir(parents=True, exist_ok=True)
            held.enter_context(locked(FileLock(folder / f"{name}.lock"), "the language model's baselines"))
        yield


def _computed(language_model: LanguageModel, dataset: Dataset, train: Loader, judged: Loader) -> Baselines:
    tokens = [train.tokens[row] for row in train.rows], judged.tokens
    states = [mean_states(language_model, of) for of in tokens]
    frames = [mean_frames(dataset.split(train.split))[train.rows], mean_frames(dataset.split(judged.split))]
    labels = train.labels[train.rows]
    inputs = {LM_STATES: states}
    if (frames[0].std(0) > 0).any():
        inputs[LM_STATES_AND_FEATURES] = [np.hstack(both) for both in zip(states, frames, strict=True)]
    said = {
        name: fitted(dataset.info.task, labels, *both, _STRENGTHS)
        for name, of in inputs.items()
        if (both := scaled(of[0], of[1])) is not None
    }
    return measured(dataset, judged.split, said)


@torch.no_grad()
def mean_states(language_model: LanguageModel, tokens: Sequence[np.ndarray]) -> np.ndarray:
    """The last layer's normed states of texts, each averaged over its tokens, [N, width] in float32.

    Args:
        language_model: The frozen decoder.
        tokens: Token ids [tokens] of each text, one at least.
    """
    lengths = np.array([len(ids) for ids in tokens])
    order = np.argsort(lengths, kind="stable")
    means = np.zeros((len(tokens), language_model.width), np.float32)
    for start in range(0, len(order), _TEXTS):
        rows = order[start : start + _TEXTS]
        counts, longest = torch.from_numpy(lengths[rows]), int(lengths[rows].max())
        packing = Packing(counts, longest, 0, language_model.device, fusion_start=longest)
        ids = torch.from_numpy(np.concatenate([tokens[row] for row in rows]).astype(np.int64))
        embedded = language_model.embed(ids.to(language_model.device))
        states = text_alone(language_model, embedded, packing).float().cpu().numpy()  # (tokens, d)
        ends = lengths[rows].cumsum()
        means[rows] = np.add.reduceat(states, ends - lengths[rows]) / lengths[rows, None]
    return means
