"""What is not a whole, loadable language model is refused, by name, before anything is trained on it."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file

from deepmlf.errors import LanguageModelError
from deepmlf.model import lm_store
from deepmlf.model.language_model import load_language_model, load_tokenizer
from deepmlf.model.lm import loading
from deepmlf.model.lm.check import Positions, positions_of
from tests.model.small_lm import make_folder

Tensors = dict[str, torch.Tensor]


pytestmark = pytest.mark.usefixtures("own_home")


def change(folder: Path, how: Callable[[Tensors], Tensors]) -> None:
    path = folder / "model.safetensors"
    save_file(how(load_file(path)), path, metadata={"format": "pt"})


def renamed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {f"{prefix}{name}": tensor for name, tensor in tensors.items()}


LAYER = "transformer.h.0"
KEYS: dict[str, tuple[Callable[[Tensors], Tensors], str]] = {
    "compiled": (
        renamed("_orig_mod."),
        rf"{LAYER}.attn.c_attn.bias is missing \(\d+ more\) \(the weights have _orig_mod.{LAYER}.attn.c_attn.weight\); "
        "save the language model alone",
    ),
    "peft": (renamed("base_model.model."), rf"is missing .*the weights have base_model.model.{LAYER}.attn"),
    "vision-language": (renamed("language_model."), rf"is missing .*the weights have language_model.{LAYER}.attn"),
    "a layer short": (
        lambda tensors: {name: t for name, t in tensors.items() if not name.startswith(LAYER)},
        rf"{LAYER}.attn.c_attn.bias is missing \(11 more\); save",
    ),
    "a weight short": (
        lambda tensors: {name: t for name, t in tensors.items() if name != "transformer.ln_f.bias"},
        "transformer.ln_f.bias is missing; save",
    ),
    "a layer too many": (
        lambda tensors: tensors | {"transformer.h.1.ln_1.weight": torch.ones(8)},
        "transformer.h.1.ln_1.weight has no place in the model that config.json describes; save",
    ),
    "an adapter inside": (
        lambda tensors: tensors | {f"{LAYER}.attn.c_attn.lora_A.weight": torch.ones(8, 2)},
        "lora_A.weight has no place in the model",
    ),
    "another width": (
        lambda tensors: tensors | {"transformer.ln_f.bias": torch.ones(4)},
        r"transformer.ln_f.bias must have shape \[8\], but has \[4\]; config.json is of another model",
    ),
}


@pytest.mark.parametrize("fault", KEYS)
def test_keys_that_do_not_match_are_refused_at_get_and_at_load(tmp_path: Path, fault: str) -> None:
    how, message = KEYS[fault]
    folder = make_folder(tmp_path / "lm")
    change(folder, how)
    for load in (lm_store.get, load_language_model):
        with pytest.raises(LanguageModelError, match=message) as caught:
            load(str(folder))
        assert str(folder) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_constants_and_heads_of_other_tasks_are_no_fault(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "lm")
    strays = {f"{LAYER}.attn.masked_bias": torch.ones(1), f"{LAYER}.attn.bias": torch.ones(1, 1, 32, 32).byte()}
    change(folder, lambda tensors: tensors | strays | {"score.weight": torch.ones(2, 8)})
    assert lm_store.get(str(folder)) == folder


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "lm")
    path = folder / "tokenizer.json"
    tree = json.loads(path.read_text())
    tree["model"]["vocab"]["superb"] = 3
    path.write_text(json.dumps(tree))
    with pytest.raises(LanguageModelError, match="its tokenizer has ids up to 3, but there are 3 embeddings; save"):
        lm_store.get(str(folder))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b""), "model.safetensors: torn or not safetensors; fetch"),
        (lambda f: (f / "model.safetensors").write_bytes(b"\x00" * 99), "model.safetensors: torn or not safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"<html>" * 9), "model.safetensors: torn or not safetensors"),
        (lambda f: (f / "model.safetensors").rename(f / "other.safetensors"), "have other names; save the model with"),
        (lambda f: (f / "config.json").write_text("version https://git-lfs"), "config.json: is a Git LFS pointer"),
        (lambda f: (f / "tokenizer.json").write_text("version https://git-lfs"), "json: is a Git LFS pointer"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "no usable tokenizer"),
        (lambda f: change(f, lambda t: t | {f"{LAYER}.ln_1.bias": torch.ones(8, dtype=torch.int8)}), "type I8"),
    ],
)  # fmt: skip
def test_damaged_files_are_named(tmp_path: Path, spoil: Callable[[Path], object], message: str) -> None:
    folder = make_folder(tmp_path / "lm")
    spoil(folder)
    with pytest.raises(LanguageModelError, match=message) as caught:
        lm_store.get(str(folder))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq", "awq", "fp8"])
def test_a_quantised_model_is_refused(tmp_path: Path, method: str) -> None:
    folder = make_folder(tmp_path / "lm")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": method}}))
    for check in (lm_store.get, lm_store.facts):
        with pytest.raises(LanguageModelError, match=rf"is quantised \({method}\); get the language model unquantised"):
            check(str(folder))


def test_a_folder_is_loaded_for_the_check_once_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deepmlf.model.lm.identity._SETTLED", 0.0)
    folder, asked = make_folder(tmp_path / "lm"), []
    whole = loading.check_loads
    monkeypatch.setattr(loading, "check_loads", lambda path: asked.append(path) or whole(path))
    lm_store.get(str(folder))
    lm_store.get(str(folder))
    assert len(asked) == 1
    change(folder, KEYS["a layer short"][0])
    with pytest.raises(LanguageModelError, match="is missing"):
        lm_store.get(str(folder))
    assert len(asked) == 2


CASES = {
    "lfs_pointer": "model.safetensors: is a Git LFS pointer, not the file itself; run `git lfs pull` there",
    "cut_short": r"model.safetensors: is cut short, \d+ of \d+ bytes; fetch the language model again",
    "missing_shard": r"model-0000\d-of-0000\d.safetensors: is missing; fetch the language model again",
    "bin_only": "no .safetensors weights .*; save the model with save_pretrained first",
    "no_tokenizer": "no tokenizer .*; save it beside the weights",
    "dangling_link": "model.safetensors: is a link to /nowhere/model.safetensors, which is not there; fetch",
    "gemma": r"model.layers.0.post_feedforward_layernorm.weight is missing \(15 more\); save the language model alone",
}


@pytest.fixture(scope="module")
def folders(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the reference material's script makes: faulty folders, and a hub's cache."""
    root = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        script = shared / "cases" / "h01_hf_cache_offline.py"
        patch.setattr(sys, "argv", [str(script), str(root)])
        runpy.run_path(str(script))
    return root


