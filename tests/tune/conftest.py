"""A search needs a dataset and, for most tests, a Ray cluster: both once per session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from deepmlf.data.synthetic import make_synthetic

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
# Workers and driver processes import the mock trainer by name.
os.environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{HERE}"


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(folder, seed=1, sizes=(32, 16, 16))
    return folder


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
