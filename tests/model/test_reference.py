"""Parity with the authors' code: outputs, losses and gradients from its own checkpoints."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from deepmlf.errors import CheckpointError
from deepmlf.inference.predictor import Predictor
from deepmlf.model.deepmlf import DeepMLF, DeepMLFOutput
from deepmlf.model.reference import from_reference_layout, import_reference, load_reference, parameter_names
from deepmlf.training.losses import LossWeights, compute_losses

CASES = ["gpt2_depth2_tokens4", "llama_depth3_tokens3"]


def load_case(shared: Path, name: str) -> tuple[DeepMLF, dict[str, torch.Tensor], dict[str, Any]]:
    tensors = load_file(shared / "parity" / f"{name}.safetensors")
    meta = json.loads((shared / "parity" / f"{name}.json").read_text())
    state = {key: tensor for key, tensor in tensors.items() if key.startswith("state.")}
    return load_reference(state, meta["reference_config"], meta["lm_config"]), tensors, meta


def run(model: DeepMLF, tensors: dict[str, torch.Tensor], lm_logits: bool = False) -> DeepMLFOutput:
    inputs = (tensors[f"in.{name}"] for name in ("input_ids", "attention_mask", "audio", "vision"))
    return model(*inputs, lm_logits=lm_logits)


def losses_of(
    model: DeepMLF, output: DeepMLFOutput, tensors: dict[str, torch.Tensor], meta: dict[str, Any]
) -> dict[str, torch.Tensor]:
    reference = meta["reference_config"]
    weights = LossWeights(reference["l_bn"], reference["l_av"], reference["l_t"], reference["gamma"])
    return compute_losses(model, output, tensors["in.input_ids"], tensors["in.labels"], weights, pad_token_id=0)


@pytest.mark.parametrize("name", CASES)
def test_outputs_equal_the_authors(shared: Path, name: str) -> None:
    model, tensors, _ = load_case(shared, name)
    with torch.no_grad():
        output = run(model, tensors, lm_logits=True)
    assert output.lm_logits is not None
    outputs = {"task": output.task, "text": output.text, "av": output.av, "fusion": output.fusion}
    for key, actual in (outputs | {"lm": output.lm_logits}).items():
        torch.testing.assert_close(actual, tensors[f"eval.{key}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("mode", ["eval", "train"])
def test_losses_equal_the_authors(shared: Path, name: str, mode: str) -> None:
    model, tensors, meta = load_case(shared, name)
    losses = losses_of(model, run(model.train(mode == "train"), tensors), tensors, meta)
    for key, theirs in (
        ("task", "task"),
        ("fusion", "fusion"),
        ("av", "av"),
        ("text", "text"),
        ("lm", "clm"),
        ("total", "total"),
    ):
        torch.testing.assert_close(losses[key], tensors[f"{mode}.loss.{theirs}"][0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_the_authors(shared: Path, name: str) -> None:
    model, tensors, meta = load_case(shared, name)
    for parameter in model.parameters():
        parameter.requires_grad_(True)  # the case holds gradients of frozen weights, too
    losses_of(model, run(model.train(), tensors), tensors, meta)["total"].backward()
    names = parameter_names(model)
    # Sums that cancel (a bias in front of batch norm has gradient zero, a gate's is a sum over all positions) carry
    # the rounding of their terms: no float32 gradient is known better than epsilon times the largest one.
    largest = max(float(tensor.abs().max()) for key, tensor in tensors.items() if key.startswith("grad."))
    rounding = torch.finfo(torch.float32).eps * largest
    compared = set()
    for ours, parameter in model.named_parameters():
        expected = tensors[f"grad.{names[ours]}"]
        # The scale folded into the query divides its gradient where it multiplies its weight.
        heads = model.config.cross_attention_heads
        scale = heads if ours.endswith("attention.query.weight") else 1
        expected = from_reference_layout(ours, expected, heads) * scale
        assert parameter.grad is not None
        torch.testing.assert_close(
            parameter.grad, expected, atol=max(1e-4 * float(expected.abs().max()), rounding), rtol=0
        )
        compared.add(f"grad.{names[ours]}")
    assert compared == {key for key in tensors if key.startswith("grad.")}


def theirs(values: torch.Tensor, frames: int) -> torch.Tensor:
    """The authors' pooling of [batch, time, features] to [batch, frames, features], written out frame by frame."""
    per_frame = -(-values.shape[1] // frames)
    last = values[:, -1:].expand(-1, per_frame * frames - values.shape[1], -1)
    padded = torch.cat([values, last], dim=1)
    return torch.stack([padded[:, frame::frames].mean(1) for frame in range(frames)], dim=1)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    ("normalised", "switches"),
    [
        ("both", {"use_bn": True}),
        ("audio", {"use_bn": True, "use_bn_v": False}),
        ("audio", {"use_bn": {"use_bn_a": True, "use_bn_v": False}}),
        ("audio", {"use_bn": {"use_bn_a": True}}),
    ],
)
def test_batch_norm_of_the_authors_comes_after_pooling(
    shared: Path, name: str, normalised: str, switches: dict[str, Any]
) -> None:
    """On the inputs of a case; its own checkpoint has no batch norm, so the weights are drawn here."""
    _, tensors, meta = load_case(shared, name)
    state = {key: tensor for key, tensor in tensors.items() if key.startswith("state.")}
    generator = torch.Generator().manual_seed(0)
    modalities = {"audio": "a", "vision": "v"} if normalised == "both" else {"audio": "a"}
    for modality, key in modalities.items():
        width = tensors[f"in.{modality}"].shape[-1]
        drawn = {leaf: torch.rand(width, generator=generator) + 0.5 for leaf in ("weight", "bias", "running_mean")}
        counts = {"running_var": torch.ones(width), "num_batches_tracked": torch.tensor(0)}
        state |= {f"state.Model.av_encoder.BN_{key}.{leaf}": tensor for leaf, tensor in (drawn | counts).items()}
    reference = meta["reference_config"]
    model = load_reference(state, reference | {"av_enc": reference["av_enc"] | switches}, meta["lm_config"])
    assert (model.config.av_batch_norm, model.config.av_batch_norm_on) == (normalised, "pooled")
    for modality in modalities:
        encoder, values = getattr(model.av_encoder, modality).train(), tensors[f"in.{modality}"]
        seen: list[torch.Tensor] = []
        handle = encoder.projection.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        norm = encoder.batch_norm
        pooled = theirs(values, encoder.frames)
        spread = (pooled - pooled.mean((0, 1))) / (pooled.var((0, 1), correction=0) + norm.eps).sqrt()
        expected = spread * norm.weight + norm.bias
        encoder(values, None)
        torch.testing.assert_close(seen[0], expected, atol=1e-5, rtol=0)
        encoder.normalises_pooled = False
        encoder(values, None)
        assert not torch.allclose(seen[1], expected, atol=1e-2)  # otherwise nothing was compared
        handle.remove()