@pytest.mark.parametrize("case", CASES)
def test_faulty_folders_are_refused_by_get_and_by_a_search(folders: Path, case: str) -> None:
    # What only the model that config.json describes can tell, a search asks `get` for, as it does for any new model.
    for check in (lm_store.get,) if case == "gemma" else (lm_store.get, lm_store.facts):
        with pytest.raises(LanguageModelError, match=CASES[case]) as caught:
            check(str(folders / "plain" / case))
        assert "\n" not in str(caught.value)


def test_a_vocab_txt_is_a_tokenizer(folders: Path, tmp_path: Path) -> None:
    folder = folders / "plain" / "chinese_gpt2_vocab_txt"
    assert lm_store.get(str(folder)) == folder
    texts = ["我很高兴", "不"]
    assert load_tokenizer(str(folder)).encode_all(texts) == [[2, 5, 6, 7, 8, 3], [2, 9, 3]]
    assert load_tokenizer(str(folder), "none").encode_all(texts) == [[5, 6, 7, 8], [9]]
    bare = make_folder(tmp_path / "bare")  # a GPT-2 whose files do not say of what class it is
    for path in bare.glob("tokenizer*"):
        path.unlink()
    (bare / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]")
    with pytest.raises(LanguageModelError, match="no usable tokenizer|tokenizer has ids up to"):
        lm_store.get(str(bare))
    (bare / "vocab.txt").write_text("\n".join((folder / "vocab.txt").read_text().split()))
    assert load_tokenizer(str(bare)).encode_all(texts) == [[2, 5, 6, 7, 8, 3], [2, 9, 3]]


def test_the_hubs_cache_is_looked_into_without_a_network(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folders / "hub"))
    said: list[str] = []
    folder = lm_store.get("org/tiny", progress=said.append)
    assert len(said) == 1
    assert said[0].startswith("taking org/tiny from the hub's cache (")
    assert lm_store.resolve("org/tiny") == folder
    assert not any(path.is_symlink() for path in folder.iterdir())
    assert load_language_model("org/tiny").num_layers == 4
    with pytest.raises(LanguageModelError, match=r"org/other: HF_HUB_OFFLINE is set, .*, and its cache does not have"):
        lm_store.get("org/other")


def test_an_incomplete_cache_is_named_by_what_is_missing(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    shutil.copytree(folders / "hub", tmp_path / "hub", symlinks=True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for weights in (tmp_path / "hub").rglob("model.safetensors"):
        weights.unlink()
    with pytest.raises(LanguageModelError, match="no .safetensors weights|its cache does not have it"):
        lm_store.get("org/tiny")
    assert not lm_store._stored("org/tiny").exists()


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "gpt2", "n_positions": 1024}, Positions(1024, "")),
        ({"model_type": "llama", "max_position_embeddings": 8192, "sliding_window": 9}, Positions(8192, "")),
        ({"model_type": "llama"}, None),
        ({"model_type": "mistral", "max_position_embeddings": 64, "sliding_window": None}, Positions(64, "")),
        (
            {"model_type": "mistral", "max_position_embeddings": 64, "sliding_window": 16},
            Positions(64, ""),
        ),
        ({"model_type": "qwen2", "max_position_embeddings": 64, "sliding_window": 16}, Positions(64, "")),
        ({"model_type": "gemma3", "text_config": {"max_position_embeddings": 64}}, Positions(64, "")),
        ({"model_type": "mpt", "max_seq_len": 64}, Positions(64, "")),
        ({"model_type": "bloom"}, None),
        (
            {"model_type": "llama", "max_position_embeddings": 64, "original_max_position_embeddings": 32,
             "rope_scaling": {"type": "su"}},
            Positions(32, "before LongRoPE changes its frequencies"),
        ),
        (
            {"model_type": "llama", "max_position_embeddings": 64,
             "rope_parameters": {"rope_type": "llama3", "original_max_position_embeddings": 32}},
            Positions(64, ""),
        ),
    ],
)  # fmt: skip
def test_positions_are_read_from_a_config_of_any_age(config: dict[str, object], expected: Positions | None) -> None:
    assert positions_of(config) == expected
