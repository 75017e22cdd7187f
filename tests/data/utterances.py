"""Utterances in rows, and their features, as tables of every form hold them."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np

Row = dict[str, Any]
TEXTS = [
    "I, for one, liked it",
    'he said "well"',
    "two\nlines",
    "NA",
    "",
    "gut, wirklich gut",
    "null",
    "0012",
    "a\u2028b",
]
FOLDERS = ("audio", "vision")


def rows_of(folder: Path) -> list[Row]:
    """Nine utterances, three of each split, whose features are written into two folders."""
    generator, rows = np.random.default_rng(0), []
    for number, text in enumerate(TEXTS):
        split = ("train", "valid", "test")[number // 3]
        rows.append({"id": f"00{number}", "split": split, "text": text, "label": round(number / 4 - 1, 2)})
        for modality, dim in zip(FOLDERS, (3, 2), strict=True):
            path = folder / modality / f"00{number}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, generator.normal(size=(2 + number % 3, dim)).astype(np.float32))
    return rows


def write_csv(path: Path, rows: list[Row], delimiter: str = ",") -> None:
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)


def write_lines(path: Path, rows: list[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def arrays_of(folder: Path, rows: list[Row], modality: str) -> list[np.ndarray]:
    """The features that `rows_of` wrote, [frames, features] each."""
    return [np.load(folder / modality / f"{row['id']}.npy") for row in rows]
