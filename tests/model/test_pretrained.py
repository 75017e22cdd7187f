"""Exported models: what is written is read back, and a folder that is not right is refused with a reason."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from deepmlf.config.model import ModelConfig
from deepmlf.data.dataset import Dataset
from deepmlf.errors import CheckpointError, LanguageModelError
from deepmlf.model import pretrained
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import load_language_model, tiny_random
from deepmlf.model.pretrained import TrainedOn
from deepmlf.seal import file_sum
from tests.model.small_lm import make_folder
from tests.sealed import content_of, edit

CONFIG = ModelConfig(
    language_model="tiny-random", max_text_len=8, num_fusion_tokens=2, fusion_layers=(1, 3), lora_rank=2, av_frames=4,
    av_layers=1,
)  # fmt: skip


def make_model(**changes: Any) -> DeepMLF:
    config = CONFIG.model_copy(update=changes)
    frozen = load_language_model(config.language_model)
    torch.manual_seed(0)
    return DeepMLF(frozen, 5, 7, config).eval()


def outputs(model: DeepMLF) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, (3, 6), generator=generator)
    frames = torch.randn(3, 9, 12, generator=generator)
    with torch.no_grad():
        output = model(ids, torch.ones_like(ids), frames[..., :5], frames[..., 5:])
    return torch.cat([output.task, output.text, output.av, output.fusion.mean(1)])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_model().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize("active", [(1, 3), (3,)])
def test_what_is_written_is_read_back(tmp_path: Path, active: tuple[int, ...]) -> None:
    model = make_model()
    model.active_layers = active
    model.save_pretrained(tmp_path / "model")
    state = torch.get_rng_state()
    again = DeepMLF.from_pretrained(str(tmp_path / "model"))
    assert torch.equal(torch.get_rng_state(), state)
    assert not again.training
    assert torch.equal(outputs(again), outputs(model))
    again.save_pretrained(tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "model" / name).read_bytes()


def test_what_was_trained_in_bfloat16_can_be_called_as_it_is(tmp_path: Path, small_data: Path) -> None:
    model = make_model(language_model=str(make_folder(tmp_path / "lm")), fusion_layers=(0,), cross_attention_heads=2)
    info = Dataset.open(small_data).info
    trained_on = TrainedOn.of(info, standardize=True, precision="bfloat16", batch_size=4)
    model.save_pretrained(tmp_path / "model", trained_on=trained_on)
    again = DeepMLF.from_pretrained(tmp_path / "model")
    assert again.language_model.dtype == torch.float32
    assert torch.equal(outputs(again), outputs(model))
    assert DeepMLF.from_pretrained(tmp_path / "model", dtype=torch.bfloat16).language_model.dtype == torch.bfloat16


def test_the_language_model_stays_out(folder: Path) -> None:
    names = set(load_file(folder / "model.safetensors"))
    assert "mm_blocks.1.ffn.lora.up.a" in names
    assert names < set(make_model().state_dict())
    assert not any(name.endswith(("ffn.up", "ffn.gate", "ffn.down")) for name in names)


def test_nothing_is_overwritten_or_left_half_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"model: exists and is not empty; choose another folder"):
        make_model().save_pretrained(folder)

    def full_disk(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(pretrained, "save_file", full_disk)
    with pytest.raises(CheckpointError, match=r"new: cannot be written \(No space left on device\)"):
        make_model().save_pretrained(tmp_path / "new")
    assert list(tmp_path.iterdir()) == [folder]


def change_config(folder: Path, **changes: Any) -> None:
    edit(folder / "config.json", **changes)


def change_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    if "weights_sum" in content_of(folder / "config.json"):
        change_config(folder, weights_sum=file_sum(folder / "model.safetensors"))


def truncate(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-100])


FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"model.safetensors: missing; export the model again"),
    "torn weights": (lambda f: truncate(f, "model.safetensors"), r"model.safetensors: damaged \(its checksum"),
    "a tensor short": (
        lambda f: change_tensors(f, lambda t: t.pop("fusion_tokens")),
        r"model.safetensors: fusion_tokens is missing; export the model again",
    ),
    "a tensor too many": (
        lambda f: change_tensors(f, lambda t: t.update(stray=torch.ones(1), stray2=torch.ones(1))),
        r"stray has no place in the model that config.json describes \(1 more\)",
    ),
    "another shape": (
        lambda f: change_tensors(f, lambda t: t.update(fusion_tokens=torch.ones(3, 64))),
        r"fusion_tokens must have shape \[2, 64\], but got \[3, 64\]",
    ),
    "no config": (lambda f: (f / "config.json").unlink(), r"no exported DeepMLF \(config.json is missing\); make one"),
    "torn config": (lambda f: truncate(f, "config.json"), r"config.json: damaged \(.*\); export the model again"),
    "a setting missing": (
        lambda f: change_config(f, language_model={}),
        r"config.json: damaged \(language_model.num_layers: is missing\)",
    ),
    "foreign": (
        lambda f: (f / "config.json").write_text('{"model_type": "llama"}'),
        r"no exported DeepMLF \(config.json has model_type 'llama'\); make one with `deepmlf export TRIAL OUT`",
    ),
    "newer": (
        lambda f: change_config(f, format_version=3, something_new=1),
        r"written in format 3, but this deepmlf reads formats up to 2; upgrade it",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_folder_that_is_not_right_is_refused(folder: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(folder)
    with pytest.raises(CheckpointError, match=message) as error:
        DeepMLF.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_another_copy_of_the_language_model_must_be_the_same(tmp_path: Path) -> None:
    name = str(make_folder(tmp_path / "lm"))
    model = make_model(language_model=name, fusion_layers=(0,), cross_attention_heads=2)
    model.save_pretrained(tmp_path / "model")
    assert (tmp_path / "model" / "tokenizer.json").is_file()
    (tmp_path / "lm").rename(tmp_path / "moved")
    load_language_model.cache_clear()
    with pytest.raises(LanguageModelError, match=r"language model '.*lm' is not on this machine"):
        DeepMLF.from_pretrained(tmp_path / "model")
    again = DeepMLF.from_pretrained(tmp_path / "model", language_model=str(tmp_path / "moved"))
    assert torch.equal(outputs(again), outputs(model))

    shutil.copytree(tmp_path / "moved", tmp_path / "other")
    change_tensors(tmp_path / "other", lambda tensors: tensors["transformer.h.0.mlp.c_fc.weight"].mul_(2))
    with pytest.raises(LanguageModelError, match=r"language model '.*other': has other weights than the one"):
        DeepMLF.from_pretrained(tmp_path / "model", language_model=str(tmp_path / "other"))
    with pytest.raises(LanguageModelError, match=r"'tiny-random': has hidden size 64, but the exported model needs 8"):
        DeepMLF.from_pretrained(tmp_path / "model", language_model="tiny-random")


@pytest.mark.parametrize(("found", "message"), [(2, "has 2 layers, but the exported model needs 4"), (6, None)])
def test_a_longer_copy_will_do_and_a_shorter_one_not(
    folder: Path, monkeypatch: pytest.MonkeyPatch, found: int, message: str | None
) -> None:
    language_model = tiny_random(num_layers=found)
    if message is None:  # the same first layers, and two more
        language_model.layers[:4] = language_model.decoder.layers[:4] = load_language_model("tiny-random").layers
        language_model.embedding = load_language_model("tiny-random").embedding
    monkeypatch.setattr(pretrained, "load_language_model", lambda *arguments: language_model)
    if message is None:
        assert torch.equal(outputs(DeepMLF.from_pretrained(folder)), outputs(make_model()))
    else:
        with pytest.raises(LanguageModelError, match=message):
            DeepMLF.from_pretrained(folder)


def test_a_fingerprint_does_not_depend_on_the_type() -> None:
    language_model = tiny_random(seed=3)
    before = language_model.fingerprint()
    language_model.decoder.module.bfloat16()
    assert language_model.fingerprint() == before != tiny_random(seed=4).fingerprint()


@pytest.mark.parametrize("changed", [False, True])
def test_an_export_of_an_earlier_release_knows_its_language_model_by_a_sample(folder: Path, changed: bool) -> None:
    sample = load_language_model("tiny-random").fingerprint(like="0" * 64)
    record = json.loads((folder / "config.json").read_text())["language_model"]
    assert record["fingerprint"].startswith("all:")
    change_config(folder, language_model=record | {"fingerprint": sample[::-1] if changed else sample})
    if changed:
        with pytest.raises(LanguageModelError, match="has other weights than the one that the exported model was"):
            DeepMLF.from_pretrained(folder)
    else:
        DeepMLF.from_pretrained(folder)
