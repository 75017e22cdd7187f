"""A planted set on which audio and vision have a sentiment of their own: at times the opposite of what words say."""

from pathlib import Path

import numpy as np

from deepmlf.data.dataset import SplitData, write_dataset

DISAGREE = 0.3
"""Share of utterances whose audio and vision say the opposite of the label."""
_WORDS = {-3: "awful", -2: "bad", -1: "poor", 1: "fair", 2: "good", 3: "great"}
_FRAMES, _DIM, _NOISE = 6, 4, 0.5


def make_planted(out: Path, seed: int, count: int = 200, *, is_glad: bool = False) -> np.ndarray:
    """Write the dataset and return what audio and vision of each train utterance say, [count].

    Args:
        out: Its folder.
        seed: Of everything.
        count: Train utterances.
        is_glad: Whether all labels are positive.
    """
    generator = np.random.default_rng(seed)
    splits, planted = {}, {}
    for name, size in (("train", count), ("valid", 24), ("test", 4)):
        labels = generator.choice([label for label in _WORDS if label > 0 or not is_glad], size)
        planted[name] = np.where(generator.random(size) < DISAGREE, -labels, labels)
        frames = generator.normal(0, _NOISE, (2, size, _FRAMES, _DIM)).astype(np.float32)
        frames[..., 0] += planted[name][:, None]
        splits[name] = SplitData(
            ids=[f"{name}_{row}" for row in range(size)],
            texts=[f"it was {_WORDS[label]}" for label in labels.tolist()],
            labels=labels.astype(np.float32),
            audio=list(frames[0]),
            vision=list(frames[1]),
        )
    write_dataset(out, "mosi", splits, (_DIM, _DIM), lowercase=False)
    return planted["train"]
