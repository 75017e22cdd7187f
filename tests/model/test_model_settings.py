"""The assembled model under settings that are not the authors': groups of fusion tokens, none at all, other gates."""

from typing import Any

import pytest
import torch
from torch import Tensor

from deepmlf.config.model import ModelConfig
from deepmlf.config.trial import TrialConfig
from deepmlf.errors import ConfigError
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import Family
from deepmlf.model.lm.attention import attention_mask_of, fusion_mask_of
from deepmlf.training.losses import LossWeights, compute_losses
from tests.model.tiny import FAMILIES, assert_same, close_gates, make_batch, make_model

SEPARATE = {"fusion_groups": "separate", "num_fusion_tokens": 7}
AUDIO, VISION, SHARED = slice(0, 2), slice(2, 4), slice(4, 7)
SETTINGS: list[dict[str, Any]] = [
    SEPARATE,
    {"num_fusion_tokens": 0},
    {"gate": "none", "ffn_on": "fusion"},
    {"gate": "tanh", "gate_init": (0.3, -0.5), "ffn_on": "fusion", **SEPARATE},
]
EACH = pytest.mark.parametrize("settings", SETTINGS, ids=["separate", "no tokens", "no gate", "all at once"])


def one_sided(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same batch, whose first utterance has no audio and whose last one no vision."""
    batch = {name: tensor.clone() for name, tensor in batch.items()}
    batch["audio"][0], batch["audio_lengths"][0] = 0, 0
    batch["vision"][-1], batch["vision_lengths"][-1] = 0, 0
    return batch


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layers", [(0, 1), (1, 3)])
@EACH
def test_the_packed_path_equals_the_plain_one(family: Family, layers: tuple[int, ...], settings: Any) -> None:
    """Outputs, losses and gradients of all weights, with ragged texts, absent modalities and an empty text."""
    batch = one_sided(make_batch([3, 9, 1, 0], [20, 5, 0, 7], pad_text=2))
    labels = torch.tensor([[1.0], [-2.0], [0.5], [0.0]])
    results = []
    for plain in (False, True):
        model = make_model(family, fusion_layers=layers, ffn="full", dropout=0.0, av_dropout=0.0, **settings)
        output = model(**batch, plain=plain)
        weights = LossWeights(fusion=0.4, av=0.8, text=0.6, lm=0.7)
        losses = compute_losses(model, output, batch["input_ids"], labels, weights, pad_token_id=256)
        losses["total"].backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        assert gradients.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
        results.append((output, losses, gradients))
    (fast, fast_losses, fast_gradients), (slow, slow_losses, slow_gradients) = results
    assert_same(fast, slow)
    torch.testing.assert_close(fast.text_states, slow.text_states, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fast_losses, slow_losses, atol=1e-5, rtol=1e-5)
    largest = max(float(gradient.abs().max()) for gradient in slow_gradients.values())
    for name, gradient in fast_gradients.items():
        torch.testing.assert_close(gradient, slow_gradients[name], atol=1e-6 * largest, rtol=1e-4, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
@EACH
def test_outputs_do_not_depend_on_padding_company_or_a_kept_prefix(family: Family, settings: Any) -> None:
    model = make_model(family, **settings).eval()
    batch = one_sided(make_batch([3, 9, 1, 4], [20, 5, 0, 1]))
    padded = one_sided(make_batch([3, 9, 1, 4], [20, 5, 0, 1], pad_text=6, pad_frames=13))
    with torch.no_grad():
        together = model(**batch)
        assert_same(together, model(**padded))
        prefix = model.text_prefix(batch["input_ids"], batch["attention_mask"])
        assert_same(together, model(**batch, prefix=prefix))
        for row, length in enumerate([3, 9, 1, 4]):
            alone = {name: tensor[row : row + 1] for name, tensor in batch.items()}
            alone |= {name: alone[name][:, :length] for name in ("input_ids", "attention_mask")}
            assert_same(together, model(**alone), slice(row, row + 1))
        # What stands at the padding makes no difference either.
        other = padded | {"input_ids": torch.where(padded["attention_mask"].bool(), padded["input_ids"], 77)}
        for plain in (False, True):
            assert_same(together, model(**other, plain=plain))


def states_of(model: DeepMLF, batch: dict[str, Tensor], *, plain: bool) -> tuple[Tensor, Tensor]:
    """Last states of fusion tokens [batch, n, d] and of the last text tokens [batch, d]."""
    assert model.fusion_head is not None
    kept: dict[str, Tensor] = {}
    hooks = [
        head.register_forward_pre_hook(lambda _, inputs, name=name: kept.update({name: inputs[0]}))
        for name, head in (("fusion", model.fusion_head), ("text", model.text_head))
    ]
    model(**batch, plain=plain)
    for hook in hooks:
        hook.remove()
    return kept["fusion"], kept["text"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("plain", [False, True])
@pytest.mark.parametrize(("changed", "blind", "sighted"), [("audio", VISION, AUDIO), ("vision", AUDIO, VISION)])
def test_a_group_of_one_modality_knows_nothing_of_the_other(
    family: Family, plain: bool, changed: str, blind: slice, sighted: slice
) -> None:
    """Bit for bit, through all layers and MM blocks; text knows of neither, shared tokens know both."""
    model = make_model(family, av_batch_norm="both", **SEPARATE).eval()
    batch = make_batch([3, 9, 4], [6, 5, 7])
    other = dict(batch) | {changed: batch[changed] * 1.5 + 1}
    with torch.no_grad():
        (before, text), (after, text_after) = (states_of(model, one, plain=plain) for one in (batch, other))
    assert torch.equal(text, text_after)
    assert torch.equal(before[:, blind], after[:, blind])
    for tokens in (sighted, SHARED):
        assert not torch.isclose(before[:, tokens], after[:, tokens], atol=1e-5).all(-1).any()
    # The same by gradients: of the inputs, and of a fusion token of the other group.
    batch[changed].requires_grad_()
    states = states_of(model, batch, plain=plain)[0]
    weighted, tokens = states * torch.randn_like(states), model.fusion_tokens  # the plain sum of a LayerNorm is zero
    of_input, of_tokens = torch.autograd.grad(
        weighted[:, blind].sum(), [batch[changed], tokens], allow_unused=True, retain_graph=True
    )
    assert of_input is None or not of_input.any()
    assert not of_tokens[sighted].any()
    assert not of_tokens[SHARED].any()
    assert of_tokens[blind].any(-1).all()
    of_input, of_tokens = torch.autograd.grad(weighted.sum(), [batch[changed], tokens])
    assert of_input.any()
    assert of_tokens.any(-1).all()


def test_the_mask_of_groups_is_as_drawn() -> None:
    expected = [
        [1, 0, 0, 0],
        [0, 1, 0, 0],
        [0, 1, 1, 0],
        [1, 1, 1, 1],
    ]
    mask = fusion_mask_of((1, 2, 1))
    assert mask is not None
    assert mask.int().tolist() == expected
    assert fusion_mask_of((0, 0, 4)) is None
    whole = attention_mask_of(torch.tensor([[1, 1, 0]]), 4, mask)[0, 0].int().tolist()
    assert whole[:3] == [[1, 0, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0]]
    assert whole[3:] == [[1, 1, 0, *row] for row in expected]


@pytest.mark.parametrize(("tokens", "sizes"), [(3, (1, 1, 1)), (4, (1, 1, 2)), (5, (1, 1, 3)), (12, (4, 4, 4))])
def test_a_third_of_the_tokens_is_of_each_modality(tokens: int, sizes: tuple[int, int, int]) -> None:
    assert ModelConfig(num_fusion_tokens=tokens, fusion_groups="separate").group_sizes == sizes
    assert ModelConfig(num_fusion_tokens=tokens).group_sizes == (0, 0, tokens)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_fusion_tokens_the_text_attends(family: Family) -> None:
    model = make_model(family, num_fusion_tokens=0).eval()
    batch = make_batch([6, 3], [4, 2])
    with torch.no_grad():
        before, after = (model(**one) for one in (batch, batch | {"audio": batch["audio"] + 1}))
    assert before.fusion is None
    assert not torch.isclose(before.text, after.text, atol=1e-6).any()
    # An earlier token has not seen a later one, by whichever path.
    with torch.no_grad():
        changed = batch["input_ids"].clone()
        changed[:, 2] += 1
        later = model(**batch | {"input_ids": changed})
    firsts = torch.tensor([0, 1, 6, 7])
    assert torch.equal(before.text_states[firsts], later.text_states[firsts])
    names = {name.partition(".")[0] for name, _ in model.named_parameters() if model.get_parameter(name).requires_grad}
    assert names == {"av_encoder", "av_head", "mm_blocks", "task_head", "text_head"}
    assert model.task_head[0].in_features == model.language_model.width + model.config.av_width


@pytest.mark.parametrize("family", FAMILIES)
def test_with_the_ffn_on_fusion_tokens_the_text_is_the_language_models(family: Family) -> None:
    model, authors = make_model(family, ffn_on="fusion").eval(), make_model(family).eval()
    closed = make_model(family).eval()
    close_gates(closed)
    batch = make_batch([6, 3], [4, 2])
    with torch.no_grad():
        text, own, all_of_it = (one(**batch).text_states for one in (model, closed, authors))
    assert torch.equal(text, own)
    assert not torch.isclose(text, all_of_it, atol=1e-3).all()


def test_each_block_begins_at_its_own_gate() -> None:
    gates = make_model(gate="tanh", gate_init=(0.0, 0.5)).gates()
    assert gates == pytest.approx(
        {"gate/1/attention": 0.0, "gate/1/ffn": 0.0, "gate/3/attention": 0.46212, "gate/3/ffn": 0.46212}, abs=1e-5
    )
    assert make_model(gate="none").gates() == {}


def test_the_same_seed_begins_the_audiovisual_encoder_the_same() -> None:
    """Trials share its stage, whatever fuses later."""
    encoders = [make_model(**settings).av_encoder.state_dict() for settings in ({}, *SETTINGS)]
    for encoder in encoders[1:]:
        assert encoder.keys() == encoders[0].keys()
        assert all(torch.equal(encoder[name], encoders[0][name]) for name in encoder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model.gate_init": [0.0, 1.0]},
         "model: `gate_init` must be one number, or one for each of the 5 MM blocks, but got 2"),
        ({"model.gate_init": [0.0, 1.0, 2.0], "model.fusion_layers": [3, 4]},
         "model: `gate_init` must be one number, or one for each of the 2 MM blocks, but got 3"),
        ({"model.gate_init": "wide"},
         "model.gate_init='wide': Input should be a valid number, unable to parse string as a number"),
        ({"model.gate_init": [0.0, float("nan")]}, "model.gate_init=[0.0, nan]: Input should be a finite number"),
        ({"model.gate": "relu"}, "model.gate='relu': Input should be 'sigmoid', 'tanh' or 'none'"),
        ({"model.fusion_groups": "separate", "model.num_fusion_tokens": 2},
         "model: `fusion_groups`=separate needs at least 3 fusion tokens, but got num_fusion_tokens=2"),
        ({"model.ffn_on": "fusion", "model.num_fusion_tokens": 0},
         "model: `ffn_on`=fusion needs fusion tokens, but got num_fusion_tokens=0"),
        ({"curriculum.name": "unimodal_first", "model.num_fusion_tokens": 0},
         "curriculum.name=unimodal_first: with model.num_fusion_tokens=0 the text attends to audio and vision, so that "
         "its head cannot be trained alone; take another curriculum, or fusion tokens"),
        ({"model.embedding_dropout": 1.0}, "model.embedding_dropout=1.0: Input should be less than 1"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrialConfig.from_overrides(settings)
    assert str(caught.value) == message


def test_groups_need_both_modalities() -> None:
    config = ModelConfig.model_validate(SEPARATE)
    config.check_modalities([])
    ModelConfig().check_modalities(["vision"])
    with pytest.raises(ConfigError) as caught:
        config.check_modalities(["vision"])
    assert str(caught.value) == "model.fusion_groups=separate: the dataset has no vision; take shared"
