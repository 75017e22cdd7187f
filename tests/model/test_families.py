"""Each family of decoders: hidden states are Hugging Face's, plain and packed, or the model is refused by name."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from deepmlf.config.model import ModelConfig
from deepmlf.errors import ConfigError, LanguageModelError
from deepmlf.model import lm_store
from deepmlf.model.attention import Packing
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import LanguageModel, load_language_model
from deepmlf.model.lm.check import SUPPORTED
from tests.model.families import builder
from tests.model.tiny import close_gates

MAX_TEXT, TOKENS, LENGTHS = 40, 8, (3, 40, 17)
TAKEN = (
    "gpt2", "gpt2-scale-by-layer", "gpt2-noscale", "gpt2-relu", "llama", "llama-gelu", "llama-headdim32", "llama3-rope",
    "llama-linear-rope", "llama-yarn", "llama-dynamic512", "mistral", "mistral-window4096", "qwen2", "qwen3",
)  # fmt: skip
TOO_SHORT = {
    "llama-dynamic": "the language model has 32 positions",
    "llama-longrope": "the language model has 40 positions before LongRoPE changes its frequencies",
    "mistral-window8": "the language model has 8 positions within its sliding window",
    "qwen2-window8": "the language model has 8 positions within its sliding window",
}
REFUSED = (
    "gemma", "gemma3", "gemma4", "phi", "phi3", "opt", "gpt_neox", "gptj", "gpt_neo", "gpt_bigcode", "bloom", "falcon",
    "smollm3", "olmo", "olmo2", "granite", "stablelm", "cohere", "mpt", "qwen2_moe", "olmoe", "mixtral", "lfm2",
    "mamba", "xglm", "qwen3_5", "gpt_oss", "bart", "nanochat",
)  # fmt: skip


@pytest.fixture
def build(shared: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    module = builder(shared, tmp_path, monkeypatch)

    def make(name: str) -> Path:
        module.build(name)
        return tmp_path / name

    return make


def closed(folder: Path, **settings: object) -> DeepMLF:
    """A DeepMLF whose gates let nothing in: its states are the language model's."""
    fixed = {"max_text_len": MAX_TEXT, "num_fusion_tokens": TOKENS, "fusion_layers": (1, 3), "lora_rank": 2}
    config = ModelConfig.model_validate(fixed | settings)
    torch.manual_seed(0)
    model = DeepMLF(load_language_model(str(folder)), 5, 7, config).eval()
    close_gates(model)
    return model


def text() -> tuple[Tensor, Tensor]:
    mask = torch.arange(MAX_TEXT) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(3, 500, mask.shape, generator=torch.Generator().manual_seed(1))
    return ids * mask, mask


@torch.no_grad()
def theirs(folder: Path, model: DeepMLF, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Normed last states of the valid text tokens and of the fusion tokens, by Hugging Face's own forward pass."""
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    embedded = reference.get_input_embeddings()(ids)
    rows = torch.cat([embedded, model.fusion_tokens.expand(len(ids), -1, -1)], dim=1)
    seen = torch.cat([mask, torch.ones(len(ids), TOKENS, dtype=torch.bool)], dim=1)
    positions = torch.arange(MAX_TEXT + TOKENS)[None].expand(len(ids), -1)
    states = reference.base_model(
        inputs_embeds=rows, attention_mask=seen.long(), position_ids=positions, use_cache=False
    ).last_hidden_state
    return states[:, :MAX_TEXT][mask], states[:, MAX_TEXT:]


@torch.no_grad()
def ours(model: DeepMLF, ids: Tensor, mask: Tensor, *, packed: bool) -> tuple[Tensor, Tensor]:
    av = model.av_encoder(torch.zeros(len(ids), 2, 5), torch.zeros(len(ids), 2, 7), None, None)
    embedded = model.language_model.embed(ids)
    if packed:
        packing = Packing(mask.sum(1), mask.shape[1], TOKENS, ids.device)
        return model._decode_packed(model._prefix(embedded, packing), packing, av)
    states, fusion = model._decode_padded(embedded, mask, av)
    return states[mask], fusion


@pytest.mark.parametrize("name", TAKEN)
def test_states_are_those_of_hugging_face(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    assert lm_store.get(str(folder)) == folder
    model = closed(folder)
    ids, mask = text()
    expected = theirs(folder, model, ids, mask)
    for packed in (False, True):
        found = ours(model, ids, mask, packed=packed)
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TOO_SHORT)
def test_what_would_be_read_otherwise_is_refused_up_front(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    lm_store.get(str(folder))
    message = f"model.max_text_len=40 and model.num_fusion_tokens=8: {TOO_SHORT[name]}"
    with pytest.raises(ConfigError) as caught:
        closed(folder)
    assert str(caught.value) == message
    positions = lm_store.facts(str(folder)).positions
    assert positions is not None
    config = ModelConfig(max_text_len=MAX_TEXT, num_fusion_tokens=TOKENS)
    with pytest.raises(ConfigError) as caught:
        config.check_positions(positions.count, positions.within)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["llama-longrope", "mistral-window8", "qwen2-window8"])
def test_a_text_that_is_short_enough_is_read_as_hugging_face_does(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model = closed(folder, max_text_len=6, num_fusion_tokens=2)
    ids, mask = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 0, 0, 0]]), torch.ones(2, 6, dtype=torch.bool)
    with torch.no_grad():
        expected = reference.base_model(input_ids=ids, use_cache=False).last_hidden_state
        packing = Packing(mask.sum(1), 6, 2, ids.device)
        av = model.av_encoder(torch.zeros(2, 2, 5), torch.zeros(2, 2, 7), None, None)
        found, _ = model._decode_packed(model._prefix(model.language_model.embed(ids), packing), packing, av)
    torch.testing.assert_close(found, expected.flatten(0, 1), atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", REFUSED)
def test_another_family_is_refused_by_its_name(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    with pytest.raises(LanguageModelError, match=r"model_type='\w+' is not supported; supported are gpt2, llama") as e:
        lm_store.get(str(folder))
    assert "\n" not in str(e.value)
    with pytest.raises(LanguageModelError, match="is not supported; supported are"):
        LanguageModel(AutoModelForCausalLM.from_pretrained(folder))


def test_every_family_has_its_case(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = builder(shared, tmp_path, monkeypatch)
    assert set(module.FAM) == {*TAKEN, *TOO_SHORT, *REFUSED}
    assert {name for name in module.FAM if module.FAM[name][0] in SUPPORTED} == {*TAKEN, *TOO_SHORT}
