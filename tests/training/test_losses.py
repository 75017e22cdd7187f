"""The language model's loss in chunks against PyTorch's own over all positions at once."""

import pytest
import torch
from torch.nn import functional as F

from deepmlf.training import losses


@pytest.mark.parametrize("rows", [1, 7, 8, 20])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_make_no_difference(
    dtype: torch.dtype, with_bias: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "_LOGITS_CHUNK", 7)
    monkeypatch.setattr(losses, "_LOGITS_CHUNK_BFLOAT16_CPU", 3)
    generator = torch.Generator().manual_seed(rows)
    states = torch.randn(rows, 16, generator=generator)
    states[0] *= 100  # its target is so unlikely that the probability underflows
    weight = torch.randn(50, 16, generator=generator).to(dtype)
    bias = torch.randn(50, generator=generator).to(dtype) if with_bias else None
    targets = torch.randint(0, 50, (rows,), generator=generator)
    targets[0] = (states[0] @ weight.float().T).argmin()
    results = []
    for chunked in (True, False):
        part = states.clone().requires_grad_()
        if chunked:
            loss = losses._FrozenCrossEntropy.apply(part, targets, weight, bias, True)
        else:
            loss = F.cross_entropy(F.linear(part.to(dtype), weight, bias).float(), targets)
        (3 * loss).backward()
        results.append((loss.detach(), part.grad))
    (loss, gradient), (expected_loss, expected_gradient) = results
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=0)
    # A gradient's entry is a sum of products whose factors are rounded; the probabilities in it add up to two.
    largest = 3 / rows * 2 * weight.abs().max().item()
    torch.testing.assert_close(gradient, expected_gradient, rtol=0, atol=2 * torch.finfo(dtype).eps * largest)
    assert losses._FrozenCrossEntropy.apply(states, targets, weight, bias, False) == loss
