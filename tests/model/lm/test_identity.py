"""A language model's fingerprint is that of its contents, whatever its files are called, sized or dated."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from deepmlf.model import lm_store
from deepmlf.model.language_model import load_language_model
from deepmlf.model.lm import identity
from deepmlf.model.lm.identity import fingerprint_of
from tests.model.small_lm import make_folder

pytestmark = pytest.mark.usefixtures("own_home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "lm")


def change_one_weight(folder: Path, *, keep_times: bool = True) -> None:
    """In place: the same file, size and time of change."""
    path = folder / "model.safetensors"
    before = path.stat()
    with path.open("r+b") as file:
        file.seek(-2, os.SEEK_END)
        file.write(b"\x01\x3f")
    if keep_times:
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_copies_are_the_same_whatever_their_files(folder: Path, tmp_path: Path) -> None:
    expected = fingerprint_of(folder)
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprint_of(tmp_path / "copy") == expected == lm_store.fingerprint(str(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    shutil.copytree(folder, tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    model.save_pretrained(tmp_path / "sharded", max_shard_size="2KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 1
    shutil.copy(folder / "config.json", tmp_path / "sharded" / "config.json")
    assert fingerprint_of(tmp_path / "sharded") == expected
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"transformers_version": "9", "use_cache": False}))
    assert fingerprint_of(folder) == expected


@pytest.mark.parametrize("settled", [0.0, 2.0])
def test_one_weight_changed_in_place_is_another_model(
    folder: Path, monkeypatch: pytest.MonkeyPatch, settled: float
) -> None:
    monkeypatch.setattr(identity, "_SETTLED", settled)
    before = fingerprint_of(folder)
    change_one_weight(folder)
    assert fingerprint_of(folder) != before
    change_one_weight(folder, keep_times=False)
    assert load_language_model(str(folder)).identity == fingerprint_of(folder)


def test_another_configuration_is_another_model(folder: Path) -> None:
    before = fingerprint_of(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"layer_norm_epsilon": 1e-3}))
    assert fingerprint_of(folder) != before


def test_weights_are_read_once_while_they_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(identity, "_SETTLED", 0.0)
    expected, read = fingerprint_of(folder), []
    whole = identity._digest
    monkeypatch.setattr(identity, "_digest", lambda path: read.append(path) or whole(path))
    assert fingerprint_of(folder) == expected
    assert read == []
    for record in (identity.home() / "lm_records").iterdir():
        record.write_text("torn {")
    assert fingerprint_of(folder) == expected
    assert read == [folder]


def test_a_fingerprint_of_weights_in_memory_covers_every_one(folder: Path) -> None:
    """That of exports; those of earlier releases looked at a sample, and are still understood."""
    model = load_language_model(str(folder))
    whole, sampled = model.fingerprint(), model.fingerprint(like="0" * 64)
    assert whole.startswith("all:")
    assert len(sampled) == 64
    weights = model.layers[0].mlp.c_fc.weight
    with torch.no_grad():
        weights[0, 1] += 1.0
    assert model.fingerprint() != whole
    with torch.no_grad():
        weights[0, 1] -= 1.0
    load_language_model.cache_clear()


def test_the_file_and_what_was_loaded_agree(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    tensors = load_file(other / "model.safetensors")
    tensors["transformer.h.0.mlp.c_fc.weight"].mul_(2)
    save_file(tensors, other / "model.safetensors", metadata={"format": "pt"})
    first, second = (load_language_model(str(path)) for path in (folder, other))
    assert first.identity == fingerprint_of(folder) != second.identity == fingerprint_of(other)
