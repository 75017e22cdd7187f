"""Folders that cannot be written: found out by trying, and nothing stays of the try."""

from pathlib import Path

import pytest

from deepmlf.files import why_unwritable
from tests.read_only import folder_for_all, read_only


def test_a_folder_that_can_be_written_has_no_fault_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    assert why_unwritable(tmp_path) is None
    assert why_unwritable(tmp_path / "new" / "deep") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("/proc/x/deep", "No such file or directory"),
        ("file", "Not a directory"),
        ("file/below", "Not a directory"),
        ("n" * 300, "File name too long"),
        ("dangling", "No such file or directory"),
    ],
)
def test_what_cannot_be_a_folder_has_the_systems_reason(tmp_path: Path, name: str, reason: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert why_unwritable(tmp_path / name) == reason


def test_a_read_only_folder_has_the_systems_reason() -> None:
    with folder_for_all() as folder, read_only(folder):
        assert why_unwritable(folder) == "Permission denied"
        assert why_unwritable(folder / "new") == "Permission denied"
