"""Each family of decoders: hidden states are Hugging Face's, plain and packed, or the model is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from deepmlf.config.model import ModelConfig
from deepmlf.errors import ConfigError, LanguageModelError
from deepmlf.model import lm_store
from deepmlf.model.admission import Comparison, compare
from deepmlf.model.deepmlf import DeepMLF, DeepMLFOutput
from deepmlf.model.language_model import load_language_model
from tests.model.families import BY_THEIR_OWN_CODE, PACKED, builder
from tests.model.tiny import close_gates

MAX_TEXT, TOKENS, LENGTHS = 40, 8, (3, 40, 17)
TOO_SHORT = {
    "llama-dynamic": "the language model has 32 positions",
    "llama-longrope": "the language model has 40 positions before LongRoPE changes its frequencies",
}
EXPERTS = "its FFN is a mixture of experts, of which an MM block's would be a copy"
REFUSED = {
    "gemma4": "its layers read token ids, which fusion tokens have not",
    "qwen2_moe": EXPERTS,
    "olmoe": EXPERTS,
    "mixtral": EXPERTS,
    "gpt_oss": EXPERTS,
    "bart": "it has an encoder; give a decoder alone",
    "mamba": "a MambaBlock has no FFN of its own, of which an MM block's is a copy",
}


@pytest.fixture
def build(shared: Path, own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # noqa: ANN201
    module = builder(shared, tmp_path, monkeypatch)

    def make(name: str) -> Path:
        module.build(name)
        return tmp_path / name

    return make


def model_of(folder: Path, **settings: object) -> DeepMLF:
    fixed = {"max_text_len": MAX_TEXT, "num_fusion_tokens": TOKENS, "fusion_layers": (1, 3), "lora_rank": 2}
    torch.manual_seed(0)
    return DeepMLF(load_language_model(str(folder)), 5, 7, ModelConfig.model_validate(fixed | settings)).eval()


def closed(folder: Path, **settings: object) -> DeepMLF:
    """A DeepMLF whose gates let nothing in: its states are the language model's."""
    model = model_of(folder, **settings)
    close_gates(model)
    return model


def text(lengths: tuple[int, ...] = LENGTHS) -> tuple[Tensor, Tensor]:
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    ids = torch.randint(3, 500, mask.shape, generator=torch.Generator().manual_seed(1))
    return ids * mask, mask


def run(model: DeepMLF, ids: Tensor, mask: Tensor, *, plain: bool = False) -> DeepMLFOutput:
    av = torch.linspace(-1, 1, 2 * 12).view(1, 2, 12).expand(len(ids), -1, -1)
    output: DeepMLFOutput = model(ids, mask, av[..., :5], av[..., 5:], plain=plain)
    return output


@torch.no_grad()
def theirs(folder: Path, model: DeepMLF, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Normed last states of the valid text tokens, and the fusion tokens' mean one, by Hugging Face's own pass."""
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    embedded = reference.get_input_embeddings()(ids)
    tokens, start = model.fusion_tokens, model.config.max_text_len
    rows = torch.cat([embedded, tokens.expand(len(ids), -1, -1)], dim=1)
    seen = torch.cat([mask, torch.ones(len(ids), len(tokens), dtype=torch.bool)], dim=1)
    positions = torch.cat([torch.arange(ids.shape[1]), torch.arange(start, start + len(tokens))])
    options: dict[str, Any] = {"position_ids": positions[None].expand(len(ids), -1), "use_cache": False}
    states = reference.get_decoder()(inputs_embeds=rows, attention_mask=seen.long(), **options).last_hidden_state
    return states[:, : ids.shape[1]][mask], states[:, ids.shape[1] :].mean(1)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Within a share of the largest value."""
    assert (found - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize("name", PACKED)
def test_states_are_those_of_hugging_face(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    compared: list[Comparison | None] = []
    assert lm_store.get(str(folder), compare=lambda given: str(compared.append(compare(given)))) == folder
    assert str(compared[0]).startswith("packed rows; states within ")
    assert compared[0] is not None
    assert compared[0].difference <= 1e-5
    model = closed(folder)
    assert model.language_model.packs
    ids, mask = text()
    text_states, fusion_state = theirs(folder, model, ids, mask)
    for plain in (False, True):
        with torch.no_grad():
            found = run(model, ids, mask, plain=plain)
        assert_close(found.text_states, text_states)
        assert_close(found.states["fusion"], fusion_state)


@pytest.mark.parametrize("name", BY_THEIR_OWN_CODE)
def test_states_are_those_of_hugging_face_where_its_code_attends(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    compared = compare(lm_store.get(str(folder)))
    assert str(compared).startswith("padded rows, by its own code; states within ")
    assert compared is not None
    assert compared.difference <= 2e-5
    model = closed(folder)
    assert not model.language_model.packs
    ids, mask = text()
    reference = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval().get_decoder()
    with torch.no_grad():
        found = run(model, ids, mask)
        alone = [reference(input_ids=ids[i : i + 1, :n]).last_hidden_state[0] for i, n in enumerate(LENGTHS)]
    assert_close(found.text_states, torch.cat(alone), 2e-5)
    with pytest.raises(
        ConfigError, match="model.fusion_groups='separate': this language model attends by its own code"
    ):
        closed(folder, fusion_groups="separate")


@pytest.mark.parametrize("name", [*PACKED, *BY_THEIR_OWN_CODE])
def test_an_utterance_is_read_alike_in_any_batch_and_its_loss_has_gradients(build, name: str) -> None:  # noqa: ANN001
    model = model_of(build(name))
    ids, mask = text()
    together, plain = run(model, ids, mask), run(model, ids, mask, plain=True)
    assert_close(plain.task, together.task, 1e-4)
    for row, length in enumerate(LENGTHS):
        alone = run(model, ids[row : row + 1, :length], mask[row : row + 1, :length])
        assert_close(alone.states["text"], together.states["text"][row : row + 1], 2e-5)
        assert_close(alone.states["fusion"], together.states["fusion"][row : row + 1], 2e-5)
    together.task.sum().backward()
    trained = {name: p for name, p in model.mm_blocks.named_parameters() if p.requires_grad}
    assert [name for name, p in trained.items() if p.grad is None] == []
    moved = {name for name, p in trained.items() if p.grad is not None and p.grad.abs().sum() > 0}
    still = {name.rpartition(".")[2] for name in trained.keys() - moved}
    assert still <= {"a"}  # of LoRA, whose other factor is zero at first
    assert any(".lora." in name for name in moved)


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


@pytest.mark.parametrize("name", ["llama-dynamic", "llama-longrope"])
def test_a_text_that_is_short_enough_is_read_as_hugging_face_does(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    model = closed(folder, max_text_len=6, num_fusion_tokens=2)
    ids, mask = text((6, 3))
    text_states, fusion_state = theirs(folder, model, ids, mask)
    with torch.no_grad():
        found = run(model, ids, mask)
    assert_close(found.text_states, text_states)
    assert_close(found.states["fusion"], fusion_state)


@pytest.mark.parametrize("name", REFUSED)
def test_another_family_is_refused_with_the_reason(build, name: str) -> None:  # noqa: ANN001
    folder = build(name)
    with pytest.raises(LanguageModelError, match="is not supported") as caught:
        lm_store.get(str(folder))
    assert str(caught.value).endswith(f" is not supported: {REFUSED[name]}")
    assert "\n" not in str(caught.value)


def test_every_family_has_its_case(shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = builder(shared, tmp_path, monkeypatch)
    assert set(module.FAM) == {*PACKED, *BY_THEIR_OWN_CODE, *TOO_SHORT, *REFUSED}
