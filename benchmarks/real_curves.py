"""A table of real learning curves: what they are trained on, and what is kept of the search that trained them.

``data`` writes a seeded third of the train split of a pickle, and all else of it; ``table`` gathers the trials of a
search on it into one Parquet, a row per fusion epoch, without what is the same in all of them.

    python -m benchmarks.real_curves data ../shared/data/mosi_text_audio.pkl third.pkl
    deepmlf data import third.pkl third
    deepmlf search third --space mosi --sampler random --scheduler none --trials 152 --epochs 6 --concurrent 2 \\
        --set model.lm_layers=4 --name curves
    python -m benchmarks.real_curves table runs/curves benchmarks/real_curves.parquet
"""

import argparse
import pickle
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from deepmlf.analysis.results import load_results

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


def write_table(source: Path, target: Path) -> None:
    """Write the results of an experiment's complete trials, without columns that have one value."""
    table = load_results(source)
    table = table.filter(pc.equal(table["state"], "COMPLETE"))
    varying = [name for name in table.column_names if len(table[name].unique()) > 1]
    pq.write_table(table.select(varying), target, compression="zstd")


def main() -> None:
    """Run the part that is named."""
    parser = argparse.ArgumentParser(description="The table of real learning curves.")
    parser.add_argument("part", choices=("data", "table"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    asked = parser.parse_args()
    {"data": write_third, "table": write_table}[asked.part](asked.source, asked.target)


if __name__ == "__main__":
    main()
