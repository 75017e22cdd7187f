"""`deepmlf lm get`: what it says of a language model."""

import json
import os
from pathlib import Path

import pytest

from deepmlf.model.lm import identity
from tests.command import deepmlf
from tests.model.small_lm import make_folder

pytestmark = pytest.mark.usefixtures("own_home")


def test_it_says_how_a_model_runs_and_how_far_it_is_from_hugging_faces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(identity, "_SETTLED", 0.0)
    folder = make_folder(tmp_path / "lm")
    first = deepmlf("lm", "get", folder, "--json")
    assert first.returncode == 0, first.stderr
    said = json.loads(first.stdout.splitlines()[-1])
    assert said["read_as"].startswith("packed rows; states within ")
    assert said["read_as"].endswith(" of Hugging Face's in float32")
    assert f"runs {said['read_as']}" in first.stderr
    assert "comparing it with Hugging Face's" in first.stderr
    again = deepmlf("lm", "get", folder, "--json")
    assert json.loads(again.stdout.splitlines()[-1]) == said
    assert "comparing" not in again.stderr
    os.utime(folder / "model.safetensors")
    assert "comparing" in deepmlf("lm", "get", folder).stderr
