"""What a dataset is in every format."""

import pickle
from pathlib import Path

import pytest

from deepmlf.data.formats.importing import import_dataset
from tests.data.utterances import FOLDERS, arrays_of, rows_of


@pytest.fixture
def pickled(tmp_path: Path) -> str:
    """Fingerprint of the same data as a pickle in the layout of MMSA."""
    rows, content = rows_of(tmp_path), {}
    for split in ("train", "valid", "test"):
        own = [row for row in rows if row["split"] == split]
        frames = {of: arrays_of(tmp_path, own, of) for of in FOLDERS}
        content[split] = {
            "id": [row["id"] for row in own], "raw_text": [row["text"] for row in own],
            "regression_labels": [row["label"] for row in own], **frames,
        }  # fmt: skip
    (tmp_path / "data.pkl").write_bytes(pickle.dumps(content))
    return import_dataset(tmp_path / "data.pkl", tmp_path / "of_pickle").fingerprint
