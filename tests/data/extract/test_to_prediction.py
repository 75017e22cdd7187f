"""The whole way of people's own data: clips, features, dataset, search, export, predictions."""

import csv
import os
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from deepmlf.data.dataset import Dataset
from tests.command import deepmlf
from tests.data.extract.clips import face_picture, write_clip

SPLITS = {"train": 36, "valid": 12, "test": 12}
WORDS = {-2: "awful", -1: "boring", 0: "okay", 1: "enjoyable", 2: "wonderful"}
TINY = ["model.max_text_len=8", "model.av_frames=6"]


def speak(text: str, pitch: int, path: Path) -> tuple[np.ndarray, int]:
    """A sentence as eSpeak NG says it, [samples] float32, and its sampling rate."""
    subprocess.run(["espeak-ng", "-v", "en", "-s", "220", "-p", str(pitch), "-w", path, text], check=True)
    with av.open(str(path)) as container:
        pieces = [frame.to_ndarray()[0] for frame in container.decode(audio=0)]
        return np.concatenate(pieces).astype(np.float32) / 2**15, container.streams.audio[0].rate


def film(label: int, seconds: float) -> list[Image.Image]:
    """A head that is held the more to one side the better it likes what it speaks of, ten pictures per second."""
    return [face_picture(angle=6 * label, x=32 + number % 3) for number in range(round(10 * seconds))]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty clips in folders, and beside them a table; who likes something speaks higher."""
    if shutil.which("espeak-ng") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("espeak-ng is not installed; .ci/run does")
        pytest.skip("espeak-ng is not installed")
    folder = tmp_path_factory.mktemp("own")
    rows = []
    for number, split in enumerate(name for name, count in SPLITS.items() for _ in range(count)):
        label = number % 5 - 2
        row = {"id": f"talk{number // 20}$_${number}", "split": split, "text": f"it was {WORDS[label]}", "label": label}
        sound, rate = speak(row["text"], 50 + 20 * label, folder / "spoken.wav")
        path = folder / "clips" / f"talk{number // 20}" / f"{number}.mp4"
        write_clip(path, film(label, len(sound) / rate), sound, rate=rate)
        rows.append(row)
    with (folder / "utterances.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder


def ran(*words: str | Path) -> str:
    result = deepmlf(*words)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.ray
@pytest.mark.slow
def test_from_clips_to_predictions(
    ray_cluster: None, clips: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clips)
    ran("data", "extract", "clips", "features", "--fps", "5", "--workers", "2")
    folders = ("--audio", "features/audio", "--vision", "features/vision")
    ran("data", "import", "utterances.csv", "runs/own", *folders, "--dataset", "own", "--label-range", "-2", "2")
    dataset = Dataset.open("runs/own")
    assert dataset.info.splits == SPLITS
    assert dataset.info.missing == []
    train = dataset.split("train")
    # Pitch in semitones of frames with a voice, and how the head is held.
    pitch = [np.median(frames[frames[:, 10] > 0, 10]) for frames in map(train.audio, range(36))]
    roll = [frames[:, 2].mean() for frames in map(train.vision, range(36))]
    assert np.corrcoef(pitch, train.labels)[0, 1] > 0.9
    assert np.corrcoef(roll, train.labels)[0, 1] < -0.95

    sets = [word for setting in TINY for word in ("--set", setting)]
    ran("search", "runs/own", "--lm", "tiny-random", "--space", "demo", "--trials", "3", "--epochs", "2",
        "--storage", "runs", "--name", "first", *sets)  # fmt: skip
    trials = sorted(Path("runs/first/trials").glob("*_first"))
    assert len(trials) == 3
    best = next(trial for trial in trials if (trial / "best").is_dir())
    ran("export", best, "runs/model")
    ran("predict", "runs/model", "runs/own", "--split", "test", "--out", "predicted.parquet")
    predicted = pq.read_table("predicted.parquet").to_pydict()
    assert predicted["id"] == dataset.split("test").ids
    assert np.isfinite(predicted["sentiment"]).all()
