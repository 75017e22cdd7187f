"""Dropout keeps the right share of values, at the right scale, and passes its gradient to those alone."""

import pytest
import torch

from deepmlf.model.dropout import Dropout, dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(1_000_003,), (500, 3, 677)])
def test_the_share_and_the_scale_are_right(p: float, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    values = torch.ones(shape, requires_grad=True)
    dropped = dropout(values, p, training=True)
    dropped.sum().backward()
    is_kept = dropped.detach() != 0
    spread = (p * (1 - p) / values.numel()) ** 0.5
    assert is_kept.double().mean().item() == pytest.approx(1 - p, abs=5 * spread)
    assert dropped[is_kept].unique().item() == pytest.approx(1 / (1 - p), rel=2e-4)
    assert values.grad is not None
    torch.testing.assert_close(values.grad, dropped.detach())


def test_a_share_too_small_for_sixteen_bits_drops_nothing() -> None:
    values = torch.ones(1000)
    assert torch.equal(dropout(values, 5e-6, training=True), values)


def test_neighbours_are_independent() -> None:
    """Values that share a draw of 64 bits are no more alike than others."""
    torch.manual_seed(0)
    kept = (dropout(torch.ones(400_000), 0.5, training=True) != 0).view(-1, 8).double()
    correlations = torch.corrcoef(kept.T) - torch.eye(8)
    assert correlations.abs().max().item() < 5 / len(kept) ** 0.5


def test_it_follows_the_seed_and_does_nothing_in_evaluation() -> None:
    layer, values = Dropout(0.3), torch.randn(7, 11)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = layer(values)
    assert not torch.equal(first, layer(values))
    torch.set_rng_state(state)
    assert torch.equal(first, layer(values))
    assert torch.equal(layer.eval()(values), values)
    assert torch.equal(dropout(values, 0.0, training=True), values)
    assert not dropout(values, 1.0, training=True).any()
