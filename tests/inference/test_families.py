"""Each family of decoders from its folder to predictions: admitted, trained, exported, asked."""

from pathlib import Path

import pytest

from benchmarks.language_models import check
from tests.model.families import BY_THEIR_OWN_CODE, PACKED, builder

SHORT = ("gemma3", "opt", "phi3", "bloom", "qwen3_5")
"""One of each form: another norm, an FFN that lies bare in its layer, one matrix for two, residuals, states."""


@pytest.mark.parametrize(
    "name",
    [
        name if name in SHORT else pytest.param(name, marks=pytest.mark.long)
        for name in (*PACKED, *BY_THEIR_OWN_CODE, "llama-dynamic", "llama-longrope")
    ],
)
def test_a_family_is_admitted_trained_exported_and_asked(
    shared: Path, own_home: Path, small_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    builder(shared, tmp_path, monkeypatch).build(name)
    checked = check(tmp_path / name, small_data, tmp_path / "out")
    assert checked.comparison.difference <= 1e-5
    assert checked.moved <= 1e-6
