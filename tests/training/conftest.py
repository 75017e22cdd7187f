"""One small synthetic dataset per session."""

from pathlib import Path

import pytest
import torch

from deepmlf.data.synthetic import make_synthetic

# On tensors this small a second thread only waits for the first: on a busy machine that made tests 20 times slower.
torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(folder, seed=1, sizes=(49, 24, 24))
    return folder
