"""Clips as what is in them: sound at one rate, pictures at regular times; and files that are not whole."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from deepmlf.data.extract.decoding import SAMPLING_RATE, decode
from deepmlf.errors import DataError
from tests.data.extract.clips import face_picture, tone, write_clip


def decoded(path: Path, fps: float = 10) -> tuple[np.ndarray, list[Image.Image]]:
    """The sound [samples] and the pictures of a file."""
    sound: list[np.ndarray] = []
    pictures: list[Image.Image] = []
    decode(path, sound.append, pictures.append, fps)
    return np.concatenate([*sound, np.zeros(0, np.float32)]), pictures


def pitch(sound: np.ndarray) -> float:
    """The frequency of the largest part of a sound, in Hz."""
    return float(np.abs(np.fft.rfft(sound)).argmax() * SAMPLING_RATE / len(sound))


def shades(count: int, size: tuple[int, int] = (64, 48)) -> list[Image.Image]:
    """Grey pictures, each brighter than the one before."""
    return [Image.new("RGB", size, (20 + 5 * number,) * 3) for number in range(count)]


def shade_of(picture: Image.Image) -> int:
    return round((np.asarray(picture).mean() - 20) / 5)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "a.mov"])
def test_sound_and_pictures_come_whole(tmp_path: Path, name: str) -> None:
    path = write_clip(tmp_path / name, shades(20), tone(2.0))
    sound, pictures = decoded(path)
    assert abs(len(sound) - 2 * SAMPLING_RATE) < 0.05 * SAMPLING_RATE  # AAC works in frames of 1024 samples
    assert pitch(sound) == pytest.approx(150, abs=2)
    assert [shade_of(picture) for picture in pictures] == list(range(20))


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_sound_of_any_rate_and_all_channels_is_heard(tmp_path: Path, rate: int) -> None:
    both = np.stack([tone(1.0, 150, rate), tone(1.0, 400, rate) * 2], axis=1)
    sound, pictures = decoded(write_clip(tmp_path / "a.wav", (), both, rate=rate))
    assert (len(sound), pictures) == (SAMPLING_RATE, [])
    spectrum = np.abs(np.fft.rfft(sound))
    assert spectrum[[150, 400]].min() > 20 * np.median(spectrum)


@pytest.mark.parametrize(
    ("source", "asked", "expected"),
    [(10, 10, range(20)), (10, 25, range(20)), (20, 10, [0, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19]), (10, 0.5, [0, 10])],
)
def test_pictures_are_taken_at_regular_times(tmp_path: Path, source: int, asked: float, expected: list[int]) -> None:
    for name in ("a.mp4", "a.mkv", "a.avi"):  # Matroska's times are whole milliseconds
        _, pictures = decoded(write_clip(tmp_path / name, shades(20), fps=source), asked)
        assert [shade_of(picture) for picture in pictures] == list(expected)


@pytest.mark.parametrize("rotation", [90, -90, 180])
def test_a_film_that_a_player_turns_is_turned(tmp_path: Path, rotation: int) -> None:
    upright = face_picture()
    lying = upright.rotate(-rotation, expand=True)
    _, pictures = decoded(write_clip(tmp_path / "a.mp4", [lying] * 3, rotation=rotation))
    assert pictures[0].size == upright.size
    assert np.abs(np.asarray(pictures[0], float) - np.asarray(upright, float)).mean() < 5


def test_large_pictures_become_smaller(tmp_path: Path) -> None:
    _, pictures = decoded(write_clip(tmp_path / "a.mp4", shades(2, (1920, 1080))))
    assert pictures[0].size == (1280, 720)


def test_a_cover_is_no_film(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        sound, cover = container.add_stream("aac", rate=16_000, layout="mono"), container.add_stream("mjpeg")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.AudioFrame.from_ndarray(tone(1.0, rate=16_000)[None], format="fltp", layout="mono")
        frame.sample_rate = 16_000
        container.mux([*sound.encode(frame), *sound.encode(None)])
        container.mux([*cover.encode(av.VideoFrame.from_image(shades(1)[0])), *cover.encode(None)])
    sound, pictures = decoded(path)
    assert len(sound) >= SAMPLING_RATE
    assert pictures == []


def halved(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.mp4", halved, "cannot be decoded .Invalid data found.*; if a player plays it, .*`ffmpeg -i a.mp4 new.mp4`"),
        ("a.mkv", halved, r"is cut short: ends after 1\.\d s of 3\.0 s; fetch it again"),
        ("a.avi", halved, r"is cut short: \d+ bytes of \d+; fetch it again"),
        ("index_first.mp4", halved, r"is cut short: ends after 0\.\d s of 3\.0 s; fetch it again"),
        ("a.wav", halved, r"is cut short: \d+ bytes of \d+; fetch it again"),
        ("a.mp4", lambda path: path.write_bytes(b""), "cannot be decoded .Invalid data"),
        ("a.mp4", lambda path: path.write_text("<html>not found</html>"), "cannot be decoded .Invalid data"),
    ],
)
def test_what_is_not_whole_is_refused(tmp_path: Path, name: str, damage: Callable[[Path], None], message: str) -> None:
    pictures = [] if name == "a.wav" else shades(30)
    index_first = name.startswith("index_first")  # cut within a frame of sound, it could not be decoded either
    path = write_clip(tmp_path / name, pictures, None if index_first else tone(3.0), index_first=index_first)
    damage(path)
    with pytest.raises(DataError, match=message):
        decoded(path)
