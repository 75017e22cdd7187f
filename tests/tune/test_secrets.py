"""Credentials that a search is given end up in none of its files, nor in what it prints."""

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import pytest
from click.testing import CliRunner

from deepmlf.cli import cli
from tests.tune.postgres import SECRET

PLANTED = "pl4nt3d-in-the-environment"
SEARCH = [
    "--space", "demo", "--lm", "tiny-random", "--trials", "2", "--epochs", "1", "--name", "search",
    "--set", "model.max_text_len=8", "--set", "model.av_frames=6", "--set", "curriculum.av_epochs=1",
]  # fmt: skip


@pytest.fixture
def ray_files(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where Ray keeps logs and sockets, whose paths must be short."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder)


def holders(folder: Path, secret: str) -> list[str]:
    """The files below a folder that hold a secret."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    assert files
    return [str(path) for path in files if secret.encode() in path.read_bytes()]


@pytest.mark.ray
@pytest.mark.slow
def test_no_file_of_a_search_holds_a_credential(
    small_data: Path, postgres: str, ray_files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search's own files, its caches and Ray's logs; the study's password stands on the command line."""
    monkeypatch.setenv("DEEPMLF_HOME", str(tmp_path / "home"))
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN"):
        monkeypatch.setenv(name, PLANTED)
    command = [sys.executable, "-m", "deepmlf", "search", str(small_data), *SEARCH]
    where = ["--storage", str(tmp_path / "runs"), f"--study-storage={postgres}"]
    done = subprocess.run([*command, *where], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    monkeypatch.setenv("DEEPMLF_STUDY_STORAGE", postgres)
    summary = CliRunner().invoke(cli, ["analyze", str(tmp_path / "runs" / "search")])
    assert summary.exit_code == 0, summary.output
    assert len(list((tmp_path / "runs" / "search" / "trials").glob("*/events.out.tfevents.*"))) == 2
    (tmp_path / "printed").write_text(done.stdout + done.stderr + summary.output)
    for secret in (PLANTED, SECRET, unquote(SECRET)):
        assert not holders(tmp_path, secret)
        assert not holders(ray_files, secret)


@pytest.mark.parametrize("option", ["data", "--lm", "--storage"])
def test_a_uri_with_a_credential_is_refused_wherever_it_is_given(
    option: str, small_data: Path, own_home: Path, tmp_path: Path
) -> None:
    places = {"data": str(small_data), "--lm": "tiny-random", "--storage": str(tmp_path / "runs")}
    places[option] = f"s3://me:{SECRET}@bucket/place"
    data = places.pop("data")
    result = CliRunner().invoke(cli, ["search", data, *(word for pair in places.items() for word in pair)])
    assert result.exit_code != 0
    told = f"{result.output} {result.exception}"
    assert re.search(r"s3://bucket/place(/\S+)?: holds credentials; give them by the environment", told)
    assert SECRET not in told
    assert unquote(SECRET) not in told
    assert not (tmp_path / "runs").exists()
