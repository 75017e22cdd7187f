"""SoftPerm reorders some features in time, among valid frames, in training only."""

import torch

from deepmlf.model.augmentation import SoftPerm


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    """Two utterances of 12 and 5 valid frames whose every value is its place in time; padding is -1."""
    values = torch.arange(12.0)[None, :, None].expand(2, 12, 400).clone()
    mask = torch.ones(2, 12, dtype=torch.bool)
    mask[1, 5:] = False
    values[~mask] = -1
    return values, mask


def test_drawn_features_take_one_permutation_of_the_valid_frames() -> None:
    torch.manual_seed(0)
    values, mask = batch()
    changed = SoftPerm(0.25)(values, mask)
    assert torch.equal(changed[~mask], values[~mask])
    for row, frames in ((0, 12), (1, 5)):
        moved = (changed[row, :frames] != values[row, :frames]).any(0)
        assert 0.15 < moved.double().mean() < 0.35
        assert torch.equal(changed[row, :, ~moved], values[row, :, ~moved])
        columns = changed[row, :frames][:, moved]
        assert torch.equal(columns, columns[:, :1].expand_as(columns))  # the same permutation for every feature
        assert torch.equal(columns[:, 0].sort().values, values[row, :frames, 0])


def test_without_a_mask_padding_is_permuted_too_and_with_p_1_every_feature() -> None:
    torch.manual_seed(0)
    values, _ = batch()
    changed = SoftPerm(1.0)(values)
    assert (changed[1] != values[1]).any(0).all()
    assert torch.equal(changed.sort(1).values, values.sort(1).values)


def test_batches_are_augmented_as_often_as_asked_and_never_in_evaluation() -> None:
    torch.manual_seed(0)
    values, mask = batch()
    layer = SoftPerm(1.0, p_apply=0.3)
    share = sum(not torch.equal(layer(values, mask), values) for _ in range(200)) / 200
    assert 0.2 < share < 0.4
    assert torch.equal(layer.eval()(values, mask), values)
    assert not layer.is_active
