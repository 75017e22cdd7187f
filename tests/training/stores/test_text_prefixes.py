"""The frozen prefix on disk: the same numbers, made once, within its budget, and never a torn file."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file, save_file

from deepmlf.config.trial import TrialConfig
from deepmlf.data.dataset import Dataset
from deepmlf.data.loader import Loader
from deepmlf.data.synthetic import make_synthetic
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.training.forward import build_model
from deepmlf.training.stores import text_prefixes
from deepmlf.training.stores.text_prefixes import PrefixCache, open_prefix_cache
from tests.model.small_lm import make_folder

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def small_chunks_always_faster(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_prefixes, "_CHUNK", 4)  # several chunks of so few utterances
    monkeypatch.setattr(text_prefixes, "_measure", lambda *parts: {"read_seconds": 0.0, "compute_seconds": 1.0})


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(folder, seed=1, sizes=(21, 8, 8))
    return folder


def make(data: Path, layers: tuple[int, ...] = (1, 3), batch_size: int = 8) -> tuple[DeepMLF, Loader]:
    settings = {"model.language_model": "tiny-random", "model.fusion_layers": layers, "model.lora_rank": 4}
    config = TrialConfig.from_overrides(settings)
    dataset = Dataset.open(data)
    model, tokens_of, pad = build_model(config, dataset)
    return model, Loader(dataset, "train", tokens_of, pad, batch_size, standardize=True)


def opened(model: DeepMLF, loader: Loader, cache_gb: float = 1.0) -> PrefixCache:
    cache = open_prefix_cache(model, loader, cache_gb, CPU)
    assert cache is not None
    return cache


def test_reading_gives_what_computing_gives(data: Path) -> None:
    model, loader = make(data)
    cache = opened(model, loader)
    model.eval()
    for batch in loader.epoch((0, 0)):
        read, computed = cache.lookup(batch.index), model.text_prefix(batch.input_ids, batch.attention_mask)
        torch.testing.assert_close(read.states, computed.states, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(read.keys_and_values, computed.keys_and_values, atol=1e-5, rtol=1e-5)
        inputs = (batch.input_ids, batch.attention_mask, batch.audio, batch.vision)
        with torch.no_grad():
            torch.testing.assert_close(model(*inputs, prefix=read).task, model(*inputs).task, atol=1e-5, rtol=1e-5)


def test_trials_of_different_batch_sizes_share_it(data: Path) -> None:
    model, loader = make(data, batch_size=8)
    expected = opened(model, loader).lookup(torch.arange(21))
    other, small = make(data, batch_size=3)
    assert torch.equal(opened(other, small).lookup(torch.arange(21)).states, expected.states)
    batch = next(iter(small.chunks(21)))
    computed = model.eval().text_prefix(batch.input_ids, batch.attention_mask)
    torch.testing.assert_close(expected.states, computed.states, atol=1e-5, rtol=1e-5)


def test_depths_share_layers_and_a_second_trial_computes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened(*make(data, layers=(1,)))
    files = {path: path.stat().st_mtime_ns for path in text_prefixes.home().rglob("keys_values_*.arrow")}
    assert len(files) == 2
    opened(*make(data, layers=(3,)))
    assert all(path.stat().st_mtime_ns == before for path, before in files.items())
    assert len(list(text_prefixes.home().rglob("keys_values_*.arrow"))) == 4

    def never(*parts: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(DeepMLF, "text_prefix", never)
    opened(*make(data, layers=(1, 3)))


def test_it_is_used_only_where_reading_was_measured_to_be_faster(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_prefixes, "_CHUNK", 4)  # several chunks of so few utterances
    monkeypatch.setattr(text_prefixes, "_measure", lambda *parts: {"read_seconds": 1.0, "compute_seconds": 0.5})
    assert open_prefix_cache(*make(data), 1.0, CPU) is None


def test_the_budget_holds_and_the_least_recently_used_gives_way(data: Path) -> None:
    model, loader = make(data)
    assert open_prefix_cache(model, loader, 0.0, CPU) is None
    assert open_prefix_cache(model, loader, 1e-6, CPU) is None
    opened(model, loader)
    root = text_prefixes.home() / "prefixes"
    size = sum(path.stat().st_size for path in root.rglob("*.arrow"))
    other_model, other_loader = make(data)
    other_loader.tokens = [tokens[:-1] for tokens in other_loader.tokens]
    opened(other_model, other_loader, cache_gb=1.5 * size / 1e9)
    assert len(list(root.rglob("states_*.arrow"))) == 1
    assert sum(path.stat().st_size for path in root.rglob("*.arrow")) <= 1.5 * size


def test_what_another_trial_is_opening_is_not_deleted(data: Path) -> None:
    model, loader = make(data)
    opened(model, loader)
    root = text_prefixes.home() / "prefixes"
    size = sum(path.stat().st_size for path in root.rglob("*.arrow"))
    (folder,) = (path for path in root.iterdir() if path.is_dir())
    files = sorted(folder.iterdir())
    other_model, other_loader = make(data)
    other_loader.tokens = [tokens[:-1] for tokens in other_loader.tokens]
    with FileLock(root / f"{folder.name}.lock"):
        assert open_prefix_cache(other_model, other_loader, 1.5 * size / 1e9, CPU) is None
    assert sorted(folder.iterdir()) == files
    opened(other_model, other_loader, cache_gb=1.5 * size / 1e9)
    assert not list(folder.iterdir())


def test_a_build_that_dies_leaves_nothing_that_counts(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, loader = make(data)
    whole = DeepMLF.text_prefix
    calls = []

    def dies(self: DeepMLF, *parts: torch.Tensor) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, *parts)

    monkeypatch.setattr(DeepMLF, "text_prefix", dies)
    with pytest.raises(KeyboardInterrupt):
        opened(model, loader)
    assert not [path for path in (text_prefixes.home() / "prefixes").rglob("*.arrow") if path.name[0] != "."]
    batch = next(iter(loader.chunks(8)))
    assert opened(model, loader).lookup(batch.index).states.shape[0] == int(batch.attention_mask.sum())


@pytest.mark.parametrize("damage", ["empty verdict", "empty layer", "half a layer", "no layer", "foreign states"])
def test_damaged_files_are_made_anew(data: Path, damage: str) -> None:
    model, loader = make(data)
    batch = next(iter(loader.chunks(8)))
    states = opened(model, loader).lookup(batch.index).states
    [folder] = (path for path in (text_prefixes.home() / "prefixes").iterdir() if path.is_dir())
    layer, verdict = folder / "keys_values_001.arrow", folder / "measured_001.json"
    if damage == "empty verdict":
        verdict.write_text("")
    elif damage == "no layer":
        layer.unlink()
    else:
        half = layer.read_bytes()[: layer.stat().st_size // 2]
        target = folder / "states_001.arrow" if damage == "foreign states" else layer
        target.write_bytes(b"" if damage == "empty layer" else half)
    assert torch.equal(opened(model, loader).lookup(batch.index).states, states)


def test_a_trial_does_without_where_nothing_can_be_written(data: Path, tmp_path: Path) -> None:
    model, loader = make(data)
    (tmp_path / "home").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="texts are not kept .*Not a directory"):
        assert open_prefix_cache(model, loader, 1.0, CPU) is None


def test_a_trial_does_without_on_a_full_disk(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the full disk."""
    model, loader = make(data)

    def full(self: object, rows: torch.Tensor) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(text_prefixes._Writer, "write", full)
    with pytest.warns(UserWarning, match="texts are not kept .*No space left"):
        assert open_prefix_cache(model, loader, 1.0, CPU) is None
    [folder] = (path for path in (text_prefixes.home() / "prefixes").iterdir() if path.is_dir())
    assert not list(folder.iterdir())


def test_language_models_of_equal_sizes_and_times_share_nothing(data: Path, tmp_path: Path) -> None:
    first, second = make_folder(tmp_path / "first"), tmp_path / "second"
    shutil.copytree(first, second)
    weights = load_file(second / "model.safetensors")
    weights["transformer.wte.weight"].add_(1.0)
    save_file(weights, second / "model.safetensors", metadata={"format": "pt"})
    for folder in (first, second):
        os.utime(folder / "model.safetensors", (1e9, 1e9))
    assert len({(folder / "model.safetensors").stat().st_size for folder in (first, second)}) == 1
    states = []
    for folder in (first, second):
        settings = {
            "model.language_model": str(folder), "model.fusion_layers": (0,), "model.cross_attention_heads": 2,
            "model.max_text_len": 16,
        }  # fmt: skip
        dataset = Dataset.open(data)
        model, tokens_of, pad = build_model(TrialConfig.from_overrides(settings), dataset)
        loader = Loader(dataset, "train", tokens_of, pad, 8, standardize=True)
        states.append(opened(model, loader).lookup(torch.arange(4)).states)
    assert not torch.equal(*states)
