"""Which files are clips, and where their features go."""

import os
from pathlib import Path

import pytest

from deepmlf.data.extract.clips import Clip, find_clips
from deepmlf.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_clips_are_files_of_video_and_audio_in_any_folder(tmp_path: Path) -> None:
    touch(tmp_path, "b.MP4", "a.x.wav", "talk/7.mkv", ".hidden/c.mp4", "._a.mp4", "list.csv", "talk/notes.txt")
    told: list[str] = []
    found = find_clips(tmp_path, told.append)
    assert [(clip.name, clip.path) for clip in found] == [
        ("a.x", tmp_path / "a.x.wav"),
        ("b", tmp_path / "b.MP4"),
        ("talk/7", tmp_path / "talk" / "7.mkv"),
    ]
    assert told == ["2 files are no video or audio by their names and left out (the first is list.csv)"]
    assert [clip.target(Path("out"), "audio") for clip in found[::2]] == [
        Path("out/audio/a.x.npy"),
        Path("out/audio/talk/7.npy"),
    ]


def test_folders_that_are_links_are_told(tmp_path: Path) -> None:
    touch(tmp_path, "clips/a.mp4", "more/b.mp4")
    (tmp_path / "clips" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "clips" / "c.mp4").symlink_to(tmp_path / "more" / "b.mp4")
    told: list[str] = []
    assert [clip.name for clip in find_clips(tmp_path / "clips", told.append)] == ["a", "c"]
    assert told == ["1 folders are links and not looked into (the first is more)"]


def test_two_clips_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "talk/7.mp4", "talk/7.wav")
    with pytest.raises(DataError, match="the features of 7.mp4 and 7.wav would both be in talk/7.npy; rename one"):
        find_clips(tmp_path, print)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "list.csv")
    with pytest.raises(DataError, match=r"holds no video or audio file \(\.3gp, "):
        find_clips(tmp_path, print)
    with pytest.raises(DataError, match="list.csv: no such folder"):
        find_clips(tmp_path / "list.csv", print)


def test_a_clip_is_done_if_all_its_features_are_there_and_no_older(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "audio/a.npy")
    clip = Clip(tmp_path / "a.mp4", "a")
    os.utime(clip.path, (1000, 1000))
    assert clip.is_done(tmp_path, ("audio",))
    assert not clip.is_done(tmp_path, ("audio", "vision"))
    os.utime(tmp_path / "audio" / "a.npy", (999, 999))
    assert not clip.is_done(tmp_path, ("audio",))
