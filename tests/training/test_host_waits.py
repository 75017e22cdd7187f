"""A training step asks a device for no value: a GPU's host goes on while it computes.

Tensors of the meta device have no values: whatever would wait for one raises.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from deepmlf.config.model import ModelConfig
from deepmlf.data.batch import Batch
from deepmlf.model.deepmlf import DeepMLF
from deepmlf.model.language_model import Family, tiny_random
from deepmlf.training.forward import run_model
from deepmlf.training.losses import LossWeights, compute_losses

META = torch.device("meta")


def batch_of(lengths: Sequence[int]) -> Batch:
    counts = torch.tensor(lengths)
    mask = (torch.arange(max(lengths)) < counts[:, None]).long()
    size = len(lengths)
    return Batch(
        input_ids=torch.arange(mask.numel()).view_as(mask) * mask,
        attention_mask=mask,
        audio=torch.randn(size, 6, 5),
        audio_lengths=torch.full((size,), 6),
        vision=torch.randn(size, 4, 7),
        vision_lengths=torch.full((size,), 4),
        targets=torch.randn(size, 1),
        index=torch.arange(size),
        text_lengths=counts,
    )


def model_on(device: torch.device, family: Family, **settings: Any) -> DeepMLF:
    fixed = {
        "fusion_layers": (0, 2), "num_fusion_tokens": 3, "softperm_text_features": 0.3, "softperm_text_apply": 1.0,
        "softperm_av_features": 0.3, "embedding_noise": 5.0, "embedding_dropout": 0.1,
    }  # fmt: skip
    config = ModelConfig.model_validate(fixed | settings)
    return DeepMLF(tiny_random(family, device=str(device)), 5, 7, config).to(device).train()


@pytest.mark.parametrize("settings", [{}, {"fusion_groups": "separate"}, {"num_fusion_tokens": 0}], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_step_needs_no_value_of_the_device(family: Family, settings: dict[str, Any]) -> None:
    model, batch = model_on(META, family, **settings), batch_of([3, 9, 1, 4]).to(META)
    losses = compute_losses(
        model,
        run_model(model, batch, "float32"),
        batch.input_ids,
        batch.targets,
        LossWeights(fusion=1.0, av=1.0, text=1.0, lm=1.0),
        pad_token_id=0,
    )
    losses["total"].backward()
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert {name for name, p in model.named_parameters() if p.grad is not None} == set(trained)
    assert all(loss.device == META for loss in losses.values())


def test_a_value_of_the_meta_device_cannot_be_asked_for() -> None:
    model, batch = model_on(META, "llama"), batch_of([3, 1]).to(META)
    with pytest.raises(NotImplementedError, match="meta"):
        model(batch.input_ids, batch.attention_mask, batch.audio, batch.vision)  # lengths have to be counted


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_lengths_that_are_known_make_no_difference(family: Family) -> None:
    model, batch = model_on(torch.device("cpu"), family).eval(), batch_of([3, 9, 1, 4])
    inputs = (batch.input_ids, batch.attention_mask, batch.audio, batch.vision)
    known, counted = model(*inputs, text_lengths=batch.text_lengths), model(*inputs)
    for name in ("task", "text", "av", "fusion", "text_states", "text_rows"):
        assert getattr(known, name).equal(getattr(counted, name))