@pytest.mark.parametrize("name", CASES)
def test_an_imported_checkpoint_is_loaded_with_the_same_outputs(shared: Path, tmp_path: Path, name: str) -> None:
    model, tensors, meta = load_case(shared, name)
    files = (shared / "parity" / f"{name}.safetensors", shared / "parity" / f"{name}.json")
    import_reference(*files, tmp_path / "theirs")
    loaded = DeepMLF.from_pretrained(tmp_path / "theirs")
    expected, found = run(model, tensors, lm_logits=True), run(loaded, tensors, lm_logits=True)
    for part in ("task", "text", "av", "fusion", "lm_logits"):
        assert torch.equal(getattr(found, part), getattr(expected, part)), part
    with pytest.raises(CheckpointError, match="exists and is not empty; choose another folder"):
        import_reference(*files, tmp_path / "theirs")
    with pytest.raises(CheckpointError, match="does not say what it was trained on, so inputs cannot be prepared"):
        Predictor.open(tmp_path / "theirs")


def test_what_does_not_fit_is_told(shared: Path, tmp_path: Path) -> None:
    _, tensors, meta = load_case(shared, CASES[0])
    state = {key: tensor for key, tensor in tensors.items() if key.startswith("state.")}
    reference, lm = meta["reference_config"], meta["lm_config"]
    for stray in ("Model.W_stray.weight", "whatever"):
        with pytest.raises(CheckpointError, match=f"no place for {stray} in the model that its config describes"):
            load_reference(state | {f"state.{stray}": torch.zeros(1)}, reference, lm)
    with pytest.raises(CheckpointError, match="reference config: num_fusion_tokens=0: Input should be greater"):
        load_reference(state, reference | {"n_bn_fusion": 0}, lm)
