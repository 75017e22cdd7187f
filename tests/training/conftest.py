"""One small synthetic dataset per session."""

from pathlib import Path

import pytest

from deepmlf.data.synthetic import make_synthetic


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(folder, seed=1, sizes=(49, 24, 24))
    return folder
