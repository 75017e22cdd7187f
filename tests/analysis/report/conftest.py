"""A prediction explained, for the tests of its page."""

from pathlib import Path

import pytest

from deepmlf.data.dataset import Dataset
from deepmlf.inference.explain import Explanation, explain
from deepmlf.inference.predictor import Predictor


@pytest.fixture(scope="session")
def explanation(small_export: Path, small_data: Path) -> Explanation:
    return explain(Predictor.open(small_export), Dataset.open(small_data), "test_3")
