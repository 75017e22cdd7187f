"""The table of real learning curves: what it is made from, and what is made of the search that trained them.

``data`` writes a seeded third of the train split of a pickle, and all else of it; the search that ran on it stands in
``README.md`` beside this file; ``table`` gathers its trials into one Parquet, a row per fusion epoch.

    python -m benchmarks.real_curves data ../shared/data/mosi_text_audio.pkl third.pkl
    python -m benchmarks.real_curves table runs/curves benchmarks/real_curves.parquet
"""

import argparse
import pickle
from pathlib import Path

import numpy as np

SEED, SHARE = 0, 1 / 3


def write_third(source: Path, target: Path) -> None:
    """Write a pickle with a third of the train split, in its order."""
    splits = pickle.loads(source.read_bytes())
    train = splits["train"]
    rows = len(train["id"])
    kept = np.sort(np.random.default_rng(SEED).choice(rows, round(rows * SHARE), replace=False))
    splits["train"] = {name: [values[row] for row in kept] for name, values in train.items() if len(values) == rows}
    splits["train"] = {
        name: np.stack(values) if isinstance(train[name], np.ndarray) else values
        for name, values in splits["train"].items()
    }
    target.write_bytes(pickle.dumps(splits))


def main() -> None:
    """Run the part that is named."""
    parser = argparse.ArgumentParser(description="The table of real learning curves.")
    parser.add_argument("part", choices=("data",))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    asked = parser.parse_args()
    write_third(asked.source, asked.target)


if __name__ == "__main__":
    main()
