"""A seeded synthetic dataset on which fusion must beat every single modality.

Words carry a sentiment of a sign and a strength; audio and vision carry a valence (a sign) and an arousal. When they
disagree the utterance is sarcastic: the words' sign flips. The label is valence × strength × arousal plus noise, so
words alone miss the sarcasm, and audio and vision alone miss the strength.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from deepmlf.data.dataset import SPLITS, DatasetInfo, SplitData, write_dataset

AUDIO_DIM, VISION_DIM = 5, 8
_WORDS = {
    -2.5: ("horrible", "dreadful", "awful", "disgusting", "terrible"),
    -1.5: ("bad", "boring", "disappointing", "annoying", "poor"),
    -0.5: ("mediocre", "bland", "slow", "forgettable", "dull"),
    0.5: ("fine", "decent", "okay", "passable", "watchable"),
    1.5: ("good", "enjoyable", "funny", "charming", "likeable"),
    2.5: ("fantastic", "brilliant", "wonderful", "amazing", "superb"),
}
_SUBJECTS = ("the movie", "the plot", "this film", "the acting", "the ending", "her performance", "the music")
_TEMPLATES = ("{} was {}", "i think {} was {}", "honestly {} is {}", "for me {} was just {}", "well {} felt {} to me")
_AROUSAL = (0.6, 1.2)
_SARCASM = 0.3  # probability that valence and words disagree
_LABEL_NOISE = 0.15
_FRAME_NOISE = 0.5


@dataclass(frozen=True)
class Latents:
    """What an utterance is made from; arrays [N]."""

    words: np.ndarray
    """Signed strength of the words."""
    valence: np.ndarray
    """Sign shown by audio and vision."""
    arousal: np.ndarray
    labels: np.ndarray


def draw_latents(generator: np.random.Generator, count: int) -> Latents:
    """Draw `count` utterances' latents and labels."""
    words = generator.choice(list(_WORDS), count)
    valence = np.sign(words) * np.where(generator.random(count) < _SARCASM, -1, 1)
    arousal = generator.choice(_AROUSAL, count)
    noise = generator.normal(0, _LABEL_NOISE, count)
    return Latents(words, valence, arousal, np.clip(valence * np.abs(words) * arousal + noise, -3, 3))


def make_synthetic(
    out: Path, *, seed: int = 0, sizes: tuple[int, int, int] = (512, 128, 128), force: bool = False
) -> DatasetInfo:
    """Write the dataset; the same seed and sizes give the same bytes.

    Args:
        out: Folder to write.
        seed: Seed of everything.
        sizes: Utterances in train, valid and test.
        force: Replace a dataset that is in `out`.

    Raises:
        DataError: If `out` holds something already.
    """
    generator = np.random.default_rng(seed)
    splits = {name: _draw_split(generator, name, size) for name, size in zip(SPLITS, sizes, strict=True)}
    return write_dataset(out, "mosi", splits, (AUDIO_DIM, VISION_DIM), lowercase=False, force=force)


def _draw_split(generator: np.random.Generator, name: str, count: int) -> SplitData:
    latents = draw_latents(generator, count)
    texts = [
        str(generator.choice(_TEMPLATES)).format(generator.choice(_SUBJECTS), generator.choice(_WORDS[strength]))
        for strength in latents.words
    ]
    return SplitData(
        ids=[f"{name}_{row}" for row in range(count)],
        texts=texts,
        labels=latents.labels.astype(np.float32),
        audio=_frames(generator, latents, AUDIO_DIM, (20, 61), valence_scale=1.0),
        vision=_frames(generator, latents, VISION_DIM, (15, 41), valence_scale=0.7),
    )


def _frames(
    generator: np.random.Generator, latents: Latents, dim: int, lengths: tuple[int, int], valence_scale: float
) -> list[np.ndarray]:
    """Noisy frames whose first feature is shifted by the valence and whose second by the arousal."""
    sequences = []
    for valence, arousal in zip(latents.valence, latents.arousal, strict=True):
        frames = generator.normal(0, _FRAME_NOISE, (int(generator.integers(*lengths)), dim))
        frames[:, 0] += valence_scale * valence
        frames[:, 1] += arousal
        sequences.append(frames.astype(np.float32))
    return sequences


def reachable_mae(seed: int = 0, count: int = 200_000) -> dict[str, float]:
    """Best reachable MAE by what a model reads perfectly: ``nothing``, ``text``, ``av`` or ``both``.

    Monte Carlo over the generator's own latents: within each group that looks the same, the median is the best guess.
    """
    latents = draw_latents(np.random.default_rng(seed), count)
    seen = {
        "nothing": (np.zeros(count),),
        "text": (latents.words,),
        "av": (latents.valence, latents.arousal),
        "both": (latents.words, latents.valence, latents.arousal),
    }
    best = {}
    for name, columns in seen.items():
        _, groups = np.unique(np.stack(columns, axis=1), axis=0, return_inverse=True)
        errors = np.zeros(count)
        for group in range(groups.max() + 1):
            members = groups.ravel() == group
            errors[members] = np.abs(latents.labels[members] - np.median(latents.labels[members]))
        best[name] = float(errors.mean())
    return best
