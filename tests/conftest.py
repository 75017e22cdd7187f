"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# On tensors as small as these a second thread only waits for the first: on a busy machine that made tests 20 times
# slower. Read when torch is imported, hence here.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material: ../shared beside the project, or DEEPMLF_SHARED."""
    folder = Path(os.environ.get("DEEPMLF_SHARED", ROOT.parent / "shared"))
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"reference material not found at {folder}; set DEEPMLF_SHARED")
        pytest.skip(f"reference material not found at {folder}; set DEEPMLF_SHARED")
    return folder
